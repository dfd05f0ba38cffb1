"""A real SLURM cluster on this machine for the tests: its own daemons, database, ports and folder.

Each node is a `slurmd` in namespaces of its own (host name, processes, mounts): `hostname` says `n1` there, a
process id of one node means nothing on another, and all that runs on a node ends with its `slurmd`. Nothing
outside the cluster's folder is changed, and nothing outlives the process that started it.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_eval.processes import die_with
from tests.slurm.cluster_files import Layout, database_script, free_ports

DEBIAN_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "unshare": "util-linux",
}
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
LONGEST_FOLDER = 70  # slurmd's sockets lie in it, and a socket's path may have 107 characters
JOB_COLUMNS: tuple[str, ...] = tuple(
    "JobID ArrayJobID ArrayTaskID Name State Reason NodeList TimeLeft exit_code RestartCnt Dependency".split()
)
MARIADBD = (
    "mariadbd --no-defaults --user=root --innodb-buffer-pool-size=64M --innodb-log-file-size=8M"
    " --innodb-flush-log-at-trx-commit=0 --innodb-flush-method=nosync --innodb-doublewrite=0 --skip-log-bin"
).split()
NAMESPACES = "unshare --mount --propagation private --pid --fork --kill-child --mount-proc --uts".split()

Job = dict[str, str]


class ClusterFailed(AssertionError):
    """The cluster didn't come up, a command failed, or what was waited for didn't come."""


def missing_packages() -> list[str]:
    """The Debian packages that a cluster needs and this machine lacks."""
    return [package for binary, package in DEBIAN_PACKAGES.items() if not shutil.which(binary, path=PATH)]


def obstacle() -> str:
    """Why no cluster can be started here and, where there is one, the cure; empty when one can be started."""
    if missing := missing_packages():
        return f"no SLURM; `apt-get install --no-install-recommends {' '.join(missing)}` installs it"
    if os.geteuid() != 0:
        return "SLURM's daemons need root"
    trial = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True)
    return f"SLURM's nodes need namespaces of their own: {trial.stderr.strip()}" if trial.returncode else ""


@dataclass
class Cluster:
    """A running cluster; `Cluster.started` makes one.

    Partitions: `main` (default; its jobs get their signal, 15 s, and are requeued when preempted) and `high`
    (preempts). Nodes n1…: 4 CPUs, 32 GB and `gpus` GPUs of type `fake` each. Jobs run as root. A requeued job
    starts again 6 to 8 s later.
    """

    folder: Path
    nodes: Sequence[str]
    environment: dict[str, str]
    """os.environ and SLURM_CONF: what a command needs in order to mean this cluster."""
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, nodes: int = 4, gpus: int = 2, accounting: bool = True
    ) -> Iterator["Cluster"]:
        """A cluster in `folder` (a new one), stopped at the end together with every process of its jobs.

        To be started in a thread that lives on: the daemons end when the thread that started them ends.
        """
        folder = folder.resolve()
        if len(str(folder)) > LONGEST_FOLDER:
            raise ClusterFailed(f"{folder}: name a folder of at most {LONGEST_FOLDER} characters")
        folder.mkdir(parents=True)
        folder.chmod(0o755)  # munged refuses to put its socket where others may write
        names = [f"n{number}" for number in range(1, nodes + 1)]
        daemons = ["slurmctld", "slurmdbd", *names]
        ports = dict(zip(daemons, free_ports(len(daemons)), strict=True))
        Layout(folder, names, gpus, accounting, ports).write()
        outside = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))
        }
        cluster = cls(folder, names, outside | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH})
        try:
            cluster._start(accounting)
            yield cluster
        finally:
            cluster._stop()

    def call(self, *command: str) -> str:
        """What a client command such as `squeue -h` prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise ClusterFailed(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def submit(self, script: str, *options: str) -> str:
        """The id of the job or array that runs a bash script, given sbatch's options."""
        path = self.folder / f"{time.time_ns()}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        output = f"--output={self.folder}/%x-%j.out"
        return self.call("sbatch", "--parsable", output, "--open-mode=append", *options, str(path)).strip()

    def jobs(self, *ids: str) -> list[Job]:
        """squeue's rows, one per job and array task, finished ones too; keys are `JOB_COLUMNS`."""
        columns = ",".join(f"{column}:100|" for column in JOB_COLUMNS)
        rows = self.call("squeue", "--noheader", "--array", "--states=all", f"--Format={columns}")
        jobs = [
            dict(zip(JOB_COLUMNS, (cell.strip() for cell in row.split("|")), strict=False))
            for row in rows.splitlines()
        ]
        return [job for job in jobs if not ids or job["ArrayJobID"] in ids]

    def wait(self, predicate: Callable[[list[Job]], object], seconds: float, what: str) -> list[Job]:
        """The jobs as soon as `predicate` holds of them; fails, naming `what`, if it doesn't in `seconds`."""
        deadline = time.monotonic() + seconds
        while not predicate(jobs := self.jobs()):
            if time.monotonic() > deadline:
                table = "\n".join(str(job) for job in jobs)
                raise ClusterFailed(f"not within {seconds} s: {what}\n{table}\n{self._tail('slurmctld')}")
            time.sleep(0.3)
        return jobs

    def final_states(self, job: str, seconds: float = 60) -> list[str]:
        """What the accounting says became of a job or an array's task; it is told a while after the job's
        end."""
        deadline = time.monotonic() + seconds
        while True:
            rows = self.call("sacct", "-nXP", "-o", "State", "-j", job).splitlines()
            states = [row.split()[0] for row in rows]  # "CANCELLED by 0"
            if states and not {"PENDING", "RUNNING", "COMPLETING"} & set(states):
                return states
            if time.monotonic() > deadline:
                raise ClusterFailed(f"sacct says {states} of {job} after {seconds} s\n{self.overview()}")
            time.sleep(0.5)

    def overview(self) -> str:
        """Nodes, and when every job began and ended and where, for a failing test."""
        nodes = self.call("sinfo", "--Node", "--format=%N %T %E")
        columns = "JobID,JobName%40,State%20,Submit,Start,End,NodeList"
        return nodes + self.call("sacct", "--allocations", f"--format={columns}")

    def node_down(self, node: str) -> None:
        """Tell SLURM that a node is down: its jobs are requeued, or end; their processes get SIGTERM, and
        SIGKILL 5 s later."""
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=set by a test")

    def power_off(self, node: str) -> None:
        """Let a node fail: all that runs there is gone at once, and SLURM is told that it is down (by itself
        it would notice a minute later)."""
        self._end(node)
        self.node_down(node)

    def node_up(self, node: str) -> None:
        """Bring a node back that is down; returns when it takes jobs."""
        self._boot(node)

    def hide(self, node: str, folder: Path) -> None:
        """Let `folder` be empty on one node, as if it were not shared. The node is restarted for it."""
        if self.folder.is_relative_to(folder.resolve()):
            raise ClusterFailed(f"{folder} holds the cluster itself and can't be hidden")
        self.power_off(node)
        self._boot(node, hidden=str(folder.resolve()))

    def unhide(self, node: str) -> None:
        """Undo `hide`; the node is restarted for it."""
        self.power_off(node)
        self._boot(node)

    def _start(self, accounting: bool) -> None:
        folder = self.folder
        self._spawn(
            "munged",
            *("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={folder}/munge.key"),
            *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"),
        )
        if accounting:
            self._start_database()
        self._await("munged", (folder / "munge.socket").is_socket)
        if accounting:
            self._spawn("slurmdbd", "slurmdbd", "-D", MYSQL_UNIX_PORT=f"{folder}/sql.socket")
            self._await("slurmdbd", lambda: self._answers("sacctmgr", "--noheader", "show", "cluster"))
            self.call("sacctmgr", "--immediate", "add", "cluster", "lab")
        self._spawn("slurmctld", "slurmctld", "-D", "-i")
        for node in self.nodes:
            self._spawn_node(node)
        for node in self.nodes:
            self._await(node, lambda node=node: self._takes_jobs(node))

    def _start_database(self) -> None:
        # A temporary folder of its own: in a shared one, a server that starts deletes the tables of others.
        temporary = self.folder / "sql-tmp"
        temporary.mkdir(exist_ok=True)
        storage = [*MARIADBD, f"--datadir={self.folder}/sql", f"--tmpdir={temporary}"]
        created = subprocess.run(
            [*storage, "--bootstrap"],
            input=database_script(),
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if created.returncode:
            raise ClusterFailed(f"{' '.join(storage)} --bootstrap: {created.stderr[-2000:]}")
        socket = self.folder / "sql.socket"
        self._spawn("mariadbd", *storage, "--skip-networking", f"--socket={socket}")
        self._await("mariadbd", socket.is_socket)

    def _spawn_node(self, node: str, hidden: str = "") -> None:
        self._spawn(node, *NAMESPACES, "bash", str(self.folder / "slurmd.sh"), node, hidden)

    def _boot(self, node: str, hidden: str = "") -> None:
        if node not in self._daemons:
            self._spawn_node(node, hidden)
            output = self.folder / f"{node}.out"
            self._await(node, lambda: "slurmd started" in output.read_text())
        self.call("scontrol", "update", f"nodename={node}", "state=resume")
        self._await(node, lambda: self._takes_jobs(node))

    def _takes_jobs(self, node: str) -> bool:
        command = ("sinfo", "--noheader", "--partition=main", "--format=%T", f"--nodes={node}")
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        return done.stdout.strip() in {"idle", "mixed", "allocated"}

    def _answers(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True).returncode == 0

    def _spawn(self, name: str, *command: str, **environment: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environment | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the tests; their daemons end with them
                preexec_fn=die_with(os.getpid()),
            )

    def _await(self, name: str, ready: Callable[[], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            ended = self._daemons[name].poll()
            if ended is not None or time.monotonic() > deadline:
                cause = f"ended with {ended}" if ended is not None else f"not ready within {seconds} s"
                raise ClusterFailed(f"{name} {cause}\n{self._tail(name)}")
            time.sleep(0.05)

    def _tail(self, daemon: str, lines: int = 30) -> str:
        """The last lines that a daemon printed; they are in its log file too, if it has one."""
        output = self.folder / f"{daemon}.out"
        return "\n".join([f"{output}:", *output.read_text(errors="replace").splitlines()[-lines:]])

    def _end(self, *names: str) -> None:
        """Kill daemons, and with a node's all that runs there; returns when every one of them is gone."""
        ended = {name: self._daemons.pop(name) for name in names}
        for name, daemon in ended.items():
            # The kernel ends a namespace with its first process, which is the child of a node's `unshare`.
            children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children")
            first = children.read_text().split() if name in self.nodes and daemon.poll() is None else []
            for child in first:
                os.kill(int(child), signal.SIGKILL)
            if not first:
                daemon.kill()
        for daemon in ended.values():
            daemon.wait(timeout=10)

    def _stop(self) -> None:
        """Everything is killed: nobody reads what the daemons would save in a proper end."""
        self._end(*self._daemons)
        shutil.rmtree(self.folder / "sql")  # 100 MB; logs and configuration stay
