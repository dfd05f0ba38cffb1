"""From verdicts to a run's scores, with what a reader must know of them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import PromptsConfig, RunConfig
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.judging import alpaca_eval, arena_hard, leaderboard, verdicts
from rlhf_eval.judging.agreement import agreement, family, favour, position_consistency
from rlhf_eval.judging.alpaca_eval_files import regulariser_for
from rlhf_eval.judging.detectors import suspicious
from rlhf_eval.judging.stage import Answers, evaluation_prompts, questions_of
from rlhf_eval.records import Conversation, ScoreBatch, Verdict

GoldScorer = Callable[[list[Conversation]], ScoreBatch]


def score(
    config: RunConfig,
    answers: Answers,
    judge_folder: Path,
    folder: Path,
    gold: GoldScorer | None,
    truncated: Mapping[str, Collection[str]] | None = None,
) -> dict[str, Any]:
    """Score the verdicts and write `scores.json` and `per_prompt.jsonl`.

    In `per_prompt.jsonl` the mean of `value` is the win rate or score, and the mean of `length_controlled`
    the length-controlled win rate, each exactly; their spread over prompts is its sampling error.
    AlpacaEval's `value` is the judge's preference, in [0, 1]. Arena-Hard's `value` and `length_controlled`
    are shares in an estimate that is no plain mean, and single ones can lie outside [0, 1] (see
    `arena_hard.question_values` and `length_control.LengthControlled`).

    Args:
        gold: scores conversations with the held-out reward model; None where there is none.
        truncated: evaluation → ids of the answers that were cut at the token limit; None if not known.

    Returns:
        What stands in `scores.json`.

    Raises:
        DataError: answers are missing, or the verdicts are on something else.
        JudgeError: too many verdicts failed.
    """
    judged = _read_verdicts(config, answers, judge_folder)
    alpaca_scores, alpaca_rows = _score_alpaca_eval(config, answers, judged[alpaca_eval.NAME])
    arena_scores, arena_rows = _score_arena_hard(config, answers, judged[arena_hard.NAME])
    rows = [*alpaca_rows, *arena_rows]
    gold_scores = _add_gold(rows, config.prompts, answers, gold)
    scores: dict[str, Any] = {
        "judge": {"name": config.judge.name, "model": config.judge.model},
        alpaca_eval.NAME: alpaca_scores,
        arena_hard.NAME: arena_scores,
        "suspicious_answers": {
            name: suspicious(texts, None if truncated is None else truncated[name])
            for name, texts in answers.items()
        },
    } | ({"gold": gold_scores} if gold_scores else {})
    if config.second_judges:
        scores["second_judges"] = _second_judges(config, answers, judge_folder, judged)
    write_jsonl(folder / "per_prompt.jsonl", rows)
    write_json(folder / "scores.json", scores)
    return scores


def _read_verdicts(config: RunConfig, answers: Answers, folder: Path) -> dict[str, list[Verdict]]:
    judged = {
        name: verdicts.read(folder, name, group) for name, group in questions_of(config, answers).items()
    }
    for group in judged.values():
        verdicts.refuse_if_too_many_failed(group, config.judge.max_failed_share)
    return judged


def _second_judges(
    config: RunConfig, answers: Answers, folder: Path, first: Mapping[str, Sequence[Verdict]]
) -> dict[str, Any]:
    """What each of the other judges says of the same answers, and how far it agrees with the first."""
    others = {
        name: _read_verdicts(replace(config, judge=judge), answers, folder / name)
        for name, judge in config.second_judges.items()
    }
    baselines = {
        alpaca_eval.NAME: alpaca_eval.baseline(alpaca_eval.load(config.prompts.alpaca_eval)),
        arena_hard.NAME: arena_hard.baseline(arena_hard.load(config.prompts.arena_hard)),
    }
    found = {}
    for name, judged in others.items():
        own = replace(config, judge=config.second_judges[name])
        everyone = {evaluation: {"": first[evaluation], name: judged[evaluation]} for evaluation in judged}
        found[name] = {
            "model": own.judge.model,
            "family": family(own.judge.model),
            alpaca_eval.NAME: _score_alpaca_eval(own, answers, judged[alpaca_eval.NAME])[0],
            arena_hard.NAME: _score_arena_hard(own, answers, judged[arena_hard.NAME])[0],
            "agreement": {
                evaluation: _defined(
                    asdict(agreement(first[evaluation], judged[evaluation]))
                    | {"favour": favour(everyone[evaluation], name)}
                )
                | {"baseline_of_its_family": family(own.judge.model) == family(baselines[evaluation])}
                for evaluation in judged
            },
        }
    return found


def _defined(numbers: dict[str, Any]) -> dict[str, Any]:
    """None for what is not defined, since JSON has no NaN."""
    return {name: None if value != value else value for name, value in numbers.items()}


def _score_alpaca_eval(
    config: RunConfig, answers: Answers, judged: Sequence[Verdict]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    items = alpaca_eval.load(config.prompts.alpaca_eval)
    texts = answers[alpaca_eval.NAME]
    baseline = alpaca_eval.baseline(items)
    regulariser = regulariser_for(config.prompts.alpaca_eval, config.judge, baseline)
    result = alpaca_eval.score(items, texts, judged, regulariser)
    controlled = result.length_controlled
    scores = {
        "n": len(result.prompt_ids),
        "failed": len(items) - len(result.prompt_ids),
        "baseline": baseline,
        "win_rate": 100 * result.win_rate,
        "standard_error": 100 * result.standard_error,
        "length_controlled_win_rate": 100 * controlled.win_rate if controlled else None,
        "length_controlled_standard_error": 100 * controlled.standard_error if controlled else None,
        "length_control": controlled.fit if controlled else "not fitted: too few prompts",
        "regularised": regulariser is not None,
        "mean_characters": _mean_characters(result.prompt_ids, texts),
    }
    published = {"win_rate": scores["win_rate"]}
    if controlled and regulariser:
        published["length_controlled_win_rate"] = scores["length_controlled_win_rate"]
    annotator = leaderboard.published_annotator(config.prompts.alpaca_eval, config.judge)
    place = leaderboard.position(published, annotator, baseline)
    scores["leaderboard"] = place.as_json() if place else None
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
    style = arena_hard.style_controlled(items, texts, judged, config.prompts.arena_hard)
    both_games, consistent = position_consistency(judged)
    scores = {
        "n": len(result.prompt_ids),
        "failed": len(items) - len(result.prompt_ids),
        "baseline": arena_hard.baseline(items),
        "score": 100 * result.score,
        "standard_error": 100 * result.standard_error,
        "style_controlled_score": 100 * style.score if style else None,
        "style_controlled_standard_error": 100 * style.standard_error if style else None,
        "position_consistency": _defined({"n": both_games, "share": consistent}),
        "mean_characters": _mean_characters(result.prompt_ids, texts),
    }
    rows = [
        _row(arena_hard.NAME, prompt_id, value, style.values.get(prompt_id) if style else None, texts)
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
