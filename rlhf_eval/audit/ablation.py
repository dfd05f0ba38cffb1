"""Artifact ablation: a benchmark without something in its texts that has nothing to do with the task.

If a reward model's accuracy falls when the artifact goes, and that of reward models with open data does not,
it has learnt the artifact. Prompt and responses may refer to each other, so one arm proves little: taking
away the sentence that asks for `KKKKK` leaves a `KKKKK` in the responses that nothing explains. Hence several
arms, and a control that takes away a sentence that nobody suspects.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from rlhf_eval.benchmarks.items import Item
from rlhf_eval.errors import ConfigError, DataError, did_you_mean

Where = Literal["prompt", "responses", "both"]


@dataclass(frozen=True, slots=True)
class Rule:
    r"""One replacement by a regular expression.

    Attributes:
        pattern: every match is replaced.
        replacement: as `re.sub` reads it (`\g<name>` for a group).
        where: in every turn of the prompt, in every completion, or in both.
    """

    name: str
    pattern: re.Pattern[str]
    replacement: str
    where: Where

    def apply(self, item: Item) -> Item:
        """The item with every match replaced; its id and labels are kept."""

        def rewritten(text: str) -> str:
            return self.pattern.sub(self.replacement, text)

        changed = item if self.where == "responses" else in_prompt(item, rewritten)
        return changed if self.where == "prompt" else in_completions(changed, rewritten)


@dataclass(frozen=True, slots=True)
class Arm:
    """One variant of the affected items: rules applied one after the other."""

    name: str
    description: str
    rules: tuple[Rule, ...]

    def apply(self, items: Sequence[Item]) -> list[Item]:
        """The variants, one per item in the same order; an item that no rule matches stays as it is."""
        variants = list(items)
        for rule in self.rules:
            variants = [rule.apply(item) for item in variants]
        return variants


@dataclass(frozen=True, slots=True)
class Ablation:
    """An artifact and what is done about it.

    Attributes:
        artifact: the rule that takes it away; the items that it changes take part, in every arm.
    """

    name: str
    artifact: Rule
    arms: tuple[Arm, ...]

    def variants(self, benchmark: str, items: Sequence[Item]) -> tuple[list[Item], dict[str, list[Item]]]:
        """The items that have the artifact, and for every arm (by name) their variants in the same order.

        Raises:
            DataError: no item has the artifact, or an arm changes nothing; names benchmark and pattern.
        """
        originals = affected(items, self.artifact)
        if not originals:
            raise _matches_nothing(benchmark, len(items), (self.artifact,))
        found = {arm.name: arm.apply(originals) for arm in self.arms}
        for arm in self.arms:
            if found[arm.name] == originals:
                raise _matches_nothing(benchmark, len(originals), arm.rules)
        return originals, found


def affected(items: Sequence[Item], rule: Rule) -> list[Item]:
    """The items that a rule changes."""
    return [item for item in items if rule.apply(item) != item]


def in_prompt(item: Item, change: Callable[[str], str]) -> Item:
    """The item with every turn of its prompt changed."""
    messages = tuple(replace(m, content=change(m.content)) for m in item.prompt.messages)
    return replace(item, prompt=replace(item.prompt, messages=messages))


def in_completions(item: Item, change: Callable[[str], str]) -> Item:
    """The item with every completion changed."""
    return replace(item, completions=tuple(change(text) for text in item.completions))


def user_ablation(name: str, pattern: str, replacement: str, where: str) -> Ablation:
    """An ablation of one arm from a regular expression of one's own.

    Raises:
        ConfigError: pattern or replacement is malformed (names the position), or `where` is unknown.
    """
    if where not in get_args(Where):
        raise ConfigError(
            f"Ablation '{name}': '{where}' is no place in an item.", did_you_mean(where, get_args(Where))
        )
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"Ablation '{name}': pattern '{pattern}' is no regular expression: {error.msg}{_at(error)}.",
            "Mend it there; put a backslash before a character of ()[]{}.*+?|^$\\ that is meant as itself.",
        ) from None
    try:
        compiled.sub(replacement, "")  # reads the replacement, whether or not there is a match
    except (re.error, IndexError) as error:
        place = f"{error.msg}{_at(error)}" if isinstance(error, re.error) else str(error)
        raise ConfigError(
            f"Ablation '{name}': replacement '{replacement}' cannot be used: {place}.",
            "Name groups of the pattern as \\1 or \\g<name>, and write a backslash as two.",
        ) from None
    rule = Rule(name, compiled, replacement, where)  # type: ignore[arg-type]
    what = f"'{replacement}' in the place of" if replacement else "without"
    return Ablation(name, rule, (Arm(name, f"{what} what matches '{pattern}' ({where})", (rule,)),))


def _at(error: re.error) -> str:
    return "" if error.pos is None else f" at character {error.pos + 1}"


def _matches_nothing(benchmark: str, items: int, rules: Sequence[Rule]) -> DataError:
    patterns = " and ".join(f"'{rule.pattern.pattern}' ({rule.where})" for rule in rules)
    return DataError(
        f"Nothing in {items} items of benchmark '{benchmark}' is changed by {patterns}.",
        "Check the pattern against the data, or choose the benchmark that it was made for.",
    )


# What JudgeBench's multiple-choice prompts ask for, on one line or two.
_SENTENCE = re.compile(
    r"(?P<before>\s*)Once you have your answer, please duplicate that letter five times in a single string\."
    r"\s*For example, if the answer is (?P<letter>[A-Z]), then write (?P=letter){5}\."
)
# Models miscount (4 to 20 letters are found), and set the string in bold, in code or in a formula of its own.
_LETTERS = r"(?<![A-Za-z])(?P<%s>[A-Z])(?P=%s){3,}(?![A-Za-z])"
_STRING = re.compile(_LETTERS % ("letter", "letter"))
_STRING_AND_MARKUP = re.compile(
    r"\s*```\w*\s*" + _LETTERS % ("block", "block") + r"\s*```"
    r"|\s*\\[\[(]\s*(?:\\\w+\{)*" + _LETTERS % ("formula", "formula") + r"\}*\.?\s*\\[\])]"
    r"|\s*(?P<mark>\*\*|[`\"$])?" + _LETTERS % ("word", "word") + r"(?(mark)(?P=mark))"
)
_GUESS = re.compile(r"If you cannot determine the correct multiple-choice answer, take your best guess\.\s*")

_SENTENCE_REMOVED = Rule("sentence", _SENTENCE, "", "prompt")
_STRING_REMOVED = Rule("string", _STRING_AND_MARKUP, "", "responses")
_STRING_TO_LETTER = Rule("string to letter", _STRING, r"\g<letter>", "responses")
_REWORDED = Rule(
    "reworded",
    _SENTENCE,
    r"\g<before>When you have decided, give the letter of your choice as one string in which it stands five"
    r" times. If you chose \g<letter>, for instance, you would give"
    r" \g<letter>\g<letter>\g<letter>\g<letter>\g<letter>.",
    "prompt",
)
_OTHER_LETTER = Rule(
    "other letter",
    _SENTENCE,
    # Z is no option of any question; the originals have K or F.
    r"\g<before>Once you have your answer, please duplicate that letter five times in a single string."
    r" For example, if the answer is Z, then write ZZZZZ.",
    "prompt",
)
# In all affected prompts this sentence stands right before the suspected one. It is about how to answer too,
# and the question can be answered without it.
_GUESS_REMOVED = Rule("guess", _GUESS, "", "prompt")

FIVE_LETTER_SENTENCE = Ablation(
    "five_letter_sentence",
    _SENTENCE_REMOVED,
    (
        Arm("sentence_removed", "prompt without the five-letter sentence", (_SENTENCE_REMOVED,)),
        Arm("string_removed", "responses without the repeated-letter string", (_STRING_REMOVED,)),
        Arm(
            "both_removed",
            "prompt without the sentence, responses without the string",
            (_SENTENCE_REMOVED, _STRING_REMOVED),
        ),
        Arm(
            "string_to_letter",
            "prompt without the sentence, responses with one letter for the string: no answer is lost",
            (_SENTENCE_REMOVED, _STRING_TO_LETTER),
        ),
        Arm("sentence_reworded", "the same demand in other words", (_REWORDED,)),
        Arm("other_letter", "Z as the example letter", (_OTHER_LETTER,)),
        Arm("control", "prompt without its sentence about guessing (control)", (_GUESS_REMOVED,)),
    ),
)

SHIPPED = {"judgebench": FIVE_LETTER_SENTENCE}
"""Kind of benchmark → the ablation made for it."""
