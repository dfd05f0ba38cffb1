"""AlpacaEval 2 (Dubois et al. 2024, arXiv:2404.04475): the set, what the judge is asked, and the scores.

How a judge is asked and read belongs to an annotator of the `alpaca-eval` package, see `annotators`.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import DataError
from rlhf_eval.judging import annotators
from rlhf_eval.judging.annotators import FIRST, SECOND, Annotator, fill
from rlhf_eval.judging.length_control import LengthControlled, Regulariser, length_controlled
from rlhf_eval.judging.question import JudgeAnswer, Question, Reading, sampling
from rlhf_eval.records import Prompt, Verdict, user_prompt
from rlhf_eval.sources import read_rows

NAME = "alpaca_eval"


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of the set with the answer that a policy is compared to."""

    prompt: Prompt
    reference: str
    generator: str
    difficulty: float | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one policy against the reference answers; rates and errors in [0, 1].

    Attributes:
        prompt_ids: the prompts scored, in set order.
        preferences: shape (prompts,), 1 = the policy's answer is better.
        length_controlled: None where there are too few prompts to fit.
    """

    prompt_ids: list[str]
    preferences: np.ndarray
    win_rate: float
    standard_error: float
    length_controlled: LengthControlled | None


def prompt_id(instruction: str) -> str:
    """The first 16 hexadecimal digits of the instruction's SHA-256."""
    return hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load(config: AlpacaEvalConfig) -> list[Item]:
    """The evaluation set in its own order.

    Raises:
        DataError: a row lacks a field, an instruction stands twice, or the difficulties do not match.
    """
    rows = read_rows(config.reference_outputs)
    for number, row in enumerate(rows):
        if not (isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)):
            raise DataError(
                f"Row {number} of '{config.reference_outputs}' has no text `instruction` and `output`.",
                "Give a list of objects with `instruction`, `output` and `generator`.",
            )
    instructions = [row["instruction"] for row in rows]
    repeated = [text for text, count in Counter(instructions).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} instructions stand more than once in '{config.reference_outputs}': "
            f"{examples(repeated)}.",
            "Keep one row per instruction: answers and verdicts are joined by it.",
        )
    chosen = rows[: config.limit]
    difficulties = _difficulties(config, instructions, instructions[: config.limit])
    return [
        Item(
            user_prompt(prompt_id(row["instruction"]), row["instruction"]),
            row["output"],
            str(row.get("generator", "reference")),
            difficulty,
        )
        for row, difficulty in zip(chosen, difficulties, strict=True)
    ]


def baseline(items: Sequence[Item]) -> str:
    """Who wrote the reference answers."""
    return ", ".join(sorted({item.generator for item in items}))


def questions(
    items: Sequence[Item], answers: Mapping[str, str], config: AlpacaEvalConfig, judge: JudgeConfig
) -> list[Question]:
    """One question per prompt; identical answers are a tie and need no judge.

    Args:
        answers: the policy's answer by prompt id; every prompt has one.
    """
    annotator = annotators.load(config.annotator)
    parameters = sampling(judge) | annotator.parameters

    def question(item: Item, answer: str) -> Question:
        policy_first = annotator.switches and shows_policy_first(item.prompt.instruction)
        first, second = (answer, item.reference) if policy_first else (item.reference, answer)
        return Question(
            evaluation=NAME,
            prompt_id=item.prompt.id,
            game=0,
            policy_first=policy_first,
            messages=fill(
                annotator.messages,
                {"instruction": item.prompt.instruction, "output_1": first, "output_2": second},
            ),
            parameters=parameters,
            endpoint=judge.serve,
            read=_reader(annotator, policy_first),
            settled=Reading(0.5, None) if answer == item.reference else None,
        )

    return [question(item, answers[item.prompt.id]) for item in items]


def score(
    items: Sequence[Item],
    answers: Mapping[str, str],
    verdicts: Sequence[Verdict],
    regulariser: Regulariser | None = None,
) -> Scores:
    """The scores by a judge's verdicts, see `score_preferences`; failed verdicts are left out."""
    preferences = {v.prompt_id: v.preference for v in verdicts if v.preference is not None}
    return score_preferences(items, answers, preferences, regulariser)


def score_preferences(
    items: Sequence[Item],
    answers: Mapping[str, str],
    preferences: Mapping[str, float],
    regulariser: Regulariser | None = None,
) -> Scores:
    """Win rate and length-controlled win rate over the prompts that have a preference, at least one.

    Everything is joined by prompt id: neither order nor absent prompts shift anything.

    Args:
        answers: the policy's answer by prompt id, of all prompts that have a preference.
        preferences: in [0, 1] by prompt id, 1 = the policy's answer is better.
        regulariser: only for preferences of the judge that it was fitted to, see
            `alpaca_eval_files.regulariser_for`; another judge's numbers are falsified by it.
    """
    scored = [item for item in items if item.prompt.id in preferences]
    values = np.array([preferences[item.prompt.id] for item in scored])
    difficulties = [item.difficulty for item in scored if item.difficulty is not None]
    return Scores(
        prompt_ids=[item.prompt.id for item in scored],
        preferences=values,
        win_rate=float(values.mean()),
        standard_error=standard_error(values),
        length_controlled=length_controlled(
            values,
            [len(item.reference) - len(answers[item.prompt.id]) for item in scored],
            difficulties if len(difficulties) == len(scored) else None,
            regulariser,
        ),
    )


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean over prompts: the limit of a bootstrap over them; 0 for a single one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0


def shows_policy_first(instruction: str) -> bool:
    """Whether the policy's answer takes the first place: one coin per instruction, the package's own."""
    return Random("is_switched_outputs" + instruction + "0").choices([False, True], k=1)[0]


def first_share(answer: JudgeAnswer) -> float:
    """P(m) / (P(m) + P(M)), see `annotators.token_share`."""
    return annotators.token_share(answer, (FIRST, SECOND))


def annotator_messages(annotator: str) -> tuple[tuple[str, str], ...]:
    """An annotator's prompt as (role, content template) pairs, see `annotators.load`."""
    return annotators.load(annotator).messages


def _reader(annotator: Annotator, policy_first: bool) -> Callable[[JudgeAnswer], Reading]:
    def read(answer: JudgeAnswer) -> Reading:
        first = annotator.first_share(answer)
        return Reading(first if policy_first else 1 - first, None)

    return read


def _difficulties(
    config: AlpacaEvalConfig, instructions: Sequence[str], wanted: Sequence[str]
) -> Sequence[float | None]:
    """The difficulty of each wanted instruction, joined by instruction or by index into the whole set."""
    if config.difficulty is None:
        return [None] * len(wanted)
    try:
        rows = [(row, finite(row["instruction_difficulty"])) for row in read_rows(config.difficulty)]
        named = {row["instruction"]: value for row, value in rows if "instruction" in row}
        numbered = {int(row["index"]): value for row, value in rows if "instruction" not in row}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"'{config.difficulty}' is no table of difficulties: {error!r}.",
            "Give rows with `instruction` (or `index`) and a number `instruction_difficulty`.",
        ) from None
    strangers = set(numbered) ^ set(range(len(instructions))) if numbered else set()
    if strangers:
        raise DataError(
            f"'{config.difficulty}' counts {len(numbered)} prompts, '{config.reference_outputs}' has "
            f"{len(instructions)}; {len(strangers)} indices stand in one alone ({sorted(strangers)[:3]}).",
            "An index means a row of this very set: restore the missing rows, join by `instruction`, or set "
            "prompts.alpaca_eval.difficulty=null.",
        )
    difficulty = named | {instructions[index]: value for index, value in numbered.items()}
    missing = [text for text in wanted if text not in difficulty]
    if missing:
        raise DataError(
            f"'{config.difficulty}' does not match '{config.reference_outputs}': {len(missing)} of "
            f"{len(wanted)} instructions have no difficulty: {examples(missing)}.",
            "Give the difficulties of this very set, or set prompts.alpaca_eval.difficulty=null.",
        )
    return [difficulty[text] for text in wanted]


def finite(value: float | str) -> float:
    """A number, or one written as text. Raises ValueError or TypeError if it is none, infinite or NaN."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def examples(texts: Sequence[str]) -> str:
    """The beginnings of the first three texts, in quotation marks."""
    return ", ".join(json.dumps(text[:60], ensure_ascii=False) for text in texts[:3])
