"""`rlhf-eval run -m`: many runs from one command line, by Hydra's own multirun and launchers.

    rlhf-eval run -m experiment=lab reward_model=lab_clean,lab_noisy seed=0,1     one after the other
    ... hydra/launcher=submitit_local                                             side by side on this machine
    ... hydra/launcher=submitit_slurm hydra.launcher.partition=main               as jobs of SLURM

The command waits for the last run, and each of Hydra's jobs composes its configuration anew when it starts;
`rlhf-eval sweep` does neither. What submitit writes (its pickles, what the jobs print) is in
`<experiment>/sweeps/submitit/`.
"""

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_eval.config.checks import in_experiment
from rlhf_eval.config.compose import compose, from_plain, run_path
from rlhf_eval.config.folders import conf_folder, groups, search_path
from rlhf_eval.config.grid import grid_point
from rlhf_eval.config.inputs import require_inputs
from rlhf_eval.config.overrides import checked_overrides, parse_override, values
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, RlhfEvalError, StageError
from rlhf_eval.interruption import Interrupted, listen
from rlhf_eval.progress import PlainProgress
from rlhf_eval.rewards.kinds import check_kinds
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.protocol import hold
from rlhf_eval.runs.stages import execute
from rlhf_eval.sweep.requeue import Requeue

if TYPE_CHECKING:
    from omegaconf import DictConfig

SUBMITIT = ("submitit_slurm", "submitit_local")

TIME_LIMITS_PER_RUN = 10
"""How often a job of SLURM that reaches its time limit is requeued; submitit's own default is never."""


def multirun(overrides: list[str], experiment: str | None = None) -> int:
    """Execute every point of overrides that may give several values; the exit code is 1 if one fails.

    All points are composed and checked, and their run directories made, before the first is started.

    Args:
        overrides: also Hydra's own, such as `hydra/launcher=submitit_slurm`.
        experiment: replaces the configurations' own.

    Raises:
        ConfigError: a point, or a launcher, that cannot work; nothing was started.
        StageError: the launcher could not start the jobs, or a job ended without a result.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    launcher = _launcher(overrides)
    known = {group: choices for group, choices in groups().items() if group != "cluster"}
    words = list(checked_overrides(overrides, known, RunConfig, sweep=True))
    runs = _runs(words, known, experiment, launcher)
    for path, config in runs.items():
        hold(path.parent, config)
    for path, config in runs.items():
        RunDirectory.open(path, config)
        print(f"run directory: {path}", flush=True)
    if launcher == "submitit_slurm" and not _accounts():
        print("sacct does not answer here: a job that dies without a word keeps this command waiting.")
    experiment_folder = next(iter(runs)).parent
    folder = experiment_folder / "sweeps" / "submitit" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    arguments = [*search_path(), *_settings(launcher, folder), *words]
    try:
        with initialize_config_dir(str(conf_folder().absolute()), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            task = RunTask(experiment, frozenset(map(str, runs)))
            batches = hydra.multirun("config", task, arguments, with_log_configuration=False)
    except HydraException as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"{what}.", "Mend the overrides; nothing was started.") from error
    except RuntimeError as error:  # submitit's
        raise StageError(
            f"{launcher}: {_in_short(error)}",
            f"Jobs that were submitted go on: `rlhf-eval status {experiment_folder}` shows their runs, and "
            f"{folder} has what they print. When they have ended, the same command does what is missing.",
        ) from error
    except KeyboardInterrupt:
        if launcher == "submitit_slurm":
            print(f"The jobs go on: `rlhf-eval status {experiment_folder}` shows them, `scancel` ends them.")
        raise
    return _report(list(runs), [job.return_value for batch in batches for job in batch])


@dataclass(frozen=True)
class RunTask:
    """What every job of Hydra's does with the configuration that it has composed: what `rlhf-eval run` does.

    Attributes:
        experiment: replaces the configuration's own.
        submitted: the run directories that were made at submission.
    """

    experiment: str | None
    submitted: frozenset[str]

    def __call__(self, composed: "DictConfig") -> str | None:
        """Execute the run. Returns what went wrong, None if nothing did.

        Raises:
            Interrupted: SIGTERM came, and this is no job of submitit's.
        """
        requeue = Requeue.take_over()
        listen()
        try:
            self._execute(composed)
        except Interrupted:
            if requeue is None:
                raise
            return requeue.carry_out()
        except RlhfEvalError as error:
            print(f"error: {error}", file=sys.stderr)
            return str(error)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error}\n  The traceback is where the job printed it."
        if requeue:  # the run is done: only its result is still to be handed over
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return None

    def _execute(self, composed: "DictConfig") -> None:
        from omegaconf import OmegaConf

        value = OmegaConf.to_container(composed, resolve=True)
        config = _checked(from_plain(value, "the configuration"), self.experiment)
        path = run_path(config)
        if str(path) not in self.submitted:
            raise ConfigError(
                f"This job has composed the configuration of {path}, which is none of the runs that were "
                "submitted: conf/ was edited between submission and start.",
                "Restore conf/, or give the command again for the runs as conf/ is now. Such edits do not "
                "reach the runs of `rlhf-eval sweep`.",
            )
        print(f"run directory: {path}", flush=True)
        os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
        execute(config, path, PlainProgress())


def _launcher(overrides: Sequence[str]) -> str:
    """Name of the launcher that the overrides choose; ConfigError if it cannot work here."""
    chosen = [parse_override(text) for text in overrides]
    names = [values(override)[-1] for override in chosen if override.key_or_group == "hydra/launcher"]
    launcher = names[-1] if names else "basic"
    if launcher in SUBMITIT:
        try:
            metadata.distribution("hydra-submitit-launcher")
        except metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"hydra/launcher={launcher} needs hydra-submitit-launcher, which is not installed.",
                "pip install 'rlhf-eval[slurm]'",
            ) from error
    if launcher == "submitit_slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ConfigError(
            "hydra/launcher=submitit_slurm needs SLURM: sbatch and srun are not on this machine's PATH.",
            "Give the command on a login node of the cluster, or take hydra/launcher=submitit_local.",
        )
    return launcher


def _accounts() -> bool:
    """Whether SLURM tells what became of jobs, which submitit asks for."""
    sacct = shutil.which("sacct")
    return sacct is not None and subprocess.run([sacct, "--jobs=1"], capture_output=True).returncode == 0


def _runs(
    words: Sequence[str], known: dict[str, list[str]], experiment: str | None, launcher: str
) -> dict[Path, RunConfig]:
    """Run directory → configuration of every point, in Hydra's order; ConfigError if one cannot be."""
    runs: dict[Path, RunConfig] = {}
    for point in _points(words, known):
        config = _checked(compose(point), experiment)
        require_inputs(config)
        path = run_path(config)
        if path in runs:
            raise ConfigError(
                f"Two points are the same run, {path}.",
                "Give several values only to what changes results, and each value once.",
            )
        if launcher in SUBMITIT and (machines := config.accelerate.machines) > 1:
            raise ConfigError(
                f"accelerate.machines={machines}: here a job of submitit's has one machine.",
                "Take `rlhf-eval sweep`.",
            )
        runs[path] = config
    return runs


def _points(words: Sequence[str], known: dict[str, list[str]]) -> Iterator[list[str]]:
    """The overrides of every point, as Hydra's basic sweeper forms them: the last changes fastest, and of an
    override that is given twice the second counts."""
    given: dict[str, list[str]] = {}
    for text in words:
        override = parse_override(text)
        key = override.get_key_element()
        several = override.is_sweep_override()
        choices = values(override, known.get(override.key_or_group, ())) if several else []
        given[key] = [f"{key}={choice}" for choice in choices] if several else [text]
    for point in product(*given.values()):
        yield list(point)


def _checked(config: RunConfig, experiment: str | None) -> RunConfig:
    """The configuration with its experiment replaced, after the checks that `compose` leaves to others."""
    check_kinds(config)
    grid_point(config)
    return in_experiment(config, experiment)


def _settings(launcher: str, folder: Path) -> list[str]:
    """Hydra's settings for a multirun whose files go to `folder`; the user's own stand after them and win."""
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    settings = [f'hydra.sweep.dir="{quoted}"', "hydra.sweep.subdir=."]
    if launcher in SUBMITIT:
        settings.append(f'hydra.launcher.submitit_folder="{quoted}/%j"')
    if launcher == "submitit_slurm":
        settings.append(f"hydra.launcher.max_num_timeout={TIME_LIMITS_PER_RUN}")
    return settings


def _in_short(error: Exception) -> str:
    """What submitit says of a job: its first words, and the last line of the job's log or traceback."""
    head, _, rest = str(error).partition("-----")
    log = rest.strip("-\n").partition("\n-----")[0].strip()
    return " ".join([*head.split(), *(log.splitlines()[-1].split() if log else [])])


def _report(paths: Sequence[Path], errors: Sequence[str | None]) -> int:
    """Say how the runs ended; the exit code."""
    failed = {path: error for path, error in zip(paths, errors, strict=True) if error is not None}
    print(f"{len(paths) - len(failed)} of {len(paths)} runs done")
    for path, error in failed.items():
        print(f"failed: {path}\n  {error}")
    return 1 if failed else 0
