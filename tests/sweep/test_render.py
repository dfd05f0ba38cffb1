"""The scripts: bash takes them whatever the paths, and they requeue what is to be continued and nothing else.

They are executed with programs in the place of Python and SLURM; `tests/slurm` executes them on a cluster.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rlhf_eval.config.cluster_schema import ClusterConfig, ContainerConfig, Resources
from rlhf_eval.config.compose import compose_cluster
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json
from rlhf_eval.runs.stages import STAGES
from rlhf_eval.sweep.graph import Job, Point, graph
from rlhf_eval.sweep.render import render
from tests.sweep.conftest import Slurm

ALL = tuple(name for name, _ in STAGES)
FOLDER = Path("runs") / 'it\'s my "$(touch bad)" lab' / "sweeps" / "0001"
PYTHON = f"""#!{sys.executable} -IS
import json, os, signal, sys, time
from pathlib import Path
here = Path(__file__).parent
options = os.environ.get("RLHF_EVAL_SRUN_OPTIONS", "")
with (here / "commands.jsonl").open("a") as stream:
    print(json.dumps([sys.argv[0].rpartition("/")[2], *sys.argv[1:]]), file=stream)
(here / "srun-options").write_text(options)
program = here / (Path(sys.argv[0]).name + ".py")
exec(program.read_text() if program.exists() else "")
"""
"""Notes its arguments and does what the file beside it says."""


@dataclass(frozen=True)
class Site:
    """A working directory with runs to be executed, and programs that stand for Python and SLURM."""

    folder: Path
    slurm: Slurm
    cluster: ClusterConfig

    def program(self, name: str, body: str = "") -> Path:
        """Have `name` note its arguments and do `body`."""
        file = self.slurm.folder / name
        file.write_text(PYTHON)
        file.chmod(0o755)
        file.with_name(f"{name}.py").write_text(body)
        return file

    def commands(self, name: str) -> list[list[str]]:
        """What programs of this name were called with."""
        file = self.slurm.folder / "commands.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [row[1:] for row in rows if row[0] == name]

    def start(self, script: Path, task: int = 1) -> "subprocess.Popen[str]":
        """Execute a script as the task that has the array's own number for a job id."""
        numbers = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}
        path = f"{self.slurm.folder}:/usr/bin:/bin"
        environment = os.environ | numbers | {"PATH": path, "SLURM_JOB_NODELIST": "n[1-3]"}
        if not script.name.startswith(("train", "generate", "judge-", "shared")):
            environment = {
                name: text for name, text in environment.items() if not name.startswith("SLURM_ARRAY")
            }
        return subprocess.Popen(
            ["bash", str(script)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def execute(self, script: Path, task: int = 1) -> tuple[int, str]:
        """Exit code and what it printed."""
        process = self.start(script, task)
        said, _ = process.communicate(timeout=30)
        return process.returncode, said


@pytest.fixture
def site(tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Site:
    folder = tmp_path / "a user's folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    python = slurm.folder / "py'th \"on"
    site = Site(folder, slurm, replace(compose_cluster([]), python=str(python)))
    site.program(python.name)
    return site


@pytest.fixture
def jobs(lab_run: Callable[..., RunConfig], site: Site) -> dict[str, Job]:
    """Two runs that have everything open, with directories on the disk."""
    config = lab_run("reward_model=random")
    points = [
        Point(replace(config, seed=seed), FOLDER.parents[1] / f"it's run {seed}", ALL) for seed in range(2)
    ]
    for point in points:
        point.path.mkdir(parents=True)
        (point.path / "config.yaml").touch()
    return {job.name: job for job in graph(points, site.cluster, 10)}


def options(script: Path) -> dict[str, str]:
    """What a script asks sbatch for."""
    words = [
        shlex.split(line.removeprefix("#SBATCH "))
        for line in script.read_text().splitlines()
        if line.startswith("#SBATCH ")
    ]
    assert all(len(word) == 1 for word in words)
    pairs = [word[0].removeprefix("--").partition("=") for word in words]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    "container",
    [
        None,
        ContainerConfig(image="/images/it's.sqsh", mounts=("/data:/data",)),
        ContainerConfig(image="/images/it's.sif", runtime="apptainer"),
    ],
)
def test_bash_takes_every_script(jobs: dict[str, Job], site: Site, container: ContainerConfig | None) -> None:
    cluster = replace(site.cluster, container=container, setup=("module load cuda/13.0",))
    rollouts = replace(jobs["train-1"], name="rollouts-1", rollout_server=True)
    for job in (*jobs.values(), rollouts):
        script = render(job, cluster, FOLDER)
        done = subprocess.run(["/bin/bash", "-n", str(script)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), script.read_text()
        assert "{{" not in script.read_text()
    assert len(jobs) == 5


def test_what_a_script_asks_for(jobs: dict[str, Job], site: Site) -> None:
    asked = Resources(
        partition="h100,a100",
        account="me",
        qos="long",
        constraint="ib&hbm",
        nodes=3,
        gpus=8,
        cpus=32,
        memory="0",
        time="1-00:00:00",
        options=("--exclude=n7",),
    )
    cluster = replace(site.cluster, throttle=64, gres="gpu:h100", signal_seconds=77)
    script = render(replace(jobs["train-1"], resources=asked), cluster, FOLDER)
    experiment = FOLDER.parents[1].name
    assert options(script) == {
        "job-name": f"{experiment}-train-1",
        "array": "0-1%64",
        "chdir": str(site.folder),
        "output": f"{site.folder / FOLDER}/logs/train-1-%a.log",
        "open-mode": "append",
        "requeue": "",
        "kill-on-invalid-dep": "yes",
        "signal": "B:USR1@77",
        "nodes": "3",
        "ntasks-per-node": "1",
        "gres": "gpu:h100:8",
        "cpus-per-task": "32",
        "mem": "0",
        "time": "1-00:00:00",
        "partition": "h100,a100",
        "account": "me",
        "qos": "long",
        "constraint": "ib&hbm",
        "exclude": "n7",
    }
    assert (FOLDER / "logs").is_dir()
    assert (FOLDER / "train-1.runs").read_text().splitlines() == [
        str(point.path) for point in jobs["train-1"].points
    ]


def test_what_is_not_said_is_left_to_slurm(jobs: dict[str, Job], site: Site) -> None:
    unthrottled = replace(site.cluster, throttle=None)
    script = render(replace(jobs["judge-1"], resources=Resources(gpus=0)), unthrottled, FOLDER)
    found = options(script)
    assert found["array"] == "0-1"
    assert not {"gres", "mem", "time", "partition", "account", "qos", "constraint"} & set(found)
    server = options(render(jobs["judge_server-1"], site.cluster, FOLDER))
    assert "array" not in server
    assert server["output"] == f"{site.folder / FOLDER}/logs/judge_server-1.log"


def test_a_task_executes_its_own_run(jobs: dict[str, Job], site: Site) -> None:
    cluster = replace(site.cluster, max_attempts=3)
    for name, task in (("train-1", 0), ("judge-1", 1)):
        code, said = site.execute(render(jobs[name], cluster, FOLDER), task)
        assert code == 0, said
    command = ["-m", "rlhf_eval", "run", "--frozen"]
    runs = [str(point.path) for point in jobs["train-1"].points]
    judge = f"judge.base_url={FOLDER}/judge_server-1.address"
    assert site.commands("py'th \"on") == [
        [*command, runs[0], "--stages", "benchmark,train", "--max-attempts", "3"],
        [*command, runs[1], "--stages", "judge,score", "--max-attempts", "3", "--address", judge],
    ]
    assert not list(site.folder.rglob("bad"))  # nothing in a path was executed


def test_the_judge_s_job_serves_the_judge(jobs: dict[str, Job], site: Site) -> None:
    code, said = site.execute(render(jobs["judge_server-1"], site.cluster, FOLDER))
    assert code == 0, said
    file = FOLDER / "judge_server-1.json"
    assert site.commands("py'th \"on") == [["-m", "rlhf_eval.sweep.judge_server", str(file)]]
    assert read_json(file)["model"] == "lab-judge-1"


@pytest.mark.parametrize(
    ("code", "state", "requeued"),
    [
        (75, "RUNNING", True),
        (75, "COMPLETING", False),  # as it reads when it was cancelled
        (75, "", False),
        (0, "RUNNING", False),
        (1, "RUNNING", False),
        (137, "RUNNING", False),
    ],
)
@pytest.mark.parametrize("name", ["train-1", "judge_server-1"])
def test_only_what_was_interrupted_is_put_back_into_the_queue(
    jobs: dict[str, Job], site: Site, name: str, code: int, state: str, requeued: bool
) -> None:
    """One task of an array has the array's own job id: by that id squeue names, and scontrol requeues, all
    of the array's tasks."""
    own = "7_1" if name == "train-1" else "7"
    site.program("squeue", f"print({state!r}) if '--jobs={own}' in sys.argv else print('RUNNING\\nRUNNING')")
    site.program("scontrol")
    site.program("py'th \"on", f"sys.exit({code})")
    ended, said = site.execute(render(jobs[name], site.cluster, FOLDER))
    assert ended == code
    assert f"ended with code {code}" in said
    assert site.commands("scontrol") == ([["requeue", own]] if requeued else [])


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_to_the_script_lets_the_run_save(
    jobs: dict[str, Job], site: Site, sent: signal.Signals, times: int
) -> None:
    site.program("squeue", "print('RUNNING')")
    site.program("scontrol")
    ready, saved = site.folder / "ready", site.folder / "saved"
    site.program(
        "py'th \"on",
        f"""
def save(*_):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    time.sleep(0.3)
    Path({str(saved)!r}).touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
Path({str(ready)!r}).touch()
time.sleep(20)
""",
    )
    process = site.start(render(jobs["train-1"], site.cluster, FOLDER))
    wait_for(ready)
    for _ in range(times):
        process.send_signal(sent)
        time.sleep(0.1)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 75, said
    assert saved.exists()
    assert site.commands("scontrol") == [["requeue", "7_1"]]


def test_a_signal_before_the_run_listens_does_not_end_it(jobs: dict[str, Job], site: Site) -> None:
    begun = site.folder / "begun"
    site.program("py'th \"on", f"Path({str(begun)!r}).touch(); time.sleep(0.4); sys.exit(0)")
    process = site.start(render(jobs["train-1"], site.cluster, FOLDER))
    wait_for(begun)
    process.send_signal(signal.SIGUSR1)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_a_run_that_the_node_does_not_see(jobs: dict[str, Job], site: Site) -> None:
    script = render(jobs["train-1"], site.cluster, FOLDER)
    run = jobs["train-1"].points[1].path
    (run / "config.yaml").unlink()
    code, said = site.execute(script)
    assert code == 1
    assert f"error: {run} cannot be seen on this node" in said
    script.with_suffix(".runs").unlink()
    code, said = site.execute(script)
    assert code == 1
    assert f"error: {FOLDER}/train-1.runs cannot be seen on this node" in said
    assert not site.commands("py'th \"on")
    assert not list(site.folder.rglob("bad"))


def test_lines_of_setup_are_the_site_s_own(jobs: dict[str, Job], site: Site) -> None:
    """They may read variables that nobody has set, as conda's do, and what they export reaches the run."""
    site.program("py'th \"on", "print('weights in', os.environ['WEIGHTS'])")
    lines = ('export WEIGHTS="/weights$NOBODY_SETS_THIS"', "false")
    for name in ("generate-1", "judge_server-1"):
        code, said = site.execute(render(jobs[name], replace(site.cluster, setup=lines), FOLDER))
        assert (code, "weights in /weights" in said) == (0, True), said


def test_pyxis_starts_the_run_in_its_image(jobs: dict[str, Job], site: Site) -> None:
    container = ContainerConfig(image="/images/it's.sqsh", mounts=("/data:/my data",))
    site.program("srun")
    code, said = site.execute(render(jobs["train-1"], replace(site.cluster, container=container), FOLDER))
    assert code == 0, said
    [words] = site.commands("srun")
    image = [
        "--container-image=/images/it's.sqsh",
        f"--container-mounts={site.folder}:{site.folder},/data:/my data",
        f"--container-workdir={site.folder}",
    ]
    assert words[:6] == ["--nodes=1", "--ntasks=1", "--mpi=none", *image]
    assert words[6:9] == [site.cluster.python, "-m", "rlhf_eval"]
    # Training on several nodes starts its processes in the same image.
    assert shlex.split((site.slurm.folder / "srun-options").read_text()) == image


def test_apptainer_executes_the_run_in_its_image(jobs: dict[str, Job], site: Site) -> None:
    container = ContainerConfig(image="/images/it's.sif", runtime="apptainer", mounts=("/data:/my data",))
    site.program("apptainer")
    code, said = site.execute(render(jobs["train-1"], replace(site.cluster, container=container), FOLDER))
    assert code == 0, said
    [words] = site.commands("apptainer")
    before = ["exec", "--nv", f"--bind={site.folder}", f"--pwd={site.folder}", "--bind=/data:/my data"]
    assert words[:6] == [*before, "/images/it's.sif"]
    assert words[6:9] == [site.cluster.python, "-m", "rlhf_eval"]


def test_rollouts_are_served_by_the_last_node_until_the_training_ends(
    jobs: dict[str, Job], site: Site
) -> None:
    (FOLDER / "logs").mkdir(parents=True)
    process_id = site.folder / "server"
    site.program("srun", f"Path({str(process_id)!r}).write_text(str(os.getpid())); time.sleep(60)")
    site.program("scontrol", "print('n1\\nn2\\nn3')")
    site.program("py'th \"on", f"while not Path({str(process_id)!r}).exists(): time.sleep(0.02)")
    job = replace(jobs["train-1"], rollout_server=True)
    code, said = site.execute(render(job, site.cluster, FOLDER))
    assert code == 0, said
    run = str(job.points[1].path)
    node = ["--nodes=1", "--ntasks=1", "--nodelist=n3", "--mpi=none"]
    module = [site.cluster.python, "-m", "rlhf_eval.training.rollout_server", run, "20007"]
    assert site.commands("srun") == [[*node, *module]]
    [words] = site.commands("py'th \"on")
    assert words[-1] == "algorithm.rollout.server_url=http://n3:20007"
    server = int(process_id.read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists():
        assert time.monotonic() < deadline, "the server outlived the training"
        time.sleep(0.02)


def test_a_script_names_itself_for_use_by_hand(jobs: dict[str, Job], site: Site) -> None:
    script = render(jobs["train-1"], site.cluster, FOLDER)
    said = re.search(r"a single task: (sbatch .*)", script.read_text())
    assert said
    assert shlex.split(said[1]) == ["sbatch", "--array=0", str(script)]


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.01)
