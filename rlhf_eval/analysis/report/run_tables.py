"""The tables of the report that go run by run: evaluations, judges, failures, time, provenance."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.manifest import environment_of, main_packages
from rlhf_eval.analysis.report.data_table import (
    DataTable,
    code_column,
    name_column,
    number_column,
    text_column,
    with_data,
)
from rlhf_eval.files import read_json, read_jsonl

RUNS_WITH_CAUSES = 50
"""Of at most so many runs with failed verdicts are the causes read: verdict files are large."""
SCORES = "stages/score/scores.json of every finished run"


def evaluation_data(runs: Sequence[RunRecord]) -> DataTable:
    """Both evaluations of every run; standard errors are the evaluation's own."""
    rows = []
    for run in runs:
        alpaca, arena = run.scores.get("alpaca_eval", {}), run.scores.get("arena_hard", {})
        rows.append(
            _identity(run)
            | {f"alpaca_{name}": alpaca.get(name) for name in ("win_rate", "standard_error")}
            | {
                name: alpaca.get(name)
                for name in ("length_controlled_win_rate", "length_controlled_standard_error")
            }
            | {f"alpaca_{name}": alpaca.get(name) for name in ("mean_characters", "n", "failed")}
            | {f"arena_{name}": arena.get(name) for name in ("score", "standard_error")}
            | {
                name: arena.get(name)
                for name in ("style_controlled_score", "style_controlled_standard_error")
            }
            | {f"arena_{name}": arena.get(name) for name in ("mean_characters", "n", "failed")}
            | {"arena_same_winner": (arena.get("position_consistency") or {}).get("share")}
            | {"gold": (run.scores.get("gold") or {}).get("mean")}
        )
    first = next(run for run in runs).scores
    alpaca, arena = first.get("alpaca_eval", {}), first.get("arena_hard", {})
    columns = (
        *_IDENTITY,
        number_column("AlpacaEval", "alpaca_win_rate"),
        number_column("± SE", "alpaca_standard_error"),
        number_column("LC", "length_controlled_win_rate"),
        number_column("± SE", "length_controlled_standard_error"),
        number_column("Length", "alpaca_mean_characters", digits=0),
        number_column("Failed", "alpaca_failed", digits=None),
        number_column("Arena-Hard", "arena_score"),
        number_column("± SE", "arena_standard_error"),
        number_column("SC", "style_controlled_score"),
        number_column("Length", "arena_mean_characters", digits=0),
        number_column("Failed", "arena_failed", digits=None),
        number_column("Same winner swapped", "arena_same_winner"),
        number_column("Gold", "gold", digits=3),
    )
    control = f", length control {alpaca['length_control']}" if alpaca.get("length_control") else ""
    return DataTable(
        "evaluations",
        f"Percent, with the evaluation's own standard error; lengths in characters; “failed” counts prompts "
        f"without a verdict. "
        f"AlpacaEval against {alpaca.get('baseline', '–')}{control}; LC is length-controlled. Arena-Hard "
        f"against "
        f"{arena.get('baseline', '–')}; SC is style-controlled.",
        with_data(columns, rows),
        rows,
        SCORES,
    )


def suspicious_data(runs: Sequence[RunRecord]) -> DataTable | None:
    """Shares of suspicious answers of every run and evaluation that has some; None if none has."""
    rows = [
        _identity(run) | {"evaluation": evaluation} | shares
        for run in runs
        for evaluation, shares in run.scores.get("suspicious_answers", {}).items()
        if any(shares.values())
    ]
    if not rows:
        return None
    names = list(
        dict.fromkeys(name for row in rows for name in row if name not in (*_identity(runs[0]), "evaluation"))
    )
    return DataTable(
        "suspicious_answers",
        "Shares of answers, in percent, that a score should not be believed on: they are counted in it all "
        "the same. Policies "
        "without any are left out.",
        (*_IDENTITY, text_column("Evaluation", "evaluation"), *(number_column(name, name) for name in names)),
        [dict.fromkeys([*_identity(runs[0]), "evaluation", *names]) | row for row in rows],
        SCORES,
    )


def no_gradient_data(runs: Sequence[RunRecord]) -> DataTable | None:
    """The runs whose training taught little or nothing, finished or not; None if there are none."""
    rows = [
        _identity(run)
        | {"run": run.path.name, "state": run.state.split(":")[0]}
        | {name: getattr(run, name) for name in ("training_steps", "no_gradient_steps", "warning")}
        for run in runs
        if run.warning
    ]
    if not rows:
        return None
    return DataTable(
        "no_gradient",
        "Runs in which the rewards gave the policy nothing to learn from in more than half of the training "
        "steps. Finished ones are ranked all the same: the score is that of a policy that learned little or "
        "nothing.",
        (*_IDENTITY, text_column("State", "state"), text_column("Training", "warning")),
        rows,
        "metrics.jsonl of every run",
    )


def judge_data(runs: Sequence[RunRecord]) -> DataTable | None:
    """What further judges said, beside the first, by run, judge and evaluation; None without further
    judges."""
    fields = {"alpaca_eval": "win_rate", "arena_hard": "score"}
    rows = [
        _identity(run)
        | {"judge": judge, "evaluation": evaluation}
        | {"score": found[evaluation][field], "first": run.scores[evaluation][field]}
        | {
            name: found["agreement"][evaluation].get(name)
            for name in ("n", "same", "kappa", "correlation", "favour")
        }
        | {"kin": found["agreement"][evaluation].get("baseline_of_its_family")}
        for run in runs
        for judge, found in run.scores.get("second_judges", {}).items()
        for evaluation, field in fields.items()
    ]
    if not rows:
        return None
    return DataTable(
        "judges",
        "Further judges of the same answers: their scores in percent, and how far they agree with the first. "
        "κ is Cohen's, over "
        "win, draw and loss. “Favours policy by” is how much more they prefer the policy, in points.",
        (
            *_IDENTITY,
            text_column("Judge", "judge"),
            text_column("Evaluation", "evaluation"),
            number_column("Score", "score"),
            number_column("First judge", "first"),
            number_column("Same winner", "same"),
            number_column("κ", "kappa", digits=2),
            number_column("Favours policy by", "favour"),
            text_column("Baseline of its family", "kin"),
        ),
        rows,
        SCORES,
    )


def failure_data(runs: Sequence[RunRecord]) -> tuple[DataTable | None, int]:
    """Causes of failed verdicts, the most frequent of each run, and how many more runs have some that were
    not read."""
    affected = [(run, name) for run in runs for name in run.per_prompt if run.scores[name].get("failed")]
    rows = []
    for run, evaluation in affected[:RUNS_WITH_CAUSES]:
        path = run.path / f"stages/judge/{evaluation}.jsonl"
        causes = Counter(
            row["error"] for row in (read_jsonl(path) if path.exists() else []) if row.get("error")
        )
        rows += [
            {"run": run.path.name, "evaluation": evaluation, "cause": cause, "verdicts": count}
            for cause, count in causes.most_common(3)
        ]
    table = DataTable(
        "failures",
        "Verdicts that failed, most frequent causes. Scores leave these prompts out.",
        (
            name_column("Run", "run"),
            text_column("Evaluation", "evaluation"),
            name_column("Cause", "cause"),
            number_column("Verdicts", "verdicts", digits=None),
        ),
        rows,
        "stages/judge/*.jsonl of the runs that scores.json counts failed prompts of",
    )
    return (table if rows else None), max(0, len(affected) - RUNS_WITH_CAUSES)


def provenance_data(runs: Sequence[RunRecord], folder: Path) -> DataTable:
    """Where every run's numbers come from; directories relative to the report."""
    rows = []
    for run in runs:
        path = run.path / "manifest.json"
        manifest = read_json(path) if path.exists() else {}
        environment = environment_of(manifest, "train")
        code = environment.get("code", {})
        done = run.path / "stages/score/done.json"
        outputs = (read_json(done) if done.exists() else {}).get("outputs", {})
        directory = Path(os.path.relpath(run.path, folder)).as_posix()
        versions = main_packages(environment)
        rows.append(
            {
                "directory": directory,
                "state": run.state.split(":")[0],
                "seeds": ", ".join(f"{name} {seed}" for name, seed in manifest.get("seeds", {}).items())
                or f"run {run.seed}",
                "hash8": run.hash8,
                "commit": (code.get("commit") or "–")[:12] + (" (modified)" if code.get("dirty") else ""),
                "scores_sha256": outputs.get("scores.json", {}).get("sha256", "")[:12],
                "packages": ", ".join(f"{name} {version}" for name, version in versions.items())
                or "not recorded",
                "hostname": manifest.get("stages", {}).get("train", manifest).get("hostname"),
                "gpus": ", ".join(environment.get("accelerators", {}).get("gpus", [])),
                "written_at": manifest.get("written_at"),
            }
        )
    return DataTable(
        "provenance",
        "Every run: its directory relative to this page, the hash of the configuration (config.yaml) that "
        "reproduces it, the "
        "commit of the code, the SHA-256 of its scores.json.",
        (
            name_column("Run directory", "directory"),
            text_column("State", "state"),
            text_column("Seeds", "seeds"),
            code_column("Configuration", "hash8"),
            code_column("Code", "commit"),
            code_column("scores.json", "scores_sha256"),
        ),
        rows,
        "config.yaml, manifest.json, status.json and stages/score/done.json of every run",
    )


def _identity(run: RunRecord) -> dict[str, Any]:
    return {"reward_model": run.reward_model, "seed": run.seed}


_IDENTITY = (name_column("Reward model", "reward_model"), number_column("Seed", "seed", digits=None))
