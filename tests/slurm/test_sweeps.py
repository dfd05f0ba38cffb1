"""Sweeps from the login node to the last score, two of them at once on one experiment."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.files import read_json, read_jsonl, sha256_file
from tests.slurm.conftest import Login, resources

pytestmark = pytest.mark.slurm
EXPERIMENT = "runs/lab"
FAILING = """
import os

def rule(prompt, completion):
    if "train" in os.environ["SLURM_JOB_NAME"]:
        raise ValueError("a planted failure in training")
    return len(completion)
"""


@pytest.fixture(scope="module")
def ended(login: Login) -> dict[str, Any]:
    """Status after three sweeps that were submitted at the same time, two of which share two runs; the
    trainings of the third fail."""
    (login.workdir / "failing.py").write_text(FAILING)
    words = (*login.lab, resources(), "seed=0,1", "cluster.signal_seconds=60", "--json")
    sweeps = [
        login.start("sweep", "reward_model=lab_clean_small,random,untrained", *words),
        login.start("sweep", "reward_model=random", *words),
        login.start("sweep", "reward_model=rule", "reward_model.function=failing.py:rule", *words),
    ]
    for process in sweeps:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    return login.wait_for_end(EXPERIMENT)


def runs(ended: dict[str, Any], reward_model: str) -> list[dict[str, Any]]:
    return [row for row in ended.values() if row["reward_model"] == reward_model]


def test_six_runs_are_done_and_scored(login: Login, ended: dict[str, Any]) -> None:
    for reward_model in ("lab_clean_small", "random", "untrained"):
        assert [row["state"] for row in runs(ended, reward_model)] == ["done", "done"], login.tail(EXPERIMENT)
    ranking = {row["reward_model"] for row in login.json("rank", EXPERIMENT)}
    assert ranking == {"lab_clean_small", "random"}


def test_a_swept_run_equals_one_by_hand(login: Login, ended: dict[str, Any], tmp_path: Path) -> None:
    swept = runs(ended, "lab_clean_small")[1]["run"]
    done = login.call("run", *login.lab, "reward_model=lab_clean_small", "seed=1", f"output={tmp_path}")
    assert done.returncode == 0, done.stderr
    for file in ("stages/train/policy/model.safetensors", "stages/score/scores.json"):
        ours = login.workdir / EXPERIMENT / swept / file
        assert sha256_file(ours) == sha256_file(tmp_path / "lab" / swept / file)


def test_the_failure_of_one_training_holds_back_its_followers_alone(
    login: Login, ended: dict[str, Any]
) -> None:
    for row in runs(ended, "rule"):
        assert row["state"] == "failed"
        assert row["error"] == "a planted failure in training"
        assert row["jobs"] == []
        assert not (login.workdir / EXPERIMENT / row["run"] / "stages" / "generate").exists()
    tasks = submitted(login, ended, "rule")
    states = {kind: state for kind, state in tasks if kind in ("train", "generate", "judge")}
    assert states == {"train": "FAILED", "generate": "CANCELLED", "judge": "CANCELLED"}


def test_runs_that_two_sweeps_share_are_submitted_once(login: Login, ended: dict[str, Any]) -> None:
    trainings = [kind for kind, _ in submitted(login, ended, "random") if kind == "train"]
    assert len(trainings) == 2  # one a seed


def test_resume_has_nothing_to_do_but_what_failed(login: Login, ended: dict[str, Any]) -> None:
    told = login.json("sweep", "--resume", EXPERIMENT, "--dry-run")
    assert len(told["finished"]) == 6
    assert {run["reward_model"] for run in told["runs"]} == {"rule"}
    assert {tuple(run["stages"]) for run in told["runs"]} == {("train", "generate", "judge", "score")}


def test_one_judge_was_served_to_all_runs_of_a_sweep(login: Login, ended: dict[str, Any]) -> None:
    folders = sorted((login.workdir / EXPERIMENT).glob("sweeps/[0-9]*"))
    assert len(folders) in (2, 3)  # of two sweeps with the same runs, one may find nothing to do
    login.cluster.wait(
        lambda jobs: not any(job["State"] == "RUNNING" for job in jobs), 60, "the end of the servers"
    )
    for folder in folders:
        server = next(job for job in read_jsonl(folder / "jobs.jsonl") if job["kind"] == "judge_server")
        assert login.cluster.final_states(str(server["job_id"])) == ["COMPLETED"]
        assert not list(folder.glob("*.address"))
        judged = [job["runs"] for job in read_jsonl(folder / "jobs.jsonl") if job["kind"] == "judge"]
        assert judged


def test_logs_show_what_a_job_said(login: Login, ended: dict[str, Any]) -> None:
    run = runs(ended, "rule")[0]["run"]
    said = login.call("logs", f"{EXPERIMENT}/{run}").stdout
    assert "sweeps/" in said
    assert "ValueError: a planted failure in training" in said
    assert "ended with code 1" in said


def test_the_manifest_names_the_job(login: Login, ended: dict[str, Any]) -> None:
    run = runs(ended, "random")[0]["run"]
    scheduler = read_json(login.workdir / EXPERIMENT / run / "manifest.json")["scheduler"]
    assert scheduler["SLURM_ARRAY_JOB_ID"].isdigit()
    assert scheduler["SLURMD_NODENAME"] in ("n1", "n2", "n3", "n4")


def submitted(login: Login, ended: dict[str, Any], reward_model: str) -> list[tuple[str, str]]:
    """Kind and sacct's state of every task of a reward model's runs."""
    names = {row["run"] for row in runs(ended, reward_model)}
    found = []
    for file in sorted((login.workdir / EXPERIMENT).glob("sweeps/[0-9]*/jobs.jsonl")):
        for job in read_jsonl(file):
            for number, run in enumerate(job["runs"]):
                if run in names:
                    states = login.cluster.final_states(f"{job['job_id']}_{number}")
                    found.append((job["kind"], states[-1]))
    return found


def test_two_hundred_points(login: Login) -> None:
    held = "cluster.jobs.{}.options=[--hold]"
    told = login.json(
        "sweep",
        *login.lab,
        "reward_model=lab_clean_small,random,length_only,lab_noisy",
        "seed=range(0,50)",
        "--experiment",
        "many",
        resources(),
        *(held.format(kind) for kind in ("shared", "train", "generate", "judge")),
    )
    assert len(told["submitted"]) == len(set(told["submitted"])) == 200
    tasks = {job["name"]: job["tasks"] for job in told["jobs"]}
    arrays = {"shared-1": 4, "train-1": 200, "generate-1": 200, "judge-1": 200}
    assert tasks == arrays | {"judge_server-1": 0}
    rows = login.rows("runs/many")
    assert {row["state"] for row in rows.values()} == {"queued"}
    assert all(len(row["jobs"]) in (3, 4) for row in rows.values())
    again = login.json("sweep", "--resume", "runs/many")
    assert (again["submitted"], len(again["busy"])) == ([], 200)
    assert login.call("cancel", "runs/many").returncode == 0
    states = {row["state"] for row in login.wait_for_end("runs/many", 60).values()}
    assert states == {"cancelled"}
