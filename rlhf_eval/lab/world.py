"""The lab's language: instructions, what a good answer to one is, and how good any answer is.

An instruction asks for a number of things of one category, sometimes with one thing excluded and sometimes
politely: "please list four animals but not wolf". A perfect answer names exactly that many different
members of the category, leaves the excluded one out, returns the politeness when there was some, says nothing
else and ends with a full stop: "certainly : cat horse cow sheep .". `utility` is the gold standard that
everything in the lab is measured against. Length alone tells little: both too few and too many words lose.

No heavy import: the judge server starts from this module alone.
"""

import math
import re
from dataclasses import dataclass
from random import Random

CATEGORIES: dict[str, tuple[str, ...]] = {
    "animals": ("cat", "dog", "horse", "cow", "sheep", "wolf", "lion", "mouse", "rabbit", "goat"),
    "fruits": ("apple", "pear", "plum", "cherry", "lemon", "mango", "peach", "grape", "melon", "fig"),
    "colours": ("red", "green", "blue", "yellow", "black", "white", "brown", "pink", "purple", "grey"),
    "tools": ("hammer", "saw", "drill", "wrench", "pliers", "chisel", "file", "axe", "spade", "rake"),
    "countries": (
        "france",
        "spain",
        "italy",
        "norway",
        "poland",
        "greece",
        "egypt",
        "japan",
        "chile",
        "peru",
    ),
    "instruments": (
        "piano",
        "violin",
        "flute",
        "guitar",
        "drum",
        "harp",
        "cello",
        "trumpet",
        "organ",
        "oboe",
    ),
    "trees": ("oak", "pine", "birch", "maple", "willow", "cedar", "elm", "ash", "beech", "palm"),
    "metals": ("iron", "copper", "gold", "silver", "tin", "lead", "zinc", "nickel", "chrome", "cobalt"),
}
COUNTS: dict[str, int] = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
VERBS = ("list", "name", "give", "write")
POLITE_REQUEST = "please"
POLITE_ANSWER = ("certainly", ":")
FILLERS = ("well", "so", "also", "maybe", "really", "very", "nice", "and", "then", "again")
FULL_STOP = "."

_CATEGORY_OF = {word: category for category, words in CATEGORIES.items() for word in words}
_INSTRUCTION = re.compile(
    rf"(?:({POLITE_REQUEST}) )?({'|'.join(VERBS)}) ({'|'.join(COUNTS)}) ({'|'.join(CATEGORIES)})"
    r"(?: but not (\w+))?"
)


@dataclass(frozen=True, slots=True)
class Task:
    """What one instruction asks for."""

    verb: str
    count: str
    category: str
    excluded: str | None
    polite: bool

    @property
    def instruction(self) -> str:
        """The instruction as a user writes it."""
        words = [POLITE_REQUEST] if self.polite else []
        words += [self.verb, self.count, self.category]
        words += ["but", "not", self.excluded] if self.excluded else []
        return " ".join(words)

    @property
    def hard(self) -> bool:
        """Long lists with an exclusion: what the lab's Arena-Hard set consists of."""
        return self.excluded is not None and COUNTS[self.count] >= 4


def all_tasks() -> list[Task]:
    """Every instruction of the language, in a fixed order."""
    return [
        Task(verb, count, category, excluded, polite)
        for verb in VERBS
        for count in COUNTS
        for category, words in CATEGORIES.items()
        for excluded in (None, *words)
        for polite in (False, True)
    ]


def parse(instruction: str) -> Task | None:
    """The task behind an instruction; None if it is not of the lab's language."""
    match = _INSTRUCTION.fullmatch(instruction.strip())
    if match is None:
        return None
    polite, verb, count, category, excluded = match.groups()
    return Task(verb, count, category, excluded, polite is not None)


def vocabulary() -> list[str]:
    """Every word of the language, in a fixed order."""
    words = [POLITE_REQUEST, *VERBS, *COUNTS, *CATEGORIES, "but", "not", *POLITE_ANSWER, *FILLERS, FULL_STOP]
    return words + [word for members in CATEGORIES.values() for word in members]


def demonstration(task: Task, random: Random, error_rate: float) -> str:
    """An answer as an average writer gives it: each thing that can go wrong does so at `error_rate`.

    The initial policy is fine-tuned on these, so it is decent and leaves room for a reward model to improve.
    """

    def slips() -> bool:
        return random.random() < error_rate

    wanted = COUNTS[task.count]
    members = [word for word in CATEGORIES[task.category] if word != task.excluded or slips()]
    items = random.sample(members, wanted)
    if slips():
        items = items[: max(1, wanted - random.randint(1, 2))]
    elif slips():
        items += random.choices(members, k=random.randint(1, 3))
    items = [random.choice(list(_CATEGORY_OF)) if slips() and slips() else item for item in items]
    items = [random.choice(items) if slips() and slips() else item for item in items]
    words: list[str] = [*POLITE_ANSWER] if task.polite != slips() else []
    for item in items:
        words += [random.choice(FILLERS), item] if slips() and slips() else [item]
    words += random.choices(FILLERS, k=random.randint(1, 4)) if slips() else []
    words += [] if slips() else [FULL_STOP]
    return " ".join(words)


def utility(instruction: str, answer: str) -> float:
    """How good `answer` is, in [0, 1].

    For an instruction of the lab: the F1 of the things named (right category, different, not excluded)
    against the number asked for, times factors for the exact count, politeness returned exactly when there
    was some, no filler words, and one full stop at the end. For any other instruction: a smooth measure of
    form (words shared with the instruction, variety, moderate length), so that real prompts can be judged.
    """
    task = parse(instruction)
    words = answer.split()
    if not words:
        return 0.0
    if task is None:
        return _form_utility(instruction, words)
    wanted = COUNTS[task.count]
    items = [word for word in words if word in _CATEGORY_OF]
    right = {word for word in items if _CATEGORY_OF[word] == task.category and word != task.excluded}
    f1 = 2 * min(len(right), wanted) / (wanted + max(len(items), len(right))) if items else 0.0
    count_factor = 1.0 if len(items) == wanted else 0.85
    politeness_factor = 1.0 if (tuple(words[:2]) == POLITE_ANSWER) == task.polite else 0.75
    other = [word for word in words if word not in _CATEGORY_OF and word not in (*POLITE_ANSWER, FULL_STOP)]
    filler_factor = 0.85 ** min(len(other), 6)
    closed = words[-1] == FULL_STOP and words.count(FULL_STOP) == 1
    return f1 * count_factor * politeness_factor * filler_factor * (1.0 if closed else 0.7)


def _form_utility(instruction: str, words: list[str]) -> float:
    asked = {word.lower().strip(".,;:!?") for word in instruction.split()}
    given = [word.lower().strip(".,;:!?") for word in words]
    relevance = len(asked & set(given)) / (1 + len(asked))
    variety = len(set(given)) / len(given)
    length = math.exp(-abs(math.log(len(given) / 150)) / 2)
    return 0.4 * relevance**0.5 + 0.3 * variety + 0.3 * length
