"""What a run does with its answers: have them judged, then score them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import PromptsConfig, RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.judging import alpaca_eval, arena_hard, verdicts
from rlhf_eval.judging.client import ask
from rlhf_eval.judging.question import Question
from rlhf_eval.judging.server import serving
from rlhf_eval.records import Conversation, Prompt, ScoreBatch, Verdict

Answers = Mapping[str, Mapping[str, str]]
"""Evaluation → prompt id → the policy's answer."""

GoldScorer = Callable[[list[Conversation]], ScoreBatch]


def evaluation_prompts(prompts: PromptsConfig) -> dict[str, list[Prompt]]:
    """The prompts that a policy has to answer, by evaluation, in set order."""
    return {
        alpaca_eval.NAME: [item.prompt for item in alpaca_eval.load(prompts.alpaca_eval)],
        arena_hard.NAME: [item.prompt for item in arena_hard.load(prompts.arena_hard)],
    }


def judge(config: RunConfig, answers: Answers, folder: Path, advance: Callable[[int, int], None]) -> None:
    """Have every answer compared and write `<evaluation>.jsonl`, one verdict a line in prompt order.

    Only comparisons without a verdict in `folder` are asked, so the same call continues after a kill and
    asks failed ones again.

    Args:
        answers: of every prompt of `evaluation_prompts`.
        advance: told how many verdicts there are, and of how many, at the start and after each.

    Raises:
        DataError: answers are missing.
        JudgeError: the judge cannot be used, or failed on more than `judge.max_failed_share`.
    """
    by_evaluation = _questions(config, answers)
    questions = [question for group in by_evaluation.values() for question in group]
    found = verdicts.known(folder, by_evaluation)
    found |= {q.key: q.verdict(q.settled, "") for q in questions if q.settled is not None}
    found = {question.key: found[question.key] for question in questions if question.key in found}
    open_questions = [question for question in questions if question.key not in found]
    advance(len(found), len(questions))
    if open_questions:
        with verdicts.Segment(folder) as segment, serving(config.judge) as base_url:

            def keep(verdict: Verdict) -> None:
                segment.append(verdict)
                found[verdict.key] = verdict
                advance(len(found), len(questions))

            ask(config.judge, base_url, open_questions, keep)
    for evaluation, group in by_evaluation.items():
        verdicts.settle(folder, evaluation, group, found)
    verdicts.drop_segments(folder)
    for group in by_evaluation.values():
        verdicts.refuse_if_too_many_failed([found[q.key] for q in group], config.judge.max_failed_share)


def score(
    config: RunConfig, answers: Answers, judge_folder: Path, folder: Path, gold: GoldScorer | None
) -> dict[str, Any]:
    """Score the verdicts and write `scores.json` and `per_prompt.jsonl`.

    In `per_prompt.jsonl` the mean of `value` is the win rate or score, and the mean of `length_controlled`
    the length-controlled win rate, each exactly; their spread over prompts is its sampling error.
    AlpacaEval's `value` is the judge's preference, in [0, 1]. Arena-Hard's `value` and `length_controlled`
    are shares in an estimate that is no plain mean, and single ones can lie outside [0, 1] (see
    `arena_hard.question_values` and `length_control.LengthControlled`).

    Args:
        gold: scores conversations with the held-out reward model; None where there is none.

    Returns:
        What stands in `scores.json`.

    Raises:
        DataError: answers are missing, or the verdicts are on something else.
        JudgeError: too many verdicts failed.
    """
    by_evaluation = _questions(config, answers)
    judged = {name: verdicts.read(judge_folder, name, group) for name, group in by_evaluation.items()}
    for group in judged.values():
        verdicts.refuse_if_too_many_failed(group, config.judge.max_failed_share)
    alpaca_scores, alpaca_rows = _score_alpaca_eval(config, answers, judged[alpaca_eval.NAME])
    arena_scores, arena_rows = _score_arena_hard(config, answers, judged[arena_hard.NAME])
    rows = [*alpaca_rows, *arena_rows]
    gold_scores = _add_gold(rows, config.prompts, answers, gold)
    scores: dict[str, Any] = {
        "judge": {"name": config.judge.name, "model": config.judge.model},
        alpaca_eval.NAME: alpaca_scores,
        arena_hard.NAME: arena_scores,
    } | ({"gold": gold_scores} if gold_scores else {})
    write_jsonl(folder / "per_prompt.jsonl", rows)
    write_json(folder / "scores.json", scores)
    return scores


def _questions(config: RunConfig, answers: Answers) -> dict[str, list[Question]]:
    prompts = config.prompts
    alpaca, arena = alpaca_eval.load(prompts.alpaca_eval), arena_hard.load(prompts.arena_hard)
    _require_answers(alpaca_eval.NAME, [item.prompt for item in alpaca], answers)
    _require_answers(arena_hard.NAME, [item.prompt for item in arena], answers)
    return {
        alpaca_eval.NAME: alpaca_eval.questions(
            alpaca, answers[alpaca_eval.NAME], prompts.alpaca_eval, config.judge
        ),
        arena_hard.NAME: arena_hard.questions(arena, answers[arena_hard.NAME], config.judge),
    }


def _require_answers(evaluation: str, prompts: Sequence[Prompt], answers: Answers) -> None:
    missing = [prompt.id for prompt in prompts if prompt.id not in answers.get(evaluation, {})]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(prompts)} answers to {evaluation} are missing, such as "
            f"{', '.join(missing[:3])}.",
            "Delete the run's stages/generate to have them generated again.",
        )


def _score_alpaca_eval(
    config: RunConfig, answers: Answers, judged: Sequence[Verdict]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    items = alpaca_eval.load(config.prompts.alpaca_eval)
    texts = answers[alpaca_eval.NAME]
    result = alpaca_eval.score(items, texts, judged)
    controlled = result.length_controlled
    scores = {
        "n": len(result.prompt_ids),
        "failed": len(items) - len(result.prompt_ids),
        "baseline": alpaca_eval.baseline(items),
        "win_rate": 100 * result.win_rate,
        "standard_error": 100 * result.standard_error,
        "length_controlled_win_rate": 100 * controlled.win_rate if controlled else None,
        "length_controlled_standard_error": 100 * controlled.standard_error if controlled else None,
        "length_control": controlled.fit if controlled else "not fitted: too few prompts",
        "mean_characters": _mean_characters(result.prompt_ids, texts),
    }
    shares = controlled.values.tolist() if controlled else [None] * len(result.prompt_ids)
    rows = [
        _row(alpaca_eval.NAME, prompt_id, value, share, texts)
        for prompt_id, value, share in zip(
            result.prompt_ids, result.preferences.tolist(), shares, strict=True
        )
    ]
    return scores, rows


def _score_arena_hard(
    config: RunConfig, answers: Answers, judged: Sequence[Verdict]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    items = arena_hard.load(config.prompts.arena_hard)
    texts = answers[arena_hard.NAME]
    result = arena_hard.score(items, judged)
    scores = {
        "n": len(result.prompt_ids),
        "failed": len(items) - len(result.prompt_ids),
        "baseline": arena_hard.baseline(items),
        "score": 100 * result.score,
        "standard_error": 100 * result.standard_error,
        "mean_characters": _mean_characters(result.prompt_ids, texts),
    }
    rows = [
        _row(arena_hard.NAME, prompt_id, value, None, texts)
        for prompt_id, value in zip(result.prompt_ids, result.values.tolist(), strict=True)
    ]
    return scores, rows


def _row(
    evaluation: str, prompt_id: str, value: float, length_controlled: float | None, texts: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "evaluation": evaluation,
        "prompt_id": prompt_id,
        "value": value,
        "length_controlled": length_controlled,
        "characters": len(texts[prompt_id]),
        "gold": None,
    }


def _mean_characters(prompt_ids: Sequence[str], texts: Mapping[str, str]) -> float:
    return sum(len(texts[prompt_id]) for prompt_id in prompt_ids) / len(prompt_ids)


def _add_gold(
    rows: list[dict[str, Any]], prompts: PromptsConfig, answers: Answers, gold: GoldScorer | None
) -> dict[str, Any] | None:
    """Fill in each row's gold score, None where the gold reward model calls it invalid."""
    if gold is None:
        return None
    by_id = {(name, p.id): p for name, group in evaluation_prompts(prompts).items() for p in group}
    scored = gold(
        [
            by_id[row["evaluation"], row["prompt_id"]].answered(answers[row["evaluation"]][row["prompt_id"]])
            for row in rows
        ]
    )
    for row, value, valid in zip(rows, scored.scores.tolist(), scored.valid.tolist(), strict=True):
        row["gold"] = value if valid else None
    values = [row["gold"] for row in rows if row["gold"] is not None]
    return {"n": len(values), "mean": sum(values) / len(values) if values else None}
