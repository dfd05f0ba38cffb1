"""What a job of a sweep does with one run: `rlhf-eval run --frozen RUN_DIRECTORY`."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from rlhf_eval.config.compose import changed, hash8, load
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.interruption import Interrupted
from rlhf_eval.progress import Progress
from rlhf_eval.runs.directory import RunBusyError, RunDirectory
from rlhf_eval.runs.stages import execute

HASH8 = re.compile("--([0-9a-f]{8})$")
"""What `run_name` ends with."""
PATIENCE_SECONDS = 120.0
"""A node that SLURM gave up may live on, and its process hold the run, when the next attempt begins."""


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
    max_attempts: int | None,
    progress: Progress,
) -> None:
    """Execute what is missing of a run, as its directory says.

    Args:
        stages: names of those to execute; None is all.
        max_attempts: give up where SLURM starts the job more often.

    Raises:
        Interrupted: a signal came, or another process still holds the run: to be given again.
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
    try:
        execute(config, path, progress, stages, PATIENCE_SECONDS if "SLURM_JOB_ID" in os.environ else 1.0)
    except RunBusyError as error:
        if "SLURM_JOB_ID" in os.environ:
            raise Interrupted(str(error)) from error
        raise
