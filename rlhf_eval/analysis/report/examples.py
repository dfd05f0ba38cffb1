"""Answers side by side: a few prompts, not chosen by outcome, and what the policies wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.files import read_jsonl

PROMPTS = 8
POLICIES = 12
CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Answer:
    """One policy's answer; `value` in percent, None if the verdict failed; `cut` characters are not shown."""

    policy: str
    control: bool
    text: str
    cut: int
    value: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and what the policies answered."""

    instruction: str
    answers: tuple[Answer, ...]


def examples(runs: Sequence[RunRecord], ranking: Ranking) -> list[Example]:
    """Prompts at equal distances through the set, first seed of the best policies and of the untrained one;
    empty where the answers are not stored.

    Args:
        runs: finished ones.
    """
    names = [row.reward_model for row in ranking.rows[:POLICIES]]
    names += [ranking.untrained.name] if ranking.untrained else []
    evaluation = ranking.metric.evaluation
    chosen = [next(run for run in runs if run.reward_model == name) for name in names]
    answers = {run.reward_model: _answers(run, evaluation) for run in chosen}
    prompt_ids = [id for id in chosen[0].per_prompt[evaluation].prompt_ids if id in answers[names[0]]]
    if not prompt_ids:
        return []
    places = np.linspace(0, len(prompt_ids) - 1, PROMPTS + 2)[1:-1].round().astype(int)
    return [
        Example(
            answers[names[0]][id]["instruction"][:CHARACTERS],
            tuple(
                _answer(run, evaluation, id, answers[run.reward_model][id]["text"])
                for run in chosen
                if id in answers[run.reward_model]
            ),
        )
        for id in dict.fromkeys(prompt_ids[place] for place in places)
    ]


def _answers(run: RunRecord, evaluation: str) -> dict[str, dict[str, Any]]:
    path = run.path / f"stages/generate/{evaluation}.jsonl"
    return {row["prompt_id"]: row for row in read_jsonl(path)} if path.exists() else {}


def _answer(run: RunRecord, evaluation: str, prompt_id: str, text: str) -> Answer:
    scores = run.per_prompt[evaluation]
    value = dict(zip(scores.prompt_ids, scores.value, strict=True)).get(prompt_id, np.nan)
    return Answer(
        policy="untrained policy" if run.untrained else run.reward_model,
        control=run.control,
        text=text[:CHARACTERS],
        cut=max(0, len(text) - CHARACTERS),
        value=None if np.isnan(value) else 100 * float(value),
    )
