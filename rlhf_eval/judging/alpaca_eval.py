"""AlpacaEval 2 (Dubois et al. 2024): what the judge is asked, how it is read, and the scores.

The annotator prompts belong to the `alpaca-eval` package and are read from its files at run time, without
importing it (that takes seconds and needs `pkg_resources`).
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import ConfigError, DataError, did_you_mean
from rlhf_eval.judging.length_control import LengthControlled, Regulariser, length_controlled
from rlhf_eval.judging.question import JudgeAnswer, Question, Reading, UnreadableAnswer, sampling
from rlhf_eval.records import Prompt, Verdict, user_prompt
from rlhf_eval.sources import read_rows

NAME = "alpaca_eval"
FIRST, SECOND = "m", "M"
"""The names under which the judge sees the first and the second answer."""


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
    return hashlib.sha256(instruction.encode("utf-8")).hexdigest()[:16]


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
            f"{_examples(repeated)}.",
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
    template = annotator_messages(config.annotator)
    parameters = sampling(judge) | {"max_tokens": 1, "logprobs": True, "top_logprobs": 5}

    def question(item: Item, answer: str) -> Question:
        policy_first = shows_policy_first(item.prompt.instruction)
        first, second = (answer, item.reference) if policy_first else (item.reference, answer)
        return Question(
            evaluation=NAME,
            prompt_id=item.prompt.id,
            game=0,
            policy_first=policy_first,
            messages=fill(
                template, {"instruction": item.prompt.instruction, "output_1": first, "output_2": second}
            ),
            parameters=parameters,
            endpoint=judge.serve,
            read=_reader(policy_first),
            settled=Reading(0.5, None) if answer == item.reference else None,
        )

    return [question(item, answers[item.prompt.id]) for item in items]


def score(
    items: Sequence[Item],
    answers: Mapping[str, str],
    verdicts: Sequence[Verdict],
    regulariser: Regulariser | None = None,
) -> Scores:
    """Win rate and length-controlled win rate over the prompts whose verdict did not fail.

    The result does not depend on the order of `verdicts`. At least one verdict must hold a preference.

    Args:
        regulariser: only for verdicts of the judge that it was fitted to (`weighted_alpaca_eval_gpt4_turbo`
            on gpt-4-1106-preview); another judge's numbers are falsified by it.
    """
    preference = {v.prompt_id: v.preference for v in verdicts if v.preference is not None}
    scored = [item for item in items if item.prompt.id in preference]
    preferences = np.array([preference[item.prompt.id] for item in scored])
    difficulties = [item.difficulty for item in scored if item.difficulty is not None]
    return Scores(
        prompt_ids=[item.prompt.id for item in scored],
        preferences=preferences,
        win_rate=float(preferences.mean()),
        standard_error=standard_error(preferences),
        length_controlled=length_controlled(
            preferences.tolist(),
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


def _reader(policy_first: bool) -> Callable[[JudgeAnswer], Reading]:
    def read(answer: JudgeAnswer) -> Reading:
        first = first_share(answer)
        return Reading(first if policy_first else 1 - first, None)

    return read


def first_share(answer: JudgeAnswer) -> float:
    """P(m) / (P(m) + P(M)): how much the judge prefers the answer shown first.

    Raises:
        UnreadableAnswer: no log-probabilities, or neither token among them.
    """
    if answer.first_token is None:
        raise UnreadableAnswer("the judge gave no log-probabilities")
    first, second = (answer.first_token.get(token, -math.inf) for token in (FIRST, SECOND))
    top = max(first, second)
    if not math.isfinite(top):
        seen = ", ".join(repr(token) for token in answer.first_token)
        raise UnreadableAnswer(f"neither '{FIRST}' nor '{SECOND}' is among the likeliest tokens ({seen})")
    return math.exp(first - top) / (math.exp(first - top) + math.exp(second - top))


@cache
def annotator_messages(annotator: str) -> tuple[tuple[str, str], ...]:
    """An annotator's prompt as (role, content template) pairs.

    Raises:
        ConfigError: the package is not installed, there is no such annotator, or it does not answer with
            the single token m or M.
    """
    import yaml

    folder = _package_folder() / "evaluators_configs"
    file = folder / annotator / "configs.yaml"
    if not file.is_file():
        known = (path.parent.name for path in folder.glob("*/configs.yaml"))
        raise ConfigError(f"alpaca-eval has no annotator '{annotator}'.", did_you_mean(annotator, known))
    settings = next(iter(yaml.safe_load(file.read_text(encoding="utf-8")).values()))
    parser = settings.get("completion_parser_kwargs", {})
    single_token = settings.get("completions_kwargs", {}).get("max_tokens") == 1
    if not single_token or parser.get("denominator_tokens") != [FIRST, SECOND]:
        raise ConfigError(
            f"The annotator '{annotator}' does not answer with the single token {FIRST} or {SECOND}.",
            "Use weighted_alpaca_eval_gpt4_turbo.",
        )
    template = (folder / settings["prompt_template"]).read_text(encoding="utf-8")
    turns = re.findall(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", template, flags=re.DOTALL)
    return tuple((role, content.strip()) for role, content in turns)


def fill(template: Sequence[tuple[str, str]], values: Mapping[str, str]) -> list[dict[str, str]]:
    """Chat messages from a template; braces and marks inside the values stay as they are."""
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return [
        {"role": role, "content": pattern.sub(lambda match: values[match[0][1:-1]], content)}
        for role, content in template
    ]


def _package_folder() -> Path:
    spec = find_spec("alpaca_eval")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("The package alpaca-eval is not installed.", "pip install alpaca-eval==0.6.6")
    return Path(spec.submodule_search_locations[0])


def _difficulties(
    config: AlpacaEvalConfig, instructions: Sequence[str], wanted: Sequence[str]
) -> Sequence[float | None]:
    """The difficulty of each wanted instruction, joined by instruction or by index into the whole set."""
    if config.difficulty is None:
        return [None] * len(wanted)
    try:
        rows = [(row, float(row["instruction_difficulty"])) for row in read_rows(config.difficulty)]
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
            f"{len(wanted)} instructions have no difficulty: {_examples(missing)}.",
            "Give the difficulties of this very set, or set prompts.alpaca_eval.difficulty=null.",
        )
    return [difficulty[text] for text in wanted]


def _examples(texts: Sequence[str]) -> str:
    return ", ".join(json.dumps(text[:60], ensure_ascii=False) for text in texts[:3])
