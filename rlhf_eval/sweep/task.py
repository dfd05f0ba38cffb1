"""What a job of a sweep does with one run: `rlhf-eval run --frozen RUN_DIRECTORY`."""

import os
import re
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rlhf_eval.config.compose import changed, hash8, load
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, JudgeError, StageError
from rlhf_eval.interruption import Interrupted
from rlhf_eval.progress import Progress
from rlhf_eval.runs.directory import LOCK_PATIENCE_SECONDS, RunBusyError, RunDirectory
from rlhf_eval.runs.stages import execute
from rlhf_eval.sweep.judge_server import FAILED

HASH8 = re.compile("--([0-9a-f]{8})$")
"""What `run_name` ends with."""
PATIENCE_SECONDS = 120.0
"""A node that SLURM gave up may live on, and its process hold the run, when the next attempt begins."""
LOOK_SECONDS = 2.0
"""Between two looks for an address."""


def frozen(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a run's directory.

    Args:
        overrides: of fields that change no results, such as an address.

    Raises:
        ConfigError: it is absent, was edited, belongs to a directory of another name, or an override would
            change results.
    """
    config = load(path / "config.yaml")
    named = HASH8.search(path.name)
    if named and named[1] != hash8(config):
        raise ConfigError(
            f"{path}/config.yaml is not the configuration that the directory is named by: its hash is "
            f"{hash8(config)}.",
            "Restore the file or the directory's name, or start another run with `rlhf-eval run`.",
        )
    own = changed(config, overrides)
    if fingerprint(own) != fingerprint(config):
        raise ConfigError(
            f"{', '.join(overrides)} would change what comes out of {path}.",
            "Only fields that change no results can be given with --frozen.",
        )
    return own


def execute_frozen(
    path: Path,
    stages: Collection[str] | None,
    overrides: Sequence[str],
    addresses: Mapping[str, Path],
    max_attempts: int | None,
    progress: Progress,
) -> None:
    """Execute what is missing of a run, as its directory says.

    Args:
        stages: names of those to execute; None is all.
        addresses: fields whose values stand in files (`judge.base_url`), which are waited for.
        max_attempts: give up where SLURM starts the job more often.

    Raises:
        Interrupted: a signal came, another process still holds the run, or a server has moved meanwhile: to
            be given again.
        RlhfEvalError: as `execute`, and where it gives up.
    """
    config = frozen(path, overrides)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if max_attempts is not None and restarts >= max_attempts:
        error = StageError(
            f"Given up: {restarts} attempts of SLURM's job were interrupted, and cluster.max_attempts is "
            f"{max_attempts}.",
            "See its logs for what interrupts it, then `rlhf-eval sweep --resume` with more time or another "
            "partition.",
        )
        directory = RunDirectory(path)
        with directory.locked(PATIENCE_SECONDS):
            directory.fail(str(error))
        raise error
    found = {field: _awaited(file) for field, file in addresses.items()}
    config = frozen(path, [*overrides, *(f"{field}={address}" for field, address in found.items())])
    patience = PATIENCE_SECONDS if "SLURM_JOB_ID" in os.environ else LOCK_PATIENCE_SECONDS
    try:
        execute(config, path, progress, stages, patience)
    except RunBusyError as error:
        if "SLURM_JOB_ID" in os.environ:
            raise Interrupted(str(error)) from error
        raise
    except JudgeError as error:
        if any(_read(addresses[f]) != address or not _answers(address) for f, address in found.items()):
            raise Interrupted(f"The judge's server is gone: {error}") from error
        raise


def _awaited(file: Path) -> str:
    """What the file holds, as soon as it holds something; JudgeError if that is why there is no server."""
    while not (text := _read(file)):
        time.sleep(LOOK_SECONDS)
    if text.startswith(FAILED):
        raise JudgeError(
            f"The sweep's judge could not be served: {text.removeprefix(FAILED).strip()}",
            f"See the log of its job in {file.parent}/logs, mend it, and `rlhf-eval sweep --resume`.",
        )
    return text


def _answers(address: str) -> bool:
    """Whether somebody listens there."""
    parts = urlsplit(address)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        with socket.create_connection((parts.hostname or "", port), LOOK_SECONDS):
            return True
    except OSError:
        return False


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""
