"""What goes wrong on clusters: each is said with its place and its cure, and nothing is left behind."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rlhf_eval.files import read_json, write_json
from tests.slurm.conftest import Login, resources

pytestmark = pytest.mark.slurm
ONE = ("reward_model=random", "seed=0", "~benchmarks.lab_public", "~benchmarks.lab_private")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cluster.jobs.judge.partition=nowhere", "invalid partition specified: nowhere"),
        ("cluster.jobs.generate.gpus=9", "Requested node configuration is not available"),
        ("cluster.jobs.train.memory=999G", "Memory specification can not be satisfied"),
    ],
)
def test_what_sbatch_refuses_is_told_in_its_own_words(login: Login, setting: str, words: str) -> None:
    experiment = f"refused-{setting.rpartition('.')[2].partition('=')[0]}"
    done = login.call("sweep", *login.lab, *ONE, resources(), setting, "--experiment", experiment)
    assert done.returncode == 1
    kind = setting.split(".")[2]
    assert f"sbatch refused runs/{experiment}/sweeps/0001/{kind}-1.sbatch: " in done.stderr
    assert words in done.stderr
    # What was submitted before it is taken back.
    rows = login.wait(f"runs/{experiment}", lambda rows: not any(r["jobs"] for r in rows.values()), 60)
    assert {row["state"] for row in rows.values()} <= {"cancelled", "pending"}


def test_what_slurm_takes_and_will_never_start_is_pointed_out(login: Login) -> None:
    nodes = "cluster.jobs.train.nodes=9"
    done = login.call("sweep", *login.lab, *ONE, resources(), nodes, "--experiment", "never")
    assert done.returncode == 0
    (row,) = login.rows("runs/never").values()
    assert row["state"] == "queued"
    assert row["waits_for"] in ("PartitionNodeLimit", "PartitionConfig")
    assert f"1 tasks wait for what will not come by itself: SLURM says {row['waits_for']}" in done.stderr
    login.call("cancel", "runs/never")


def test_a_folder_that_a_node_does_not_see(login: Login) -> None:
    cluster = login.cluster
    experiment = login.workdir / "runs" / "unshared"
    experiment.mkdir(parents=True)
    cluster.hide("n4", experiment)
    try:
        there = "cluster.jobs.train.options=['--nodelist=n4']"
        login.sweep(*ONE, there, "--experiment", "unshared")
        (row,) = login.wait_for_end("runs/unshared").values()
    finally:
        cluster.unhide("n4")
    assert row["state"] == "failed"
    assert "ended as FAILED on n4, without a log" in row["error"]
    assert "may not be shared with that node" in row["error"]


def test_a_run_directory_that_one_node_does_not_see(login: Login) -> None:
    told = login.json("sweep", *login.lab, *ONE, "--experiment", "half-shared", "--dry-run")
    run = login.workdir / "runs" / "half-shared" / told["runs"][0]["run"]
    run.mkdir(parents=True)
    login.cluster.hide("n4", run)
    try:
        there = "cluster.jobs.train.options=['--nodelist=n4']"
        login.sweep(*ONE, there, "--experiment", "half-shared")
        (row,) = login.wait_for_end("runs/half-shared").values()
    finally:
        login.cluster.unhide("n4")
    assert row["state"] == "failed"
    assert "cannot be seen on this node" in login.tail("runs/half-shared")


def test_a_configuration_edited_after_freezing(login: Login) -> None:
    told = login.sweep(*ONE, "cluster.jobs.train.options=[--hold]", "--experiment", "edited")
    run = login.workdir / "runs" / "edited" / told["submitted"][0]
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("learning_rate: 0.0005", "learning_rate: 0.0001"))
    login.cluster.call("scontrol", "release", str(told["jobs"][0]["job_id"]))
    rows = login.wait("runs/edited", lambda rows: all(not row["jobs"] for row in rows.values()), 120)
    (row,) = rows.values()
    assert row["state"] == "damaged"
    assert "edited after it was frozen" in row["error"]
    assert "edited after it was frozen" in login.tail("runs/edited")
    assert not (run / "stages").exists()
    resumed = login.call("sweep", "--resume", "runs/edited", resources())
    assert resumed.returncode == 2
    assert f"runs/edited/{run.name}/config.yaml was edited" in resumed.stderr


def test_a_run_directory_deleted_under_a_running_job(login: Login) -> None:
    steps = ("algorithm.steps=400", "algorithm.checkpoint_every=100")
    told = login.json("sweep", *login.lab_but_steps(), *steps, *ONE, resources(), "--experiment", "deleted")
    run = login.workdir / "runs" / "deleted" / told["submitted"][0]
    login.wait_for_step(str(run.relative_to(login.workdir)), 5)
    shutil.rmtree(run, ignore_errors=True)
    train = str(told["jobs"][0]["job_id"])
    login.cluster.wait(
        lambda jobs: all(job["State"] == "FAILED" for job in jobs if job["ArrayJobID"] == train),
        120,
        "the end of the training",
    )
    assert "was deleted or moved away while its run was executing" in login.tail("runs/deleted")
    assert login.json("status", "runs/deleted") == []
    again = login.json("sweep", *login.lab_but_steps(), *steps, *ONE, resources(), "--experiment", "deleted")
    assert again["submitted"] == [run.name]
    login.call("cancel", "runs/deleted")
    login.wait_for_end("runs/deleted", 60)


def test_a_full_disk_at_submission(login: Login, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full", kib=256) as full:
        seeds = "seed=range(0,200)"
        done = login.call("sweep", *login.lab, *ONE[:1], seeds, resources(), f"output={full}")
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert str(full) in done.stderr
    assert not [job for job in login.cluster.jobs() if "full" in job["Name"]]


def test_clocks_that_differ(login: Login) -> None:
    told = login.sweep(*ONE, "cluster.jobs.train.options=[--hold]", "--experiment", "skewed")
    file = login.workdir / "runs" / "skewed" / told["submitted"][0] / "status.json"
    ahead = (datetime.now(UTC) + timedelta(minutes=10)).isoformat(timespec="seconds")
    write_json(file, read_json(file) | {"updated_at": ahead})
    done = login.call("status", "runs/skewed")
    assert "The clocks differ" in done.stderr
    assert "1 queued" in done.stdout
    login.call("cancel", "runs/skewed")


def test_without_slurm(login: Login) -> None:
    environment = login.cluster.environment | {"PATH": "/nowhere"}
    done = login.call("sweep", *login.lab, *ONE, "--experiment", "nowhere", env=environment)
    assert done.returncode == 2
    assert "sbatch is not to be found" in done.stderr
    assert "--local N" in done.stderr
    assert not (login.workdir / "runs" / "nowhere").exists()


def test_a_controller_that_does_not_answer(login: Login, tmp_path: Path) -> None:
    login.sweep(*ONE, "cluster.jobs.train.options=[--hold]", "--experiment", "silent")
    conf = Path(login.cluster.environment["SLURM_CONF"])
    lost = tmp_path / "slurm.conf"
    lines = conf.read_text().splitlines()
    lost.write_text("\n".join("SlurmctldPort=9" if x.startswith("SlurmctldPort") else x for x in lines))
    began = time.monotonic()
    done = login.call("status", "runs/silent", env=login.cluster.environment | {"SLURM_CONF": str(lost)})
    assert done.returncode == 0
    assert "the runs' own files alone" in done.stderr
    assert time.monotonic() - began < 120
    login.call("cancel", "runs/silent")


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A file system of a few hundred kibibytes."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
