"""A run's directory: its frozen configuration, its lock, its status and its stages.

How a run uses it:

    directory = RunDirectory.open(path, config)      # refuses a directory of another configuration
    with directory.locked():                         # refuses while another process works on it
        logs = directory.begin_attempt()             # logs/attempt_N
        stage = directory.stage("train")
        if not stage.is_done(input_hash):
            note = stage.begin(input_hash)
            directory.update_status(stage="train", step=0, steps=40)
            ...                                      # files into stage.path
            stage.finish([stage.path / "policy"])
        directory.update_status(state="done")
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf_eval.errors import ConfigError, DataError, StageError
from rlhf_eval.files import read_json, sha256_json, write_json, write_text
from rlhf_eval.runs.stage_folder import StageFolder

PENDING: dict[str, Any] = {
    "state": "pending",
    "stage": None,
    "attempt": 0,
    "stage_attempt": 0,
    "step": 0,
    "steps": 0,
    "error": None,
    "host": None,
    "pid": None,
    "started_at": None,
    "updated_at": None,
}
"""The status of a run that nobody has worked on. A run some of whose stages are done reads `pending` too, and
`stage` is the next."""

LOCK_PATIENCE_SECONDS = 1.0
"""A reader of `is_working` holds the lock for an instant; who wants to work waits that long for it."""


class RunBusyError(StageError):
    """Another process works on the run."""


@dataclass(frozen=True)
class RunDirectory:
    """One run's directory. Make or check one for a configuration with `open`."""

    path: Path

    @classmethod
    def open(cls, path: Path, config: Any) -> "RunDirectory":
        """The directory of the run that `config` describes, made if it is not there.

        Args:
            config: a `RunConfig`.

        Raises:
            ConfigError: the directory belongs to a run with another fingerprint.
        """
        from rlhf_eval.config.compose import freeze

        directory = cls(path)
        if directory.config_file.exists():
            directory._refuse_another(config)
        else:
            write_text(directory.config_file, freeze(config))
        if not directory.status_file.exists():
            write_json(directory.status_file, PENDING)
        return directory

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def status_file(self) -> Path:
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    def stage(self, name: str) -> StageFolder:
        """The folder of one stage."""
        return StageFolder(self.path / "stages" / name)

    @contextmanager
    def locked(self, patience: float = LOCK_PATIENCE_SECONDS) -> Iterator[None]:
        """Hold the run for this process; the kernel lets go when the process ends, however it ends.

        Args:
            patience: seconds to wait for another process that holds it.

        Raises:
            RunBusyError: another process holds it; the message names its process id and host.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+", encoding="utf-8") as lock:
            deadline = time.monotonic() + patience
            while not _take(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise RunBusyError(
                        f"{self.path} is being worked on by {_holder(lock)}.",
                        "Wait for it, or end that process and start again.",
                    )
                time.sleep(0.05)
            lock.truncate(0)
            lock.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            lock.flush()
            yield

    def is_working(self) -> bool:
        """Whether some process holds the run."""
        try:
            with (self.path / "lock").open("r", encoding="utf-8") as lock:
                return not _take(lock, fcntl.LOCK_SH)
        except FileNotFoundError:
            return False

    def begin_attempt(self) -> Path:
        """Count a new attempt, make its `logs/attempt_N` and set the status to running by this process."""
        logs = self.path / "logs"
        attempt = 1 + max((int(old.name.split("_")[1]) for old in logs.glob("attempt_*")), default=0)
        folder = logs / f"attempt_{attempt}"
        folder.mkdir(parents=True)
        self.update_status(
            state="running",
            attempt=attempt,
            error=None,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=now(),
        )
        return folder

    def status(self) -> dict[str, Any]:
        """What status.json says; a run of which it says running although no process holds it reads
        `interrupted`."""
        status = self._recorded()
        if status["state"] == "running" and not self.is_working():
            status["state"] = "interrupted"
        return status

    def update_status(self, **changes: Any) -> None:
        """Replace fields of status.json (those of `PENDING`), atomically. Who calls it holds the lock.

        Raises:
            StageError: the run's directory was deleted meanwhile.
        """
        if unknown := changes.keys() - PENDING.keys():
            raise TypeError(f"no fields of a status: {sorted(unknown)}")
        deleted = StageError(
            f"{self.path} was deleted or moved away while its run was executing.",
            "Give the command again to start the run anew; stop a run before its directory is moved.",
        )
        if not self.config_file.exists():
            raise deleted
        try:
            write_json(self.status_file, self._recorded() | changes | {"updated_at": now()})
        except (FileNotFoundError, FileExistsError) as error:  # it is being deleted at this moment
            raise deleted from error

    def _recorded(self) -> dict[str, Any]:
        """What status.json says, or that nothing was done where it is missing or damaged."""
        try:
            return PENDING | read_json(self.status_file)
        except DataError:
            return dict(PENDING)

    def fail(self, error: str) -> None:
        """Set the status to failed with its cause.

        Raises:
            StageError: the run's directory was deleted meanwhile, which is the cause then.
        """
        self.update_status(state="failed", error=error)

    def _refuse_another(self, config: Any) -> None:
        from rlhf_eval.config.compose import load
        from rlhf_eval.config.plain import fingerprint, flat

        theirs, ours = fingerprint(load(self.config_file)), fingerprint(config)
        if theirs == ours:
            return
        there, here = flat(theirs), flat(ours)
        differing = [
            f"{name}: {there.get(name, 'absent')} there, {here.get(name, 'absent')} asked for"
            for name in dict.fromkeys([*there, *here])
            if there.get(name, "absent") != here.get(name, "absent")
        ]
        raise ConfigError(
            f"{self.path} belongs to another configuration ({sha256_json(theirs)[:8]} there, "
            f"{sha256_json(ours)[:8]} asked for). They differ in " + "; ".join(differing) + ".",
            "Leave out --run-dir or name another folder, go back to those values, or move the folder away.",
        )


def run_directories(experiment: Path) -> list[RunDirectory]:
    """The runs of an experiment folder, by name.

    Raises:
        DataError: there is no such folder.
    """
    if not experiment.is_dir():
        raise DataError(
            f"There is no experiment folder {experiment}.", "`rlhf-eval ls` lists those that exist."
        )
    return [RunDirectory(file.parent) for file in sorted(experiment.glob("*/config.yaml"))]


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _take(lock: Any, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(lock: Any) -> str:
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError):
        return "another process"
