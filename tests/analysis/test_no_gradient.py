"""A training that taught nothing is ranked like any other, and every place that shows it says so."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlhf_eval.analysis import cache, runs_table
from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.overall import load_settings, overall
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.wording import headline
from rlhf_eval.cli import main
from rlhf_eval.commands.runs import _tell_scores as tell_scores
from rlhf_eval.files import append_jsonl, read_jsonl, write_jsonl
from tests.analysis.conftest import write_run
from tests.analysis.test_report import cells, reported, without_plotly

Add = Callable[..., Path]
WORDS = "no gradient in 40 of 40 steps"
NOTHING = {"no_gradient": True}
SOMETHING = {"no_gradient": False}
OLD_NOTHING = {"zero_variance_share": 1.0, "grad_norm": 0.0, "truncated_share": 1.0}
OLD_SOMETHING = {"zero_variance_share": 0.0, "grad_norm": 0.7, "truncated_share": 1.0}


def trained(path: Path, fields: dict[str, Any], steps: int = 40) -> Path:
    """The run with these training steps in its metrics."""
    metrics = path / "metrics.jsonl"
    curve = [row for row in read_jsonl(metrics) if row["kind"] == "checkpoint"] if metrics.exists() else []
    write_jsonl(metrics, curve)
    append_jsonl(metrics, *({"kind": "train", "step": step} | fields for step in range(1, steps + 1)))
    return path


@pytest.mark.parametrize(
    ("nothing", "something"), [(NOTHING, SOMETHING), (OLD_NOTHING, OLD_SOMETHING)], ids=["new", "old"]
)
def test_status_rank_and_report_say_it(
    experiment: Add, capsys: pytest.CaptureFixture[str], nothing: dict[str, Any], something: dict[str, Any]
) -> None:
    folder = trained(experiment("dull", 0, [0.5, 0.4, 0.6]), nothing).parent
    trained(experiment("clean", 0, [0.7, 0.6, 0.9]), something)
    for command in ("status", "rank"):
        assert main([command, str(folder)]) == 0
        assert capsys.readouterr().out.count(WORDS) == 1
        assert main([command, str(folder), "--json"]) == 0
        rows = {row["reward_model"]: row for row in json.loads(capsys.readouterr().out)}
        told = ("training_steps", "no_gradient_steps", "warning")
        assert [rows["dull"][name] for name in told] == [40, 40, WORDS]
        assert [rows["clean"][name] for name in told] == [40, 0, None]
    assert main(["report", str(folder)]) == 0
    page = without_plotly((folder / "report.html").read_text("utf-8"))
    head, *ranked = (row for row in cells(page, "ranking") if len(row) > 1)
    assert {row[0]: row[-1] for row in ranked} == {"dull": "40 of 40", "clean": "–"}
    assert head[-1] == "No gradient in steps"
    assert cells(page, "no_gradient")[1:] == [["dull", "0", "done", WORDS]]
    with (folder / "report_tables/no_gradient.csv").open() as stream:
        assert [row["no_gradient_steps"] for row in csv.DictReader(stream)] == ["40"]
    said = f"In most training steps the rewards taught the policy nothing: dull ({WORDS})."
    assert page.count(said) == 2, "above the ranking and below it"


def test_the_command_that_executed_a_run_says_it_with_the_scores(
    experiment: Add, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_scores(trained(experiment("dull"), NOTHING))
    assert capsys.readouterr().out.splitlines()[0] == f"training: {WORDS}"
    tell_scores(trained(experiment("clean"), SOMETHING))
    assert "training" not in capsys.readouterr().out


def test_healthy_trainings_are_not_mentioned(experiment: Add, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(experiment("clean", 0, [0.7, 0.6]), SOMETHING).parent
    few = trained(experiment("noisy", 0, [0.6, 0.5]), SOMETHING, 38)
    append_jsonl(few / "metrics.jsonl", *({"kind": "train", "step": n} | NOTHING for n in (39, 40)))
    experiment("untrained", 0, [0.5, 0.4], kind="untrained", control=True, kl=None)
    for command in ("status", "rank", "checkpoints"):
        assert main([command, str(folder)]) == 0
        assert "no gradient" not in capsys.readouterr().out
    page = without_plotly(reported(folder))
    assert "no gradient" not in page
    assert "taught the policy nothing" not in page
    assert "No gradient in steps" not in cells(page, "ranking")[0]
    assert 'id="table-no_gradient"' not in page


def test_a_half_finished_run_is_told_so_far(experiment: Add, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(experiment("clean", 0, [0.7, 0.6]), SOMETHING).parent
    trained(experiment("dull", finished=False, state={"state": "failed", "stage": "train"}), NOTHING, 12)
    so_far = "no gradient in 12 of 12 steps"
    assert cells(reported(folder), "no_gradient")[1:] == [["dull", "0", "failed in train", so_far]]
    assert rank(load_runs(folder)).rows[0].warning is None
    assert main(["checkpoints", str(folder)]) == 0
    assert f"dull (unfinished, {so_far})" in " ".join(capsys.readouterr().out.split())
    final = runs_table(folder).query("final").set_index("reward_model")
    assert final[["training_steps", "no_gradient_steps"]].values.tolist() == [[40, 0], [12, 12]]


def test_of_several_runs_those_are_counted_that_learned_nothing(experiment: Add) -> None:
    for seed, fields in enumerate((SOMETHING, NOTHING, NOTHING)):
        folder = trained(experiment("flaky", seed, [0.5, 0.7]), fields).parent
        trained(experiment("constant", seed, [0.5, 0.4], control=True, kind="constant"), NOTHING)
    ranking = rank(load_runs(folder))
    rows = {row.reward_model: row for row in ranking.rows}
    assert rows["flaky"].warning == "no gradient in 80 of 80 steps, 2 of 3 runs"
    assert (rows["flaky"].no_gradient_steps, rows["flaky"].training_steps) == (80, 120)
    assert rows["constant"].warning == "no gradient in 120 of 120 steps, 3 of 3 runs"
    console = Console(width=200, file=io.StringIO())
    console.print(ranking.as_table())
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    warned = [f"{row.reward_model} ({row.warning})" for row in ranking.rows]
    assert f"In most training steps the rewards taught the policy nothing: {'; '.join(warned)}." in shown
    said = [sentence for sentence in headline(ranking) if "taught the policy nothing" in sentence]
    assert said == [
        f"In most training steps the rewards taught the policy nothing: flaky ({rows['flaky'].warning})."
    ], "a control is meant to teach nothing: the headline is about candidates"


def test_the_aggregate_over_settings_says_it_too(experiment: Add, tmp_path: Path) -> None:
    one = trained(experiment("dull", 0, [0.5, 0.4]), NOTHING).parent
    other = tmp_path / "runs" / "chosen"
    best_of_n = {"name": "best_of_n", "kind": "best_of_n", "samples": 4, "max_completion_tokens": 32}
    write_run(other, "dull", 0, [0.5, 0.6], algorithm=best_of_n, kl=None)
    found = overall(load_settings([one, other]), {"alpaca_eval.win_rate": 1.0})
    assert found.as_json()[0]["warning"] == WORDS, "what trains nothing has no steps"


def test_the_cache_keeps_it(experiment: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SETTLED_SECONDS", -3600.0)
    folder = trained(experiment("dull", 0, [0.5, 0.4]), NOTHING).parent
    assert [load_runs(folder)[0].warning for _ in range(2)] == [WORDS] * 2
