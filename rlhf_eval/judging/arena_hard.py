"""Arena-Hard (Li et al. 2024, arXiv:2406.11939), v0.1 and v2.0: questions, games, verdicts.

Every question is judged in two games with the sides swapped; game 0 shows the baseline as assistant A. What
the verdicts amount to is `arena_hard_scores`, whose plain score stands here too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

from rlhf_eval.config.schema import ArenaHardConfig, JudgeConfig
from rlhf_eval.errors import DataError, did_you_mean
from rlhf_eval.files import read_json
from rlhf_eval.judging.annotators import fill
from rlhf_eval.judging.arena_hard_answers import NO_CATEGORY, answers_by_id, category_of, questions_by_id
from rlhf_eval.judging.arena_hard_scores import (
    GAMES,
    Judged,
    Scores,
    StyleScores,
    plain_scores,
    style_scores,
    tally,
)
from rlhf_eval.judging.question import JudgeAnswer, Question, Reading, UnreadableAnswer, sampling
from rlhf_eval.judging.style_features import OWN_LENGTH, difference, style
from rlhf_eval.judging.style_normalisation import EQUAL, Normalisation, read_normalisation
from rlhf_eval.records import Prompt, Verdict, user_prompt
from rlhf_eval.sources import resolve

NAME = "arena_hard"
_OWN_PROMPTS = {"creative_writing": "arena_hard_creative_judge.txt"}
USER_TEMPLATE = (
    "<|User Prompt|>\n{question}\n\n"
    "<|The Start of Assistant A's Answer|>\n{answer_a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{answer_b}\n<|The End of Assistant B's Answer|>"
)
"""Arena-Hard's layout of one game; the marks are part of its format."""

# The five labels that the judge is asked for, and the same written the other way round.
_ASKED_FOR = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
_MIRRORED = {"B<<A": 1.0, "B<A": 1.0, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0}
_PREFERENCE_OF_A = _ASKED_FOR | _MIRRORED
_PATTERNS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))


@dataclass(frozen=True, slots=True)
class Item:
    """One question with the baseline's answer."""

    prompt: Prompt
    baseline_answer: str
    baseline: str
    category: str = NO_CATEGORY


def load(config: ArenaHardConfig) -> list[Item]:
    """The questions in their own order, each with the answer of its category's baseline.

    Raises:
        DataError: a row is not in the published format, an id stands twice, answers are missing, or a
            category with a baseline of its own has no question.
    """
    questions = questions_by_id(config.questions)
    kinds = {category_of(row) for row in questions.values()}
    strangers = sorted(set(config.category_baseline_answers) - kinds)
    if strangers:
        raise DataError(
            f"'{config.questions}' has no questions of the category {', '.join(strangers)}.",
            "Correct prompts.arena_hard.category_baseline_answers: " + did_you_mean(strangers[0], kinds),
        )
    sources = {kind: config.category_baseline_answers.get(kind, config.baseline_answers) for kind in kinds}
    chosen = dict(list(questions.items())[: config.limit])
    answers = {
        source: answers_by_id(source, [u for u, row in chosen.items() if sources[category_of(row)] == source])
        for source in dict.fromkeys(sources[category_of(row)] for row in chosen.values())
    }

    def item(uid: str, row: dict[str, Any]) -> Item:
        answer = answers[sources[category_of(row)]][uid]
        return Item(user_prompt(uid, row["prompt"]), answer.text, answer.model, category_of(row))

    return [item(uid, row) for uid, row in chosen.items()]


def baseline(items: Sequence[Item]) -> str:
    """Who wrote the baseline's answers (v2.0 has two baselines, one for each kind of question)."""
    return ", ".join(sorted({item.baseline for item in items}))


def system_prompt(judge: JudgeConfig, category: str = NO_CATEGORY) -> str:
    """The judge's instructions for a category: those named in the configuration, else the project's own.

    A `.json` source is an object of instructions by category (arena-hard-auto has others for creative
    writing); any other source is a text for all.

    Raises:
        DataError: the source is absent, or holds no text for the category.
    """
    if judge.arena_hard_prompt is None:
        file = _OWN_PROMPTS.get(category, "arena_hard_judge.txt")
        return (files("rlhf_eval.judging") / file).read_text(encoding="utf-8").strip()
    path = resolve(judge.arena_hard_prompt)
    if path.suffix != ".json":
        return path.read_text(encoding="utf-8").strip()
    by_category = read_json(path)
    if not isinstance(by_category, dict) or not isinstance(by_category.get(category), str):
        raise DataError(
            f"'{judge.arena_hard_prompt}' has no instructions for the category {category}.",
            "Give an object with a text for every category of the questions, or a text file for all.",
        )
    return by_category[category].strip()


def own_prompts() -> dict[str, str]:
    """The project's own words to the judge: instructions by file, and how a game is shown."""
    names = ("arena_hard_judge.txt", *_OWN_PROMPTS.values())
    texts = {name: (files("rlhf_eval.judging") / name).read_text(encoding="utf-8") for name in names}
    return texts | {"user": USER_TEMPLATE}


def questions(items: Sequence[Item], answers: Mapping[str, str], judge: JudgeConfig) -> list[Question]:
    """Two games per question, the second with the sides swapped; identical answers are a tie without a judge.

    Args:
        answers: the policy's answer by prompt id; every prompt has one.
    """
    prompts = {category: system_prompt(judge, category) for category in {item.category for item in items}}
    user = [("user", USER_TEMPLATE)]
    parameters = sampling(judge)

    def question(item: Item, game: int) -> Question:
        policy_first = game == 1
        policy, other = answers[item.prompt.id], item.baseline_answer
        a, b = (policy, other) if policy_first else (other, policy)
        texts = {"question": item.prompt.instruction, "answer_a": a, "answer_b": b}
        return Question(
            evaluation=NAME,
            prompt_id=item.prompt.id,
            game=game,
            policy_first=policy_first,
            messages=[{"role": "system", "content": prompts[item.category]}, *fill(user, texts)],
            parameters=parameters,
            endpoint=judge.serve,
            read=partial(read, policy_first=policy_first),
            settled=Reading(0.5, "A=B") if policy == other else None,
        )

    return [question(item, game) for item in items for game in GAMES]


def parse_label(text: str) -> str | None:
    """The last known label in double brackets, else the last one in single brackets, else None.

    Text is upper-cased first. Other bracketed letters, as in code (`a[b]`), are no labels.
    """
    for pattern in _PATTERNS:
        known = [label for label in pattern.findall(text.upper()) if label in _PREFERENCE_OF_A]
        if known:
            return known[-1]
    return None


def preference(label: str, policy_first: bool) -> float | None:
    """What a label says of the policy: 1, ½ or 0; None if it is none of the known ones."""
    of_a = _PREFERENCE_OF_A.get(label)
    return of_a if of_a is None or policy_first else 1 - of_a


def read(answer: JudgeAnswer, policy_first: bool) -> Reading:
    """The label of an answer and what it says of the policy.

    Raises:
        UnreadableAnswer: there is no label.
    """
    label = parse_label(answer.text)
    value = None if label is None else preference(label, policy_first)
    if value is None:
        cut = " (cut off at the token limit)" if answer.finish == "length" else ""
        raise UnreadableAnswer(f"no verdict label in the judge's answer{cut}")
    return Reading(value, label)


def score(items: Sequence[Item], verdicts: Sequence[Verdict]) -> Scores:
    """The plain score over the questions whose two games both have a verdict, see `plain_scores`.

    Raises:
        JudgeError: there is no such question.
    """
    return plain_scores(categories(items), tally(verdicts))


def style_controlled(
    items: Sequence[Item], answers: Mapping[str, str], verdicts: Sequence[Verdict], config: ArenaHardConfig
) -> StyleScores | None:
    """The style-controlled score of one policy on the same questions; None where they are too few to fit.

    Lengths are counted by `style_features.OWN_LENGTH`, on both sides.

    Args:
        answers: the policy's answer by prompt id.

    Raises:
        DataError: `config.style_normalisation` is no such file, or of other categories.
    """
    tallies = tally(verdicts)
    differences = {
        item.prompt.id: difference(style(answers[item.prompt.id]), style(item.baseline_answer))
        for item in items
        if item.prompt.id in tallies
    }
    normalisation = named_normalisation(config.style_normalisation)
    policy = Judged(tallies, differences)
    return style_scores(categories(items), {"policy": policy}, normalisation, OWN_LENGTH).get("policy")


def named_normalisation(source: str | None) -> Normalisation:
    """The frozen constants that a configuration names; answers of equal style where it names none."""
    return EQUAL if source is None else read_normalisation(resolve(source))


def categories(items: Sequence[Item]) -> dict[str, str]:
    """The category of every question by prompt id, in set order."""
    return {item.prompt.id: item.category for item in items}
