"""Figures of sweeps: submitting 200 runs, `status` and a no-op `sweep --resume` over 1,000 run directories.

    python bench/sweep.py

On a real private SLURM (tests/slurm/cluster.py) where one can be started. The run directories are real ones:
two small lab runs, executed once, whose folders are copied under the names of 1,000 configurations.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
SMALL = [
    "experiment=lab",
    *"lab.policy_steps=80 lab.clean_pairs=128 lab.noisy_pairs=64 lab.small_pairs=32".split(),
    *"lab.reward_model_steps=8 lab.benchmark_pairs=32 lab.evaluation_prompts=24".split(),
    *"algorithm.steps=6 algorithm.prompts_per_step=2 algorithm.group_size=4".split(),
    *"algorithm.completions_per_device_batch=8 algorithm.checkpoint_every=2".split(),
    *"algorithm.normaliser_prompts=8 prompts.held_out_limit=4 prompts.held_out_samples=2".split(),
    "generation.batch_size=8",
]
RUNS = 1000
ELEVEN = (
    "lab_clean,lab_clean_small,lab_noisy,lab_length_biased,lab_contaminated,random,length_only,lab_flipped,"
    "untrained,constant,lab_gold"
)
CALLS = ("sbatch", "squeue", "sacct", "scontrol", "scancel")


def main() -> None:
    from tests.slurm.cluster import Cluster, obstacle

    if reason := obstacle():
        print(f"no SLURM can be started here: {reason}")
        return
    with tempfile.TemporaryDirectory(prefix="sweep-") as name:
        folder = Path(name)
        with Cluster.started(folder / "c") as cluster:
            environment = counting(folder, cluster.environment)
            rows = [*submission(folder, environment), *overview(folder, environment)]
    width = max(len(row[0]) for row in rows)
    print(f"{'':{width}}  measured   limit  calls of SLURM")
    for label, seconds, limit, calls in rows:
        print(f"{label:{width}}  {seconds:6.2f} s  {limit:4.0f} s  {calls}")


def submission(folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, float, float, str]]:
    """Composing, freezing and submitting, from the command line as a user gives it."""
    for models, seeds in (("lab_clean,lab_noisy,random,length_only", 50), (ELEVEN, 20)):
        count = len(models.split(",")) * seeds
        words = ["sweep", "experiment=lab", f"reward_model={models}", f"seed=range(0,{seeds})", "cluster=lab"]
        held = [f"cluster.jobs.{kind}.options=[--hold]" for kind in ("shared", "train", "generate", "judge")]
        name = f"submit{count}-{len(models.split(','))}"
        seconds, calls = timed([*words, *held, "--experiment", name, "--json"], folder, environment)
        yield f"submit {count} runs ({models.count(',') + 1} reward models)", seconds, 30, calls
        seconds, calls = timed(["status", f"runs/{name}", "--json"], folder, environment)
        yield f"status of these {count} in the queue", seconds, 2, calls
        subprocess.run(
            rlhf_eval("cancel", f"runs/{name}"), cwd=folder, env=environment, check=True, capture_output=True
        )


def overview(folder: Path, environment: dict[str, str]) -> Iterator[tuple[str, float, float, str]]:
    """`status` and `sweep --resume` over 1,000 finished runs."""
    experiment = many_runs(folder)
    seconds, calls = timed(["status", str(experiment), "--json"], folder, environment)
    yield f"status of {RUNS} run directories", seconds, 2, calls
    seconds, calls = timed(
        ["sweep", "--resume", str(experiment), "cluster=lab", "--json"], folder, environment
    )
    yield f"sweep --resume of {RUNS} finished runs", seconds, 5, calls


def many_runs(folder: Path) -> Path:
    """An experiment of 1,000 finished runs, copies of two under other seeds."""
    from rlhf_eval.config.compose import compose, freeze, run_name
    from rlhf_eval.files import write_text

    experiment = folder / "runs" / "many"
    for model in ("lab_clean", "random"):
        words = [*SMALL, f"reward_model={model}", "--experiment", "many"]
        subprocess.run(rlhf_eval("run", *words), cwd=folder, check=True, capture_output=True)
    config = {model: compose([*SMALL, f"reward_model={model}"]) for model in ("lab_clean", "random")}
    originals = {model: experiment / run_name(c) for model, c in config.items()}
    for seed in range(1, RUNS // 2):
        for model, path in originals.items():
            own = replace(config[model], seed=seed, experiment="many")
            copy = experiment / run_name(own)
            shutil.copytree(path, copy)
            write_text(copy / "config.yaml", freeze(own))
            rehash(folder, copy, own)
    return experiment.relative_to(folder)


def rehash(folder: Path, copy: Path, config: Any) -> None:
    """Give the stages of a copy the input hashes of its own seed, so that they are done."""
    from rlhf_eval.config.plain import fingerprint
    from rlhf_eval.lab.build import world_path
    from rlhf_eval.runs.directory import RunDirectory
    from rlhf_eval.runs.stage_inputs import input_hash
    from rlhf_eval.runs.stages import STAGES
    from rlhf_eval.sources import local_hashes

    here = Path.cwd()
    os.chdir(folder)
    try:
        chosen, outputs = fingerprint(config), {}
        files = local_hashes(chosen, world_path(config.lab))
        for name, _ in STAGES:
            stage = RunDirectory(copy).stage(name)
            wanted = input_hash(name, chosen, files, outputs)
            done = json.loads((stage.path / "done.json").read_text())
            (stage.path / "done.json").write_text(json.dumps(done | {"input_hash": wanted}))
            outputs[name] = stage.output_hash
    finally:
        os.chdir(here)


def timed(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[float, str]:
    """Seconds of a command, start of Python included, and its calls of SLURM."""
    log = Path(environment["CALLS_LOG"])
    log.write_text("")
    began = time.perf_counter()
    done = subprocess.run(rlhf_eval(*words), cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    made = log.read_text().split()
    return seconds, ", ".join(f"{made.count(name)} {name}" for name in CALLS if name in made) or "none"


def counting(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment in which every call of SLURM is written down."""
    tools = folder / "tools"
    tools.mkdir()
    for name in CALLS:
        real = shutil.which(name, path=environment["PATH"])
        (tools / name).write_text(f'#!/bin/sh\necho {name} >> "$CALLS_LOG"\nexec {real} "$@"\n')
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{environment['PATH']}"
    return environment | {"PATH": path, "CALLS_LOG": str(folder / "calls")}


def rlhf_eval(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlhf_eval", *words]


if __name__ == "__main__":
    main()
