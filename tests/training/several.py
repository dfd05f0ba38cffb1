"""Several trainings one after the other in the same processes, for what starting them would cost.

`accelerate launch … several.py JOBS` trains the jobs in the file, a list of dictionaries with a configuration
and a run directory. Where a job names a folder `killed`, the run's folder is copied there after the last step
and before its checkpoint: what a kill of all processes at that moment leaves on the disk. Every process
writes the token ids of its rollouts to `rollouts-<process>.jsonl` in the run directory.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.compose import freeze, load
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import append_jsonl, write_json
from rlhf_eval.training import launch, node, rollouts
from rlhf_eval.training.reward_function import RewardFunction


@dataclass(frozen=True)
class Job:
    """What is trained, in which run directory, and where the copy goes.

    Attributes:
        stale: whether vLLM is given the first weights again and again, as if transfers failed.
    """

    config: RunConfig
    run: Path
    killed: Path | None = None
    stale: bool = False


def train_all(
    jobs: Sequence[Job], folder: Path, interpreter: str = sys.executable, **environment: str
) -> None:
    """Train every job, all of one `accelerate` setting, in one start of its processes.

    Args:
        folder: takes what the launcher reads, and the log.
        interpreter: of the environment that trains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = jobs[0].config
    launch._write_files(first, folder, folder / "metrics.jsonl")
    listed = []
    for number, job in enumerate(jobs):
        (folder / f"{number}.yaml").write_text(freeze(job.config))
        place = {"config": str(folder / f"{number}.yaml"), "run": str(job.run), "stale": job.stale}
        listed.append(place | {"killed": job.killed and str(job.killed)})
    (folder / "jobs.json").write_text(json.dumps(listed))
    port = json.loads((folder / "launch.json").read_text())["address"].rpartition(":")[2]
    command = [
        interpreter,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(folder / "accelerate.yaml"),
    ]
    command += ["--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    command += [__file__, str(folder / "jobs.json")]
    known = os.environ | node._environment(first.accelerate, first.threads) | environment
    known["PYTHONPATH"] = os.pathsep.join(
        [path for path in (environment.get("PYTHONPATH"), str(Path(__file__).parents[2])) if path]
    )
    with (folder / "log").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=known, timeout=900).returncode
    said = (folder / "log").read_text()
    assert code == 0, "\n".join(line for line in said.splitlines() if "Error" in line)[-2000:] + said[-3000:]


def main() -> int:
    """Train in this process and its peers."""
    import torch
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from rlhf_eval.training.train import train

    for job in json.loads(Path(sys.argv[1]).read_text()):
        config, run = load(Path(job["config"])), Path(job["run"])
        torch.set_num_threads(config.threads)
        (run / "stages" / "train").mkdir(parents=True, exist_ok=True)

        def advance(step: int, steps: int, _: str, job: dict[str, Any] = job) -> None:
            if step == steps and job["killed"]:
                shutil.copytree(job["run"], job["killed"])

        with pytest.MonkeyPatch.context() as patch:
            _record_rollouts(patch, run)
            if job["stale"]:
                _never_transfer(patch)
            train(config, run / "stages" / "train", run / "metrics.jsonl", advance)
            write_json(run / f"patience-{os.environ['RANK']}.json", _patience())
        # The next training begins as in a process of its own: reward models are loaded whole.
        unset_hf_deepspeed_config()
        gc.collect()
    return 0


def _patience() -> float:
    """Seconds after which this process gives up waiting for the others in an exchange of tensors."""
    import torch
    from torch.distributed.distributed_c10d import _get_default_group

    backend = _get_default_group()._get_backend(torch.device("cpu"))
    return backend.options._timeout.total_seconds()


def _record_rollouts(patch: pytest.MonkeyPatch, run: Path) -> None:
    score = RewardFunction.__call__
    file = run / f"rollouts-{os.environ['RANK']}.jsonl"

    def scoring(reward: RewardFunction, prompts: Any, completions: Any, **named: Any) -> Any:
        append_jsonl(file, {"completions": named["completion_ids"]})
        return score(reward, prompts, completions, **named)

    patch.setattr(RewardFunction, "__call__", scoring)


def _never_transfer(patch: pytest.MonkeyPatch) -> None:
    given: list[tuple[str, Any]] = []
    now = rollouts.whole_weights

    def stale(*words: Any) -> Any:
        if not given:
            given.extend((name, value.clone()) for name, value in now(*words))
        return iter(given)

    patch.setattr(rollouts, "whole_weights", stale)


if __name__ == "__main__":
    from rlhf_eval.training.worker import leave

    leave(main())
