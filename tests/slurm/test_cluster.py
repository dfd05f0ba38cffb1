"""The tests' own SLURM does what the tests of sweeps build on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, ClusterFailed

pytestmark = pytest.mark.slurm

HEARTBEAT = "while :; do date +%s.%N > {path}.new; mv {path}.new {path}; sleep 0.1; done"
STARTING = """
import time
from pathlib import Path
from tests.slurm.cluster import Cluster
with Cluster.started(Path({folder!r}), nodes=1) as cluster:
    cluster.submit({script!r})
    time.sleep(600)
"""


def the_job(cluster: Cluster, job: str, state: str, seconds: float) -> dict[str, str]:
    """The row of a job that isn't an array, as soon as it is in `state`."""
    cluster.wait(lambda _: cluster.jobs(job)[0]["State"] == state, seconds, f"job {job} {state}")
    return cluster.jobs(job)[0]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def stands_still(path: Path) -> bool:
    """Whether nobody writes a heartbeat any more."""
    before = path.read_text()
    time.sleep(0.6)
    return path.read_text() == before


def test_tasks_of_an_array_run_on_nodes_with_gpus_and_are_accounted(cluster: Cluster, tmp_path: Path) -> None:
    script = f"echo $SLURMD_NODENAME $(hostname) $CUDA_VISIBLE_DEVICES > {tmp_path}/$SLURM_ARRAY_TASK_ID"
    job = cluster.submit(script, "--array=0-1", "--gres=gpu:2")

    def accounted(_: object) -> bool:
        command = (
            "sacct",
            "-X",
            "--noheader",
            "--parsable2",
            "--format=JobID,State,ExitCode",
            f"--jobs={job}",
        )
        return sorted(cluster.call(*command).split()) == [f"{job}_{i}|COMPLETED|0:0" for i in range(2)]

    cluster.wait(accounted, 20, "sacct says COMPLETED of both tasks")
    first, second = ((tmp_path / str(task)).read_text().split() for task in range(2))
    assert first[0] != second[0]
    assert {first[0], second[0]} <= set(cluster.nodes)
    assert [first[0], second[0]] == [first[1], second[1]], "each node has a host name of its own"
    assert first[2] == second[2] == "0,1"


def test_a_requeued_job_runs_again_soon(cluster: Cluster, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    job = cluster.submit(
        f"echo ${{SLURM_RESTART_COUNT:-0}} >> {runs}\n"
        '[ -n "$SLURM_RESTART_COUNT" ] || { scontrol requeue $SLURM_JOB_ID; sleep 60; }'
    )
    done = the_job(cluster, job, "COMPLETED", 20)
    assert lines(runs) == ["0", "1"]
    assert done["RestartCnt"] == "1"


@pytest.mark.parametrize(("fail", "told"), [("node_down", True), ("power_off", False)])
def test_a_job_whose_node_fails_runs_again_on_another(
    cluster: Cluster, tmp_path: Path, fail: str, told: bool
) -> None:
    runs, heartbeat, terminated = tmp_path / "runs", tmp_path / "heartbeat", tmp_path / "terminated"
    job = cluster.submit(
        f"echo $SLURMD_NODENAME >> {runs}\n"
        '[ -n "$SLURM_RESTART_COUNT" ] && exit\n'
        f"trap 'touch {terminated}; exit 1' TERM\n" + HEARTBEAT.format(path=heartbeat),
        "--requeue",
        "--exclusive",
    )
    cluster.wait(lambda _: heartbeat.exists(), 10, "the job runs")
    (node,) = lines(runs)
    getattr(cluster, fail)(node)
    assert told or stands_still(heartbeat), "nothing goes on where the power is off"
    done = the_job(cluster, job, "COMPLETED", 25)
    assert len(lines(runs)) == 2
    assert lines(runs)[1] == done["NodeList"] != node
    assert terminated.exists() == told

    with pytest.raises(ClusterFailed, match="not available"):
        cluster.call("srun", "--immediate=1", f"--nodelist={node}", "true")
    cluster.node_up(node)
    assert cluster.call("srun", "--immediate=5", f"--nodelist={node}", "hostname").strip() == node


def test_a_preempted_job_is_signalled_and_runs_again(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    low = cluster.submit(
        f"echo run ${{SLURM_RESTART_COUNT:-0}} >> {log}\n"
        '[ -n "$SLURM_RESTART_COUNT" ] && exit\n'
        f"trap 'echo USR1 >> {log}' USR1\n"
        "while :; do sleep 0.2; done",
        *("--nodelist=n1", "--exclusive", "--requeue", "--signal=B:USR1@60", "--time=10"),
    )
    cluster.wait(lambda _: log.exists(), 10, "the job runs")
    high = cluster.submit(f"echo high >> {log}", "--partition=high", "--nodelist=n1", "--exclusive")
    cluster.wait(lambda _: "USR1" in lines(log), 10, "USR1 at once, not after the grace time")
    the_job(cluster, high, "COMPLETED", 35)
    the_job(cluster, low, "COMPLETED", 25)
    assert lines(log) == ["run 0", "USR1", "high", "run 1"]


def test_a_folder_can_be_hidden_from_one_node(cluster: Cluster, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "file").touch()

    def seen_by(node: str) -> list[str]:
        return cluster.call("srun", f"--nodelist={node}", "ls", str(shared)).split()

    cluster.hide("n2", shared)
    assert (seen_by("n1"), seen_by("n2")) == (["file"], [])
    cluster.unhide("n2")
    assert seen_by("n2") == ["file"]
    with pytest.raises(ClusterFailed, match="holds the cluster itself"):
        cluster.hide("n2", cluster.folder.parent)


def test_clusters_live_side_by_side_and_end_with_all_their_processes(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("slurm")
    heartbeat = folder / "heartbeat"
    before = Path("/etc/hosts").read_text()

    def interrupted() -> None:
        with Cluster.started(folder / "cluster", nodes=1, accounting=False) as second:
            alone = f"setsid bash -c '{HEARTBEAT.format(path=heartbeat)}' & sleep 1000"
            second.submit(alone, "--job-name=second")
            second.wait(lambda _: heartbeat.exists(), 10, "the job runs")
            assert [job["Name"] for job in second.jobs()] == ["second"]
            assert "second" not in [job["Name"] for job in cluster.jobs()]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert stands_still(heartbeat)
    assert Path("/etc/hosts").read_text() == before
    assert cluster.call("sinfo", "--noheader").strip()


def test_nothing_outlives_a_killed_test_process(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("slurm")
    heartbeat = folder / "heartbeat"
    program = STARTING.format(folder=str(folder / "c"), script=HEARTBEAT.format(path=heartbeat))
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    cluster.wait(lambda _: heartbeat.exists(), 30, "the job of the other process runs")
    process.send_signal(signal.SIGKILL)
    process.wait()
    cluster.wait(lambda _: not processes_about(folder), 5, "all daemons are gone")
    assert stands_still(heartbeat)


def processes_about(folder: Path) -> list[str]:
    """The living processes whose environment or command names a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                texts = [
                    (process / name).read_bytes().decode(errors="replace") for name in ("cmdline", "environ")
                ]
            except OSError:  # it has just ended
                continue
            if str(folder) in "".join(texts):
                found.append(texts[0])
    return found


def test_waiting_in_vain_shows_what_there_was(cluster: Cluster) -> None:
    job = cluster.submit("true", "--hold", "--job-name=held")
    with pytest.raises(ClusterFailed, match=r"a held job ends(.|\n)*'Name': 'held'(.|\n)*slurmctld"):
        cluster.wait(lambda _: cluster.jobs(job)[0]["State"] == "COMPLETED", 1, "a held job ends")
    cluster.call("scancel", job)
