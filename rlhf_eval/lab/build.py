"""Building a lab world, once per configuration: prompts, policy, preference pairs, reward models, benchmarks.

Each part is built in a folder of its own that is renamed when it is complete, so a killed build continues
with the next missing part. The world's folder is named by a hash of its configuration and of the lab's code,
so a world is never stale.
"""

import shutil
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import LabConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import holding, sha256_json, sha256_known
from rlhf_eval.lab.preferences import REWARD_MODELS
from rlhf_eval.processes import become_child, fork_context
from rlhf_eval.progress import Progress

BuildPart = Callable[[LabConfig, Path, Path], None]


def world_path(lab: LabConfig) -> Path:
    """Where the world of a configuration stands, built or not."""
    here = Path(__file__).parent
    code = {
        file.name: sha256_known(file) for file in sorted(here.glob("*.py")) if file.name != "judge_server.py"
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
    if is_built(lab):
        return world
    with holding(world / "lock"):
        _build(lab, world, jobs, progress)
    return world


def is_built(lab: LabConfig) -> bool:
    """Whether the world of a configuration is complete."""
    world = world_path(lab)
    return all((world / "reward_models" / name).exists() for name in REWARD_MODELS)


def _build(lab: LabConfig, world: Path, jobs: int, progress: Progress) -> None:
    from rlhf_eval.lab import policy, preferences

    # Each layer needs the one before; the longest part of a layer is first.
    layers: list[list[tuple[str, BuildPart]]] = [
        [("policy", policy.build)],
        [("data", preferences.build)],
        [(f"reward_models/{name}", preferences.train_reward_model) for name in REWARD_MODELS],
    ]
    total = sum(map(len, layers))
    progress.stage("lab", "running")
    done = 0
    for layer in layers:
        waiting = [(name, build) for name, build in layer if not (world / name).exists()]
        done += len(layer) - len(waiting)
        for under_way, finished in _side_by_side(lab, world, waiting, jobs):
            progress.advance(done + finished, total, ", ".join(under_way))
        done += len(waiting)
    progress.stage("lab", "done")


def _side_by_side(
    lab: LabConfig, world: Path, waiting: list[tuple[str, BuildPart]], jobs: int
) -> Iterator[tuple[list[str], int]]:
    """Build parts, `jobs` at a time; yields the names under way and the number finished, at every change."""
    context = fork_context()
    workers: dict[str, Any] = {}
    finished = 0
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                name, build = waiting.pop(0)
                workers[name] = context.Process(target=_part, args=(lab, world, name, build))
                workers[name].start()
            yield list(workers), finished
            wait([process.sentinel for process in workers.values()])
            for name in [name for name, process in workers.items() if process.exitcode is not None]:
                if workers.pop(name).exitcode != 0:
                    raise StageError(
                        f"The lab's {name} could not be built (see {_log(world, name)}).",
                        "Mend the cause and run the same command again; finished parts are kept.",
                    )
                finished += 1
    finally:
        for process in workers.values():
            process.kill()
            process.join()


def _log(world: Path, name: str) -> Path:
    return world / "logs" / f"{name.replace('/', '-')}.log"


def _part(lab: LabConfig, world: Path, name: str, build: BuildPart) -> None:
    become_child(_log(world, name))
    temporary = world / f"{name}.building"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    build(lab, world, temporary)
    temporary.rename(world / name)
