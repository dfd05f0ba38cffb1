"""Is our PPO right? Its learning curve on the lab beside that of TRL 1.12.0's PPOTrainer, the last there was.

    python bench/ppo_beside_trl.py [SEED …]          default: 0 1

TRL 1.12.0 stands in an environment of its own, .cache/trl-1.12, which shares every other package. Both train
the lab's policy against its clean reward model, one process and one thread each; then the policies that both
left behind are measured by the same code, prompts and random numbers: `training.measure`.

Equal: prompts in the same order, completions per step, updates, clipping, γ, λ, KL, both learning rates, a
critic initialised from the policy with values that begin at 0, no clipping of gradients (TRL's has none), and
rewards standardised by the same constants, which for TRL are folded into the reward model's last layer.

Not equal, because TRL's has no such setting: it adds the reward one position after the last token, where its
critic has a value too, ours at the last token; it scores the tokens as sampled, so a completion that was cut
off is scored without its end token, which ours adds as the template says; its minibatches are drawn anew in
each epoch.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

VERSION = "1.12.0"
ENVIRONMENT = Path(".cache/trl-1.12").absolute()
SEEDS = (0, 1)
EQUAL = (
    "algorithm=ppo_lab",
    "algorithm.critic=policy",
    "algorithm.critic_learning_rate=null",
    "algorithm.max_grad_norm=1e9",
    "algorithm.completions_per_device_batch=64",
    "algorithm.publish=last",
)
"""What TRL's has in common with the lab's settings, and where those have to give way."""
LIMIT = 0.9
"""Ours must gain at least this share of what TRL's gains, in reward and over the seeds."""


def main() -> int:
    """Print the table; 1 if ours ends clearly below."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--ours", nargs=2, metavar=("SEED", "FOLDER"))
    parser.add_argument("--theirs", metavar="FOLDER")
    options = parser.parse_args()
    if options.ours:
        return ours(int(options.ours[0]), Path(options.ours[1]))
    if options.theirs:
        return theirs(Path(options.theirs))
    python = environment()
    import tempfile

    print(f"{'':6}{'':>6}{'reward':>16}{'gold utility':>16}{'KL, nats':>16}")
    print(f"{'seed':>6}{'step':>6}" + f"{'ours':>8}{'TRL':>8}" * 3)
    gains: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        for seed in options.seeds:
            run = Path(name) / str(seed)
            child([sys.executable, __file__, "--ours", str(seed), str(run)])
            child([str(python), __file__, "--theirs", str(run)])
            curves = measured(seed, run)
            for mine, other in zip(*curves, strict=True):
                pairs = [(mine[key], other[key]) for key in ("reward", "gold_reward", "kl")]
                figures = "".join(f"{figure:>8.2f}" for pair in pairs for figure in pair)
                print(f"{seed:>6}{mine['step']:>6}{figures}", flush=True)
            mine, other = (curve[-1]["reward"] - curve[0]["reward"] for curve in curves)
            gains.append((mine, other))
    mine, other = (sum(side) / len(gains) for side in zip(*gains, strict=True))
    print(f"reward gained: ours {mine:.2f}, TRL's {other:.2f}; limit {LIMIT:.0%} of TRL's")
    return int(mine < LIMIT * other)


def environment() -> Path:
    """The Python of TRL's environment, which is made where it is missing."""
    import site

    python = ENVIRONMENT / "bin" / "python"
    ask = [str(python), "-c", "import trl; print(trl.__version__)"]
    if not python.exists() or subprocess.run(ask, capture_output=True, text=True).stdout.strip() != VERSION:
        child([sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)])
        [packages] = ENVIRONMENT.glob("lib/python*/site-packages")
        # After the environment's own packages, so that its TRL comes first.
        (packages / "shared.pth").write_text("".join(f"{path}\n" for path in site.getsitepackages()))
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
        child([*pip, f"trl=={VERSION}"])
    found = subprocess.run(ask, capture_output=True, text=True)
    if found.stdout.strip() != VERSION:
        sys.exit(f"{ENVIRONMENT} has not TRL {VERSION}: {found.stdout}{found.stderr[-1000:]}")
    return python


def child(command: list[str]) -> None:
    alone = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | alone)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-3000:]}")


def configuration(seed: int) -> Any:
    """The run with every path of the lab's world resolved."""
    from rlhf_eval.config.compose import compose
    from rlhf_eval.lab.build import ensure
    from rlhf_eval.progress import PlainProgress
    from rlhf_eval.sources import localise

    config = compose(["experiment=lab", "reward_model=lab_clean", *EQUAL, f"seed={seed}"])
    assert config.lab is not None
    return localise(config, ensure(config.lab, 2, PlainProgress()))


def ours(seed: int, run: Path) -> int:
    """Train with our PPO, and leave behind what TRL's is to be told."""
    from rlhf_eval.generation.policy import load_tokenizer, parts_of, prompt_ids
    from rlhf_eval.training.launch import launch
    from rlhf_eval.training.prompts import in_training_order, load_prompts

    config = configuration(seed)
    algorithm = config.algorithm
    folder = run / "stages" / "train"
    folder.mkdir(parents=True)
    launch(config, folder, run / "metrics.jsonl", run / "log", lambda *_: None)
    tokenizer = load_tokenizer(config.policy, parts_of(config.policy))
    usable = load_prompts(config.prompts.train)
    ordered = in_training_order(usable, algorithm.steps * algorithm.prompts_per_step, seed)
    queries = [prompt_ids(tokenizer, prompt) for prompt in ordered for _ in range(algorithm.group_size)]
    assert max(map(len, queries)) <= config.prompts.max_prompt_tokens
    settings = {
        "policy": config.policy.model,
        "reward_model": config.reward_model.model,
        "normaliser": json.loads((folder / "reward_normaliser.json").read_text()),
        "queries": queries,
        "save_every": algorithm.checkpoint_every,
        "arguments": {
            "total_episodes": algorithm.steps * algorithm.completions_per_step,
            # One micro-batch is a whole minibatch: with accumulation TRL's would make fewer updates.
            "per_device_train_batch_size": algorithm.completions_per_step,
            "num_mini_batches": algorithm.minibatches,
            "num_ppo_epochs": algorithm.epochs,
            "local_rollout_forward_batch_size": algorithm.completions_per_step,
            "response_length": algorithm.max_completion_tokens,
            "temperature": algorithm.temperature,
            "learning_rate": algorithm.learning_rate,
            "kl_coef": algorithm.kl_coefficient,
            "cliprange": algorithm.clip_range,
            "cliprange_value": algorithm.value_clip_range,
            "vf_coef": algorithm.value_coefficient,
            "gamma": algorithm.gamma,
            "lam": algorithm.gae_lambda,
            "seed": seed,
        },
    }
    (run / "settings.json").write_text(json.dumps(settings))
    return 0


def theirs(run: Path) -> int:
    """Train with TRL's PPOTrainer, in the environment of its own, and keep the policy of every checkpoint."""
    import torch
    import trl
    from datasets import Dataset
    from torch.utils.data import DataLoader
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
        set_seed,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore[reportMissingImports]

    assert trl.__version__ == VERSION
    torch.set_num_threads(1)
    settings = json.loads((run / "settings.json").read_text())
    set_seed(settings["arguments"]["seed"])
    tokenizer = AutoTokenizer.from_pretrained(settings["policy"], padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(settings["policy"]) for _ in range(2))
    critic = AutoModelForSequenceClassification.from_pretrained(settings["policy"], num_labels=1)
    torch.nn.init.zeros_(critic.score.weight)
    reward_model: Any = AutoModelForSequenceClassification.from_pretrained(settings["reward_model"])
    reward_model.score = standardised(reward_model.score, **settings["normaliser"])
    every = settings["save_every"]

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % every == 0:
                policy.save_pretrained(run / "theirs" / str(state.global_step))

    policy.save_pretrained(run / "theirs" / "0")
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=str(run / "trl"),
            stop_token="eos",  # noqa: S106 - no password
            lr_scheduler_type="constant",
            num_sample_generations=0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            **settings["arguments"],
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward_model,
        value_model=critic,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in settings["queries"]]),
        eval_dataset=Dataset.from_list([{"input_ids": settings["queries"][0]}]),
        callbacks=[Keep()],
    )
    # Its own shuffles; ours has been shuffled.
    trainer.dataloader = DataLoader(
        trainer.train_dataset,
        batch_size=settings["arguments"]["per_device_train_batch_size"],
        collate_fn=trainer.data_collator,
    )
    trainer.train()
    return 0


def standardised(head: Any, mean: float, standard_deviation: float, **_: Any) -> Any:
    """The reward model's last layer with (score − mean) / standard deviation folded in."""
    import torch

    scaled = torch.nn.Linear(head.in_features, 1)
    with torch.no_grad():
        scaled.weight.copy_(head.weight / standard_deviation)
        scaled.bias.fill_(-mean / standard_deviation)
    return scaled


def measured(seed: int, run: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of our curve and of TRL's, `reward` as the reward model gives it."""
    from transformers import AutoModelForCausalLM

    from rlhf_eval.config.schema import GenerationConfig
    from rlhf_eval.files import read_json, read_jsonl
    from rlhf_eval.generation.transformers_engine import load_policy
    from rlhf_eval.rewards.interface import load_reward_model
    from rlhf_eval.training.measure import Measurement, Policies
    from rlhf_eval.training.prompts import load_prompts
    from rlhf_eval.training.reward_function import RewardNormaliser

    config = configuration(seed)
    algorithm = config.algorithm
    normaliser = RewardNormaliser(**read_json(run / "stages" / "train" / "reward_normaliser.json"))
    initial, tokenizer = load_policy(config.policy)
    measurement = Measurement(
        tokenizer,
        load_prompts(config.prompts.held_out)[: config.prompts.held_out_limit],
        config.prompts.held_out_samples,
        GenerationConfig(
            name="rollout", max_tokens=algorithm.max_completion_tokens, temperature=algorithm.temperature
        ),
        load_reward_model(config.reward_model),
        load_reward_model(config.gold_reward_model),
        seed,
        config.reward_model.max_invalid_share,
    )
    # Ours was measured by the same code while it trained.
    mine = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "checkpoint"]
    other = []
    for step in (row["step"] for row in mine):
        policy = AutoModelForCausalLM.from_pretrained(run / "theirs" / str(step))
        policies = Policies(policy, lambda: nullcontext(initial))
        other.append(measurement.of(policies, normaliser, step))
    for row in [*mine, *other]:
        row["reward"] = row["proxy_reward"] * normaliser.standard_deviation + normaliser.mean
    return mine, other


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
