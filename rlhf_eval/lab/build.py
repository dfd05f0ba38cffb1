"""Building a lab world, once per configuration: prompts, policy, preference pairs, reward models, benchmarks.

Each part is built in a folder of its own that is renamed when it is complete, so a killed build continues
with the next missing part. The world's folder is named by a hash of its configuration and of the lab's code,
so a world is never stale.
"""

import fcntl
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_eval.config.compose import fingerprint
from rlhf_eval.config.schema import LabConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import sha256_file, sha256_json
from rlhf_eval.lab.preferences import REWARD_MODELS
from rlhf_eval.progress import Progress

PRELOAD = "rlhf_eval.sweep.preload"


def world_path(lab: LabConfig) -> Path:
    """Where the world of a configuration stands, built or not."""
    here = Path(__file__).parent
    code = {
        file.name: sha256_file(file) for file in sorted(here.glob("*.py")) if file.name != "judge_server.py"
    }
    key = sha256_json({"config": fingerprint(lab), "code": code})[:8]
    return Path(lab.cache) / f"world-s{lab.seed}-{key}"


def ensure(lab: LabConfig, jobs: int, progress: Progress) -> Path:
    """The world's folder, built if it is not there; a second process waits for the first.

    Args:
        jobs: reward models trained side by side.

    Raises:
        StageError: a part could not be built; its output is in `<world>/logs`.
    """
    world = world_path(lab)
    if (world / "reward_models" / REWARD_MODELS[-1]).exists() and _complete(world):
        return world
    world.mkdir(parents=True, exist_ok=True)
    with (world / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(lab, world, jobs, progress)
    return world


def _complete(world: Path) -> bool:
    return all((world / "reward_models" / name).exists() for name in REWARD_MODELS)


def _build(lab: LabConfig, world: Path, jobs: int, progress: Progress) -> None:
    from rlhf_eval.lab import policy, preferences

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    parts: list[list[tuple[str, Callable[[LabConfig, Path, Path], None]]]] = [
        [("policy", policy.build)],
        [("data", preferences.build)],
        [(f"reward_models/{name}", preferences.train_reward_model) for name in REWARD_MODELS],
    ]
    progress.stage("lab", "running")
    total, done = sum(map(len, parts)), 0
    for layer in parts:
        waiting = [(name, build) for name, build in layer if not (world / name).exists()]
        done += len(layer) - len(waiting)
        for start in range(0, len(waiting), jobs):
            group = waiting[start : start + jobs]
            progress.advance(done, total, ", ".join(name for name, _ in group))
            _side_by_side(lab, world, group)
            done += len(group)
    progress.advance(total, total)
    progress.stage("lab", "done")


def _side_by_side(lab: LabConfig, world: Path, group: list[tuple[str, Any]]) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    processes = [
        (name, context.Process(target=_part, args=(lab, world, name, build))) for name, build in group
    ]
    for _, process in processes:
        process.start()
    for _, process in processes:
        process.join()
    if failed := [name for name, process in processes if process.exitcode != 0]:
        raise StageError(
            f"The lab's {', '.join(failed)} could not be built (see {world / 'logs'}).",
            "Mend the cause and run the same command again; finished parts are kept.",
        )


def _part(lab: LabConfig, world: Path, name: str, build: Callable[[LabConfig, Path, Path], None]) -> None:
    log = world / "logs" / f"{name.replace('/', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    temporary = world / f"{name}.building"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    build(lab, world, temporary)
    temporary.rename(world / name)
