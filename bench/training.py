"""What our training adds to a step of TRL's, and what a step costs by algorithm and launch mode.

    python bench/training.py [overhead | table]          default: both

Overhead: GRPO on the lab, ours beside a plain GRPOTrainer script with the same settings and the same reward
model called as a plain function, turn by turn, each in a process of its own with one thread. A step is the
time between two of TRL's log events; those in which a checkpoint is saved, and ours is measured, are left
out. Both see the same prompts and random numbers, so they train alike, which the rewards show.

Table: seconds and memory of a step of 128 completions; two processes of one thread each where not single.
Memory is the largest process's peak, libraries included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any

REPEATS, LIMIT = 3, 0.05
LAB = ("experiment=lab", "reward_model=lab_clean")
SHORT = (
    "algorithm.steps=8",
    "algorithm.checkpoint_every=8",
    "algorithm.completions_per_device_batch=32",
    "algorithm.normaliser_prompts=8",
    "prompts.held_out_limit=4",
)
ALGORITHMS, STRATEGIES = ("grpo", "rloo", "ppo"), ("single", "ddp", "zero2", "zero3")
WEIGHTS = {"full": (), "LoRA": ("algorithm.lora={rank: 16}",)}
PROCESSES = ("accelerate.processes=2", "accelerate.mixed_precision=no", "accelerate.device=cpu")
PARTS = ("generation", "scoring", "training", "idle")


def main() -> int:
    """Print the tables; 1 if the overhead is above the limit."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("overhead", "table"))
    parser.add_argument("--train", nargs="+", metavar=("WHO", "FOLDER"))
    options = parser.parse_args()
    if options.train:
        who, folder, *words = options.train
        return train(who, Path(folder), words)
    configuration(list(LAB))  # builds the world, if it is not there
    holds = options.what == "table" or overhead()
    if options.what != "overhead":
        table()
    return int(not holds)


def overhead() -> bool:
    """Print seconds of a step, ours and theirs by turns; whether the limit is kept."""
    seconds: dict[str, list[float]] = {"ours": [], "TRL": []}
    print(f"{'':8}{'median step, s':>16}{'mean step, s':>14}{'steps':>7}{'reward, last 10':>17}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        for repeat in range(REPEATS):
            for who in seconds:
                row = child(who, folder / str(repeat), LAB)
                seconds[who] += row["seconds"]
                show(f"{who} {repeat + 1}", row["seconds"], f"{mean(row['rewards'][-10:]):17.3f}")
    for who, values in seconds.items():
        show(f"{who}, all", values, "")
    ratios = [average(seconds["ours"]) / average(seconds["TRL"]) - 1 for average in (median, mean)]
    print(f"overhead: median {ratios[0]:+.1%}, mean {ratios[1]:+.1%}, limit {LIMIT:.0%}\n", flush=True)
    return max(ratios) <= LIMIT


def show(what: str, seconds: list[float], rest: str) -> None:
    print(f"{what:9}{median(seconds):15.3f}{mean(seconds):14.3f}{len(seconds):7}{rest}", flush=True)


def table() -> None:
    """Print what a step costs, by algorithm, weights and launch mode."""
    titles = "".join(f"{title:>11}" for title in ("step, s", *PARTS, "tokens/s", "peak MiB"))
    print(f"{'algorithm':10}{'weights':8}{'launch':8}{titles}")
    for algorithm in ALGORITHMS:
        for weights, lora in WEIGHTS.items():
            for strategy in STRATEGIES:
                several = () if strategy == "single" else PROCESSES
                words = (f"algorithm={algorithm}_lab", f"accelerate={strategy}", *several, *SHORT, *lora)
                with tempfile.TemporaryDirectory() as name:
                    row = child("ours", Path(name) / "run", (*LAB, *words))
                steps = row["steps"][1:]  # the first one warms up
                step = median(step["seconds"] for step in steps)
                parts = [median(step[f"{part}_seconds"] for step in steps) for part in PARTS]
                figures = "".join(f"{value:11.3f}" for value in (step, *parts))
                speed = sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)
                print(
                    f"{algorithm:10}{weights:8}{strategy:8}{figures}{speed:11.0f}{row['mib']:11.0f}",
                    flush=True,
                )


def child(who: str, folder: Path, words: tuple[str, ...]) -> dict[str, Any]:
    """Train in a process of its own, and what it says of its steps."""
    command = [sys.executable, __file__, "--train", who, str(folder), *words]
    alone = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone)
    if done.returncode:
        log = folder / "log"
        sys.exit(done.stderr[-3000:] + (log.read_text()[-3000:] if log.exists() else ""))
    return json.loads(done.stdout.splitlines()[-1])


def train(who: str, folder: Path, words: list[str]) -> int:
    """Train as `who` does, and print what the steps cost as JSON."""
    config = configuration(words)
    row = (ours if who == "ours" else hand_written)(config, folder)
    usage = max(
        resource.getrusage(which).ru_maxrss for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps(row | {"mib": usage / 1024}))
    return 0


def configuration(words: list[str]) -> Any:
    """A run's configuration with every path of the lab's world resolved."""
    from rlhf_eval.config.compose import compose
    from rlhf_eval.lab.build import ensure
    from rlhf_eval.progress import PlainProgress
    from rlhf_eval.sources import localise

    config = compose(words)
    assert config.lab is not None
    return localise(config, ensure(config.lab, 2, PlainProgress()))


def ours(config: Any, run: Path) -> dict[str, Any]:
    """Train as `rlhf-eval run` does."""
    from rlhf_eval.files import read_jsonl
    from rlhf_eval.training.launch import launch

    folder = run / "stages" / "train"
    folder.mkdir(parents=True)
    moments: list[float] = []
    launch(config, folder, run / "metrics.jsonl", run / "log", lambda *_: moments.append(time.perf_counter()))
    steps = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]
    rewards = [row["reward"] for row in steps]
    return {"seconds": between_checkpoints(config, moments), "rewards": rewards, "steps": steps}


def hand_written(config: Any, run: Path) -> dict[str, Any]:
    """Train by a script as a researcher writes it who has TRL and this reward model."""
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
        set_seed,
    )
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from rlhf_eval.records import as_json
    from rlhf_eval.training.prompts import in_training_order, load_prompts

    torch.set_num_threads(1)
    algorithm = config.algorithm
    tokenizer = AutoTokenizer.from_pretrained(config.policy.model, padding_side="left")
    judge: Any = AutoModelForSequenceClassification.from_pretrained(config.reward_model.model).eval()
    judge_tokenizer = AutoTokenizer.from_pretrained(config.reward_model.model, padding_side="right")
    # The constants that ours found before its training, in the turn before.
    normaliser = json.loads((run / "stages" / "train" / "reward_normaliser.json").read_text())

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float | None]:
        talks = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        texts = [judge_tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
        batch = judge_tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            scores = judge(**batch).logits[:, 0]
        return ((scores - normaliser["mean"]) / normaliser["standard_deviation"]).tolist()

    moments: list[float] = []
    rewards: list[float] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                moments.append(time.perf_counter())
                rewards.append(logs["reward"])

    usable = load_prompts(config.prompts.train)
    ordered = in_training_order(usable, algorithm.steps * algorithm.prompts_per_step, config.seed)
    set_seed(config.seed)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(config.policy.model, dtype=torch.float32),
        reward_funcs=reward,
        args=GRPOConfig(
            output_dir=str(run / "hand_written"),
            max_steps=algorithm.steps,
            per_device_train_batch_size=algorithm.completions_per_step,
            num_generations=algorithm.group_size,
            max_completion_length=algorithm.max_completion_tokens,
            temperature=algorithm.temperature,
            top_k=0,
            learning_rate=algorithm.learning_rate,
            lr_scheduler_type="constant",
            beta=algorithm.kl_coefficient,
            epsilon=algorithm.clip_range,
            max_grad_norm=algorithm.max_grad_norm,
            scale_rewards=algorithm.scale_rewards,
            loss_type=algorithm.loss_type,
            shuffle_dataset=False,
            save_steps=algorithm.checkpoint_every,
            save_total_limit=2,
            logging_steps=1,
            report_to="none",
            seed=config.seed,
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": as_json(prompt.messages)} for prompt in ordered]),
        processing_class=tokenizer,
        callbacks=[Watch()],
    )
    trainer.train()
    return {"seconds": between_checkpoints(config, moments), "rewards": rewards}


def between_checkpoints(config: Any, moments: list[float]) -> list[float]:
    """Seconds from one step's end to the next's, without those in which a checkpoint is saved.

    Args:
        moments: when each step ended; a checkpoint is saved after.
    """
    every = config.algorithm.checkpoint_every
    return [later - earlier for step, (earlier, later) in enumerate(pairwise(moments), 1) if step % every]


if __name__ == "__main__":
    sys.exit(main())
