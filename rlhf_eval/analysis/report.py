"""One self-contained HTML page of an experiment: no script, no network, every text of a model escaped."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.analysis.correlation import correlations
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.figures import draw_correlation, draw_curves, draw_ranking
from rlhf_eval.analysis.metrics import METRICS
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.style import inline_svg
from rlhf_eval.analysis.tables import page_templates, span
from rlhf_eval.analysis.tidy import curve_rows
from rlhf_eval.analysis.wording import headline
from rlhf_eval.files import read_json, read_jsonl, write_text

EXAMPLE_PROMPTS = 3
EXAMPLE_POLICIES = 12
EXAMPLE_CHARACTERS = 1500


@dataclass(frozen=True, slots=True)
class Answer:
    """One policy's answer in the section of examples; `value` in percent, None if the verdict failed."""

    policy: str
    control: bool
    text: str
    cut: bool
    value: float | None


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and what the policies answered."""

    instruction: str
    answers: tuple[Answer, ...]


def write_report(runs: Sequence[RunRecord], ranking: Ranking, path: Path) -> Path:
    """Write the report of an experiment to `path` (HTML) and return it.

    Args:
        runs: from `load_runs`.
        ranking: from `rank` over the same runs.
    """
    environment = page_templates()
    environment.globals["span"] = span
    finished = [run for run in runs if run.finished]
    page = environment.get_template("report.html.j2").render(
        experiment=finished[0].config.experiment,
        first=finished[0],
        ranking=ranking,
        metrics=[m for m in METRICS.values() if any(m.name in row.scores for row in ranking.rows)],
        headline=headline(ranking),
        correlations=correlations(ranking),
        figures=_figures(runs, ranking),
        evaluations=_evaluations(finished),
        suspicious=_suspicious(finished),
        second_judges=_second_judges(finished),
        failures=_failures(finished),
        examples=_examples(finished, ranking),
        provenance=[_provenance(run, Path(path).parent) for run in runs],
    )
    write_text(Path(path), page)
    return Path(path)


def _figures(runs: Sequence[RunRecord], ranking: Ranking) -> dict[str, Any]:
    """Inline SVG by name. Marked safe: drawn by matplotlib, which escapes the names it writes."""
    from markupsafe import Markup

    figures = {
        "ranking": inline_svg(draw_ranking(ranking), "r", "Score of each reward model with its interval")
    }
    if ranking.benchmark is not None:
        figures["correlation"] = inline_svg(
            draw_correlation(ranking), "c", "Benchmark accuracy against downstream score"
        )
    rows = curve_rows(runs)
    if rows:
        figures["curves"] = inline_svg(draw_curves(rows), "k", "Proxy and gold reward over distance")
    return {name: Markup(svg) for name, svg in figures.items()}


def _evaluations(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Both evaluations of every run, with lengths and failures; standard errors are the evaluation's own."""
    return [
        {
            "run": run,
            "alpaca_eval": run.scores.get("alpaca_eval", {}),
            "arena_hard": run.scores.get("arena_hard", {}),
            "gold": (run.scores.get("gold") or {}).get("mean"),
        }
        for run in runs
    ]


def _suspicious(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """The shares of suspicious answers of every run and evaluation that has some."""
    return [
        {"run": run, "evaluation": evaluation, "shares": shares}
        for run in runs
        for evaluation, shares in run.scores.get("suspicious_answers", {}).items()
        if any(shares.values())
    ]


def _second_judges(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """What further judges said, beside the first, by run, judge and evaluation."""
    fields = {"alpaca_eval": "win_rate", "arena_hard": "score"}
    return [
        {
            "run": run,
            "judge": judge,
            "evaluation": evaluation,
            "score": found[evaluation][field],
            "first": run.scores[evaluation][field],
            "agreement": found["agreement"][evaluation],
        }
        for run in runs
        for judge, found in run.scores.get("second_judges", {}).items()
        for evaluation, field in fields.items()
    ]


def _failures(runs: Sequence[RunRecord]) -> list[tuple[str, str, str, int]]:
    """Causes of failed verdicts: (run, evaluation, cause, count)."""
    failures = []
    for run in runs:
        for evaluation in run.per_prompt:
            path = run.path / f"stages/judge/{evaluation}.jsonl"
            if run.scores[evaluation].get("failed") and path.exists():
                causes = Counter(row["error"] for row in read_jsonl(path) if row.get("error"))
                failures += [(run.path.name, evaluation, cause, n) for cause, n in causes.most_common(3)]
    return failures


def _examples(runs: Sequence[RunRecord], ranking: Ranking) -> list[Example]:
    """A few prompts at equal distances through the set (not chosen by outcome), first seed of each policy."""
    names = [row.reward_model for row in ranking.rows[:EXAMPLE_POLICIES]]
    names += [ranking.untrained.name] if ranking.untrained else []
    evaluation = ranking.metric.evaluation
    chosen = [next(run for run in runs if run.reward_model == name) for name in names]
    answers = {run.reward_model: _answers(run, evaluation) for run in chosen}
    prompt_ids = [id for id in chosen[0].per_prompt[evaluation].prompt_ids if id in answers[names[0]]]
    if not prompt_ids:
        return []
    places = np.linspace(0, len(prompt_ids) - 1, EXAMPLE_PROMPTS + 2)[1:-1].round().astype(int)
    return [
        Example(
            answers[names[0]][id]["instruction"],
            tuple(
                _answer(run, evaluation, id, answers[run.reward_model][id])
                for run in chosen
                if id in answers[run.reward_model]
            ),
        )
        for id in dict.fromkeys(prompt_ids[place] for place in places)
    ]


def _answers(run: RunRecord, evaluation: str) -> dict[str, dict[str, Any]]:
    path = run.path / f"stages/generate/{evaluation}.jsonl"
    return {row["prompt_id"]: row for row in read_jsonl(path)} if path.exists() else {}


def _answer(run: RunRecord, evaluation: str, prompt_id: str, row: dict[str, Any]) -> Answer:
    scores = run.per_prompt[evaluation]
    value = dict(zip(scores.prompt_ids, scores.value, strict=True)).get(prompt_id, np.nan)
    return Answer(
        policy="untrained policy" if run.untrained else run.reward_model,
        control=run.control,
        text=row["text"][:EXAMPLE_CHARACTERS],
        cut=len(row["text"]) > EXAMPLE_CHARACTERS,
        value=None if np.isnan(value) else 100 * float(value),
    )


def _provenance(run: RunRecord, folder: Path) -> dict[str, Any]:
    """Where a run's numbers come from; its directory relative to the report."""
    path = run.path / "manifest.json"
    manifest = read_json(path) if path.exists() else {}
    code = manifest.get("code", {})
    versions = {name: manifest[name] for name in ("rlhf_eval", "python") if name in manifest}
    versions |= manifest.get("packages", {})
    return {
        "run": run,
        "folder": Path(os.path.relpath(run.path, folder)).as_posix(),
        "commit": (code.get("commit") or "–")[:12],
        "dirty": code.get("dirty", False),
        "seeds": ", ".join(f"{name} {seed}" for name, seed in manifest.get("seeds", {}).items()),
        "packages_text": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
