"""Where a run is: what its files say and what SLURM says, put together by rules that a table shows."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlhf_eval.arguments import sweeps as arguments
from rlhf_eval.cli import main
from rlhf_eval.config.cluster_schema import JobKind, Resources
from rlhf_eval.config.compose import run_path
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.runs import stages
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.sweep import status
from rlhf_eval.sweep.graph import Job, Point
from rlhf_eval.sweep.record import keep, new_folder
from rlhf_eval.sweep.status import RunStatus, statuses
from tests.sweep.conftest import Slurm

WORDS = "A planted failure."
NUMBERS: dict[str, int] = {"shared": 10, "train": 11, "generate": 12, "judge": 13}


@dataclass(frozen=True)
class Experiment:
    """Runs that were submitted, and what SLURM says of them."""

    path: Path
    slurm: Slurm
    config: RunConfig

    def run(self, seed: int = 0, **said: object) -> RunDirectory:
        config = replace(self.config, seed=seed)
        directory = RunDirectory.open(run_path(config), config)
        if said:
            directory.update_status(**said)
        return directory

    def submit(self, *kinds: JobKind, runs: int = 1, first: int = 0) -> Path:
        """The folder of a sweep with an array of each kind; job ids are `NUMBERS`, or from `first` on."""
        folder = new_folder(self.path)
        points = [Point(self.config, self.run(seed).path, ()) for seed in range(runs)]
        for number, kind in enumerate(kinds):
            job = Job(f"{kind}-1", kind, (), tuple(points), Resources())
            keep(folder, job, first + number if first else NUMBERS[kind])
        (folder / "logs").mkdir()
        return folder

    def row(self) -> RunStatus:
        rows, notes = statuses(self.path)
        assert notes == []
        [row] = rows
        return row


@pytest.fixture
def experiment(tmp_path: Path, slurm: Slurm, lab_run: Callable[..., RunConfig]) -> Experiment:
    config = replace(lab_run("reward_model=random"), output=str(tmp_path / "runs"))
    return Experiment(tmp_path / "runs" / "lab", slurm, config)


@pytest.mark.parametrize(
    ("file", "tasks", "shown"),
    [
        # What waits or runs in SLURM shows where the run goes on.
        ("pending", {"train": "PENDING", "generate": "PENDING", "judge": "PENDING"}, "queued"),
        ("pending", {"train": "RUNNING", "generate": "PENDING", "judge": "PENDING"}, "running"),
        ("pending", {"train": "CONFIGURING", "generate": "PENDING", "judge": "PENDING"}, "running"),
        ("pending", {"train": "COMPLETED", "generate": "PENDING", "judge": "PENDING"}, "queued"),
        ("pending", {"train": "COMPLETED", "generate": "COMPLETED", "judge": "RUNNING"}, "running"),
        # Interrupted: SLURM puts it back, or is about to.
        ("interrupted", {"train": "PENDING", "generate": "PENDING", "judge": "PENDING"}, "queued"),
        ("interrupted", {"train": "REQUEUE_HOLD", "generate": "PENDING", "judge": "PENDING"}, "queued"),
        ("interrupted", {"train": "COMPLETING", "generate": "PENDING", "judge": "PENDING"}, "running"),
        # Failed by its own word: its followers never start; it may have been submitted or requeued again.
        ("failed", {"train": "COMPLETING", "generate": "CANCELLED", "judge": "CANCELLED"}, "failed"),
        ("failed", {"train": "FAILED", "generate": "CANCELLED", "judge": "CANCELLED"}, "failed"),
        ("failed", {"train": "COMPLETED", "generate": "FAILED", "judge": "CANCELLED"}, "failed"),
        ("failed", {"train": "PENDING", "generate": "PENDING", "judge": "PENDING"}, "queued"),
        ("failed", {"train": "RUNNING", "generate": "PENDING", "judge": "PENDING"}, "running"),
        # Ended without a word of its own.
        ("interrupted", {"train": "TIMEOUT", "generate": "CANCELLED", "judge": "CANCELLED"}, "failed"),
        ("interrupted", {"train": "NODE_FAIL", "generate": "CANCELLED", "judge": "CANCELLED"}, "failed"),
        ("pending", {"train": "OUT_OF_MEMORY", "generate": "CANCELLED", "judge": "CANCELLED"}, "failed"),
        ("interrupted", {"train": "CANCELLED", "generate": "CANCELLED", "judge": "CANCELLED"}, "cancelled"),
        ("pending", {"train": "COMPLETED", "generate": "CANCELLED", "judge": "CANCELLED"}, "cancelled"),
        # What runs share is done by the run itself where it failed.
        ("pending", {"shared": "PENDING", "train": "PENDING"}, "queued"),
        ("pending", {"shared": "RUNNING", "train": "PENDING"}, "running"),
        ("pending", {"shared": "FAILED", "train": "PENDING"}, "queued"),
        ("failed", {"shared": "FAILED", "train": "RUNNING"}, "running"),
        ("pending", {"shared": "TIMEOUT", "train": "COMPLETED"}, "pending"),
        # What the files alone know.
        ("done", {"train": "COMPLETED", "generate": "COMPLETED", "judge": "COMPLETING"}, "done"),
        ("done", {"train": "PENDING"}, "done"),
        ("pending", {"train": "COMPLETED"}, "pending"),
        ("interrupted", {}, "interrupted"),
        ("failed", {}, "failed"),
    ],
)
def test_files_and_slurm_together(
    experiment: Experiment, file: str, tasks: dict[JobKind, str], shown: str
) -> None:
    experiment.run(state=file, stage="train", error=f"{WORDS}\n  The cure." if file == "failed" else None)
    experiment.submit(*tasks)
    experiment.slurm.queue(*((NUMBERS[kind], 0, state) for kind, state in tasks.items()), reason="Priority")
    row = experiment.row()
    assert row.state == shown
    waiting = ("PENDING", "REQUEUE_HOLD")
    going_on = (*waiting, "RUNNING", "CONFIGURING", "COMPLETING")
    active = [f"{NUMBERS[kind]}_0" for kind, state in tasks.items() if state in going_on]
    assert row.jobs == (() if shown == "done" else tuple(active))
    assert row.waits_for == ("Priority" if shown == "queued" else None)
    if shown == file == "failed":
        assert row.error == WORDS  # its own, without the cure
    elif shown in ("failed", "cancelled"):
        kind, state = next((kind, state) for kind, state in tasks.items() if state != "COMPLETED")
        assert row.error
        assert row.error.startswith(f"{kind} job {NUMBERS[kind]}_0 ended as {state} on n1")
    elif shown != "running":
        assert row.error is None


def test_a_run_under_way_here_or_in_a_job(experiment: Experiment) -> None:
    directory = experiment.run()
    with directory.locked():
        directory.begin_attempt()
        directory.update_status(stage="train", step=3, steps=40)
        row = experiment.row()
    assert (row.state, row.stage, row.step, row.steps, row.attempt) == ("running", "train", 3, 40, 1)
    assert experiment.row().state == "interrupted"


def test_a_job_that_ended_without_a_word_is_told_with_its_last(experiment: Experiment) -> None:
    experiment.run(state="interrupted")
    folder = experiment.submit("train")
    experiment.slurm.queue((11, 0, "OUT_OF_MEMORY"), nodes="n[3-4]")
    begun = "train job 11_0 ended as OUT_OF_MEMORY on n[3-4]"
    assert experiment.row().error == f"{begun}, without a log: {folder}/logs may not be shared with that node"
    log = folder / "logs" / "train-1-0.log"
    log.write_text("x" * 9000 + "\nslurmstepd: error: Detected 1 oom-kill event  \n\n \n")
    assert experiment.row().error == f"{begun}; its log ends: slurmstepd: error: Detected 1 oom-kill event"
    log.write_text("")
    assert experiment.row().error == begun


def test_the_last_sweep_tells_how_a_run_stands(experiment: Experiment) -> None:
    experiment.run(state="interrupted")
    experiment.submit("train", "judge")
    experiment.submit("train", first=21)
    experiment.slurm.queue((11, 0, "CANCELLED"), (13, 0, "CANCELLED"), (21, 0, "PENDING"), reason="Resources")
    row = experiment.row()
    assert (row.state, row.jobs, row.waits_for) == ("queued", ("21_0",), "Resources")
    experiment.slurm.queue((11, 0, "FAILED"), (13, 0, "CANCELLED"), (21, 0, "COMPLETED"))
    assert experiment.row().state == "interrupted"


def test_what_squeue_has_forgotten_is_looked_up_in_accounting(experiment: Experiment) -> None:
    experiment.submit("train", "generate", runs=3)
    experiment.run(2).update_status(state="done")
    experiment.slurm.queue((12, 0, "PENDING"), (12, 1, "CANCELLED"))
    experiment.slurm.answer("sacct", "11_0|COMPLETED|n1\n11_1|FAILED|n2\n")
    rows, notes = statuses(experiment.path)
    assert notes == []
    assert [row.state for row in rows] == ["queued", "failed", "done"]
    assert rows[1].error
    assert "train job 11_1 ended as FAILED on n2" in rows[1].error
    assert [call.split()[-1] for call in experiment.slurm.calls("sacct")] == ["--jobs=11"]
    # An array that was cancelled before it began is one row.
    experiment.slurm.queue((11, 0, "COMPLETED"), (11, 1, "COMPLETED"))
    experiment.slurm.answer("sacct", "12_[0-2%64]|CANCELLED by 0|None assigned\n")
    rows, _ = statuses(experiment.path)
    assert [row.state for row in rows] == ["cancelled", "cancelled", "done"]
    assert rows[0].error == "generate job 12_0 ended as CANCELLED"


def test_slurm_is_asked_once_however_many_runs(experiment: Experiment) -> None:
    experiment.submit("train", "generate", "judge", runs=30)
    experiment.slurm.queue(*((11, n, "RUNNING" if n < 4 else "PENDING") for n in range(30)))
    experiment.slurm.answer("sacct")
    rows, _ = statuses(experiment.path)
    assert [row.state for row in sorted(rows, key=lambda row: row.seed or 0)] == ["running"] * 4 + [
        "queued"
    ] * 26
    assert (len(experiment.slurm.calls("squeue")), len(experiment.slurm.calls("sacct"))) == (1, 1)


def test_slurm_is_not_asked_about_runs_that_are_done(experiment: Experiment) -> None:
    experiment.run(state="done")
    experiment.submit("train")
    experiment.slurm.queue((11, 0, "COMPLETED"))
    assert experiment.row().state == "done"
    assert experiment.slurm.calls("squeue") == []


def test_without_slurm_the_files_tell(experiment: Experiment) -> None:
    experiment.run(state="failed", error=f"{WORDS}\n  The cure.")
    experiment.submit("train")
    row = experiment.row()
    assert (row.state, row.error, row.jobs) == ("failed", WORDS, ())


def test_a_controller_that_is_away_is_noted_and_the_files_tell(experiment: Experiment) -> None:
    experiment.run(state="failed", error=WORDS)
    experiment.submit("train")
    experiment.slurm.answer("squeue", "Unable to contact slurm controller", exit_code=1)
    [row], notes = statuses(experiment.path)
    assert (row.state, row.error) == ("failed", WORDS)
    assert len(notes) == 1
    assert "Unable to contact slurm controller" in notes[0]
    assert "the runs' own files alone" in notes[0]


def test_what_will_never_start_is_noted(experiment: Experiment) -> None:
    experiment.submit("train", runs=2)
    experiment.slurm.queue((11, 0, "PENDING"), (11, 1, "PENDING"), reason="QOSNotAllowed")
    _, [note] = statuses(experiment.path)
    assert note.startswith("2 tasks wait for what will not come by itself: SLURM says QOSNotAllowed.")
    experiment.slurm.queue((11, 0, "PENDING"), (11, 1, "RUNNING"), reason="Priority")
    assert statuses(experiment.path)[1] == []


def test_a_configuration_that_cannot_be_read_is_damage(experiment: Experiment) -> None:
    directory = experiment.run(state="failed", error=WORDS)
    experiment.submit("train")
    experiment.slurm.queue((11, 0, "PENDING"), reason="Priority")
    text = directory.config_file.read_text()
    for spoilt, words in [
        (text.replace("learning_rate: 0.0005", "learning_rate: 0.1"), "was edited after it was frozen"),
        (text[: text.index("learning_rate") + 5], "config.yaml is not YAML"),  # cut off within a key
        ("", "config.yaml: None does not fit"),
        ("{", "is not YAML"),
        ("\x00\udcff", "is not YAML"),
    ]:
        directory.config_file.write_text(spoilt, errors="surrogateescape")
        row = experiment.row()
        assert (row.state, row.jobs, row.waits_for) == ("damaged", ("11_0",), None)
        assert words in (row.error or "")


def test_names_and_seeds_come_from_the_directory_or_its_configuration(experiment: Experiment) -> None:
    config = replace(experiment.config, seed=12)
    RunDirectory.open(experiment.path / "my-own-name", config)
    RunDirectory.open(run_path(config), config)
    rows, _ = statuses(experiment.path)
    assert [row.run for row in rows] == ["my-own-name", run_path(config).name]
    assert [(row.reward_model, row.seed) for row in rows] == [("random", 12), ("random", 12)]


def test_time_left_by_the_last_steps(experiment: Experiment) -> None:
    directory = experiment.run(state="interrupted", stage="train", step=30, steps=40)
    parts = {f"{part}_seconds": 0.5 for part in ("generation", "scoring", "training")}
    row = {"kind": "train", "seconds": 1.5, "tokens": 90, "synchronisation_seconds": 0, "idle_seconds": 0}
    directory.metrics_file.write_text(json.dumps(row | parts) + "\n")
    assert experiment.row().seconds_left == 15.0
    directory.update_status(stage="judge", step=30, steps=40)
    assert experiment.row().seconds_left is None


@pytest.mark.parametrize(
    ("without", "steps", "warning"),
    [
        (40, 40, "no gradient in 40 of 40 steps"),
        (12, 12, "no gradient in 12 of 12 steps"),
        (21, 40, "no gradient in 21 of 40 steps"),
        (20, 40, None),
        (0, 40, None),
    ],
)
def test_a_training_that_teaches_nothing_is_warned_of_whether_it_ended_or_not(
    experiment: Experiment,
    capsys: pytest.CaptureFixture[str],
    without: int,
    steps: int,
    warning: str | None,
) -> None:
    state = "done" if steps == 40 else "interrupted"
    directory = experiment.run(state=state, stage="train", step=steps, steps=40)
    write_jsonl(
        directory.metrics_file,
        [{"kind": "train", "step": step, "no_gradient": step <= without} for step in range(1, steps + 1)],
    )
    row = experiment.row()
    assert (row.state, row.training_steps, row.no_gradient_steps) == (state, steps, without)
    assert row.warning == warning
    assert main(["status", str(experiment.path)]) == 0
    shown = capsys.readouterr().out
    assert ("no gradient" in shown) == (warning is not None)
    assert (warning or "") in shown
    assert f"1 {state}{'; 1 without gradient in most steps' if warning else ''}\n" in shown


def test_a_warning_stands_beside_an_error(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    directory = experiment.run(state="failed", stage="judge", error=WORDS)
    write_jsonl(directory.metrics_file, [{"kind": "train", "step": 1, "no_gradient": True}])
    assert main(["status", str(experiment.path)]) == 0
    assert f"{WORDS}; no gradient in 1 of 1 steps" in " ".join(capsys.readouterr().out.split())


def test_clocks_that_differ_are_noted(experiment: Experiment) -> None:
    directory = experiment.run(state="pending")
    experiment.run(seed=1, state="pending")
    for minutes, noted in [(10, True), (-600, False), (0, False)]:
        moment = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat(timespec="seconds")
        write_json(directory.status_file, directory.status() | {"updated_at": moment})
        _, notes = statuses(experiment.path)
        assert [directory.path.name in note and "clocks differ" in note for note in notes] == [True] * noted


def test_the_contract_of_json(experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    experiment.run(0, state="failed", stage="train", error=f"{WORDS}\n  The cure.", attempt=2)
    experiment.run(1)
    command = ["status", str(experiment.path), "--json"]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    fields = "run reward_model seed state stage step steps attempt error updated step_times stage_attempt"
    fields += " seconds_left jobs waits_for training_steps no_gradient_steps warning"
    assert [list(row) for row in rows] == [fields.split()] * 2
    assert [(row["state"], row["error"], row["attempt"]) for row in rows] == [
        ("failed", WORDS, 2),
        ("pending", None, 0),
    ]
    assert main([*command, "--state", "failed"]) == 0
    assert [row["seed"] for row in json.loads(capsys.readouterr().out)] == [0]


def test_the_command_line_knows_the_same_stages_and_states() -> None:
    """It has its own copies, because it imports nothing heavy."""
    assert tuple(name for name, _ in stages.STAGES) == arguments.STAGES
    assert status.STATES == arguments.STATES
