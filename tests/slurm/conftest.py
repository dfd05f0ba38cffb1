"""A real SLURM on loopback, and `rlhf-eval` on its login node."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import Cluster, obstacle


def resources(**gpus: int) -> str:
    """The override for what each kind of job asks for: a node to itself, so that few run at once, but for
    the judge's server, which finds room beside any other."""
    jobs = {"shared": 1, "train": 2, "generate": 1, "judge": 0} | gpus
    parts = [f"{kind}:{{gpus:{count},cpus:3,memory:4G,time:'20'}}" for kind, count in jobs.items()]
    parts.append("judge_server:{gpus:0,cpus:1,memory:1G,time:'20'}")
    return f"cluster.jobs={{{','.join(parts)}}}"


@dataclass(frozen=True)
class Login:
    """A shell on the cluster's login node, in a working directory of its own."""

    cluster: Cluster
    workdir: Path
    lab: list[str]

    def start(self, *words: str, **more: Any) -> "subprocess.Popen[str]":
        """`rlhf-eval` with these words, in the background."""
        command = [sys.executable, "-m", "rlhf_eval", *words]
        return subprocess.Popen(
            command,
            cwd=self.workdir,
            env=more.pop("env", self.cluster.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def call(self, *words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        """`rlhf-eval` with these words, to its end."""
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *words: str) -> Any:
        """What a successful command prints with --json."""
        done = self.call(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def lab_but_steps(self) -> list[str]:
        """The lab's overrides, without how long its trainings are."""
        return [w for w in self.lab if not w.startswith(("algorithm.steps", "algorithm.checkpoint"))]

    def sweep(self, *words: str) -> Any:
        """Submit a sweep of small lab runs."""
        return self.json("sweep", *self.lab, resources(), "cluster.signal_seconds=60", *words)

    def rows(self, experiment: str) -> dict[str, Any]:
        """`rlhf-eval status`, by run."""
        return {row["run"]: row for row in self.json("status", experiment)}

    def wait(
        self, experiment: str, until: Callable[[dict[str, Any]], bool], seconds: float
    ) -> dict[str, Any]:
        """The experiment's status as soon as `until` holds for it."""
        deadline = time.monotonic() + seconds
        while not until(rows := self.rows(experiment)):
            if time.monotonic() > deadline:
                states = [(row["run"], row["state"], row["stage"], row["error"]) for row in rows.values()]
                pytest.fail(f"{self.tail(experiment)}\n{states}\n{self.cluster.overview()}")
            time.sleep(3)  # the question takes half a second of a core that the jobs need
        return rows

    def wait_for_end(self, experiment: str, seconds: float = 900) -> dict[str, Any]:
        """The status when nothing goes on any more."""
        ended = ("done", "failed", "cancelled", "damaged")
        return self.wait(experiment, lambda rows: all(r["state"] in ended for r in rows.values()), seconds)

    def wait_for_step(self, run: str, step: int, seconds: float = 400) -> None:
        """Until a run's training has come so far, by its files."""
        metrics, deadline = self.workdir / run / "metrics.jsonl", time.monotonic() + seconds
        while not metrics.exists() or metrics.read_text().count('"kind": "train"') < step:
            if time.monotonic() > deadline:
                pytest.fail(f"{self.tail(str(Path(run).parent))}\n{self.cluster.overview()}")
            time.sleep(0.05)

    def tail(self, experiment: str) -> str:
        """The ends of all logs, for a failing test."""
        logs = sorted((self.workdir / experiment).glob("sweeps/*/logs/*"))
        return "".join(f"\n== {log}\n{log.read_text()[-1500:]}" for log in logs)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes of two fake GPUs each."""
    if reason := obstacle():
        pytest.skip(reason)
    with Cluster.started(tmp_path_factory.mktemp("slurm") / "c") as started:
        yield started


@pytest.fixture(scope="module")
def login(cluster: Cluster, small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Login:
    return Login(cluster, tmp_path_factory.mktemp("login"), small_lab)
