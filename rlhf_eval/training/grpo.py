"""GRPO with TRL's GRPOTrainer: rewards standardised, checkpoints measured, resume exact."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import AlgorithmConfig, GenerationConfig, RunConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import append_jsonl, read_json, read_jsonl, write_json, write_jsonl
from rlhf_eval.generation.transformers_engine import load_policy, prompt_ids, sample
from rlhf_eval.records import Prompt, as_json
from rlhf_eval.rewards.interface import RewardModel, load_reward_model
from rlhf_eval.training.measure import Measurement
from rlhf_eval.training.prompts import in_training_order, load_prompts
from rlhf_eval.training.reward_function import NORMALISER_SAMPLES, RewardNormaliser, reward_function

COMPLETE = "complete.json"


def train(config: RunConfig, folder: Path, metrics: Path, advance: Callable[[int, int, str], None]) -> None:
    """Train the policy against the reward model and write it to `folder/policy`.

    Continues from the last complete checkpoint in `folder/checkpoints`; the weights that come out are
    those of an undisturbed run.

    Args:
        metrics: the run's `metrics.jsonl`; rows after the checkpoint continued from are written anew.

    Raises:
        StageError: the loss or the weights are not finite.
    """
    from transformers import PrinterCallback, set_seed

    algorithm = config.algorithm
    arguments = trainer_arguments(config, folder / "checkpoints")
    set_seed(config.seed)
    policy, tokenizer = load_policy(config.policy)
    reference, _ = load_policy(config.policy)
    reference.eval()
    reward_model = load_reward_model(config.reward_model)
    gold = load_reward_model(config.gold_reward_model) if config.gold_reward_model else None
    limit = config.prompts.max_prompt_tokens
    usable = [p for p in load_prompts(config.prompts.train) if len(prompt_ids(tokenizer, p)) <= limit]
    ordered = in_training_order(usable, algorithm.steps * algorithm.prompts_per_step, config.seed)
    sampling = GenerationConfig(
        name="rollout", max_tokens=algorithm.max_completion_tokens, temperature=algorithm.temperature
    )
    normaliser = _normaliser(folder, reference, tokenizer, reward_model, ordered, sampling, config)
    held_out = load_prompts(config.prompts.held_out)[: config.prompts.held_out_limit]
    measurement = Measurement(
        reference,
        tokenizer,
        held_out,
        sampling,
        reward_model,
        normaliser,
        gold,
        config.seed,
        config.reward_model.max_invalid_share,
    )
    checkpoint = last_complete_checkpoint(folder / "checkpoints")
    step = 0 if checkpoint is None else int(checkpoint.name.split("-")[1])
    kept = [row for row in read_jsonl(metrics) if row["step"] <= step] if metrics.exists() else []
    write_jsonl(metrics, kept)
    if not any(row["kind"] == "checkpoint" for row in kept):
        append_jsonl(metrics, measurement.of(reference, 0))
    if step < algorithm.steps:
        trainer = _trainer(
            arguments,
            policy,
            tokenizer,
            ordered,
            reward_function(reward_model, normaliser, config.reward_model.max_invalid_share),
        )
        # The curves are in metrics.jsonl; TRL's own printing would bury the run's progress.
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_recorder(metrics, measurement, advance, algorithm.steps))
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        checkpoint = last_complete_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    _publish(checkpoint, folder / "policy", config)


def trainer_arguments(config: RunConfig, output: Path) -> dict[str, Any]:
    """The arguments of TRL's GRPOConfig."""
    algorithm: AlgorithmConfig = config.algorithm
    batch = algorithm.prompts_per_step * algorithm.group_size
    return {
        "output_dir": str(output),
        "max_steps": algorithm.steps,
        "per_device_train_batch_size": algorithm.completions_per_device_batch,
        "gradient_accumulation_steps": batch // algorithm.completions_per_device_batch,
        "num_generations": algorithm.group_size,
        "max_completion_length": algorithm.max_completion_tokens,
        "temperature": algorithm.temperature,
        "learning_rate": algorithm.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": algorithm.warmup_steps,
        "beta": algorithm.kl_coefficient,
        "scale_rewards": algorithm.scale_rewards,
        "loss_type": algorithm.loss_type,
        "max_grad_norm": algorithm.max_grad_norm,
        "shuffle_dataset": False,
        "save_strategy": "steps",
        # The last step is saved too, by TRL, whatever the interval.
        "save_steps": algorithm.checkpoint_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "report_to": "none",
        "seed": config.seed,
        "disable_tqdm": True,
    }


def last_complete_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill in the middle of one leaves it unmarked."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)


def _trainer(
    arguments: dict[str, Any], policy: Any, tokenizer: Any, ordered: list[Prompt], reward: Callable[..., Any]
) -> Any:
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    on_cpu = not torch.cuda.is_available()
    rows = [{"prompt": as_json(prompt.messages)} for prompt in ordered]
    return GRPOTrainer(
        model=policy,
        reward_funcs=reward,
        args=GRPOConfig(**arguments, use_cpu=on_cpu, bf16=False, gradient_checkpointing=not on_cpu),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def _recorder(
    metrics: Path, measurement: Measurement, advance: Callable[[int, int, str], None], steps: int
) -> Any:
    import math
    import time

    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        """Writes the curves, and marks a checkpoint as complete when all of it is on disk."""

        began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]) or not math.isfinite(logs.get("grad_norm", 0.0)):
                raise StageError(
                    f"The loss is not finite at step {state.global_step}.",
                    "Lower algorithm.learning_rate; the last checkpoint is kept.",
                )
            now = time.monotonic()
            row = {
                "kind": "train",
                "step": state.global_step,
                "loss": logs["loss"],
                "reward": logs.get("reward"),
                "reward_std": logs.get("reward_std"),
                "kl": logs.get("kl"),
                "grad_norm": logs.get("grad_norm"),
                "completion_length": logs.get("completions/mean_length"),
                "invalid_rewards": logs.get("invalid_rewards"),
                "seconds": now - self.began,
            }
            self.began = now
            append_jsonl(metrics, row)
            advance(state.global_step, steps, f"reward {row['reward']:.2f}" if row["reward"] else "")

        def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            append_jsonl(metrics, measurement.of(model, state.global_step))
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / COMPLETE, {"step": state.global_step})

    return Recorder()


def _normaliser(
    folder: Path,
    policy: Any,
    tokenizer: Any,
    reward_model: RewardModel,
    ordered: list[Prompt],
    sampling: GenerationConfig,
    config: RunConfig,
) -> RewardNormaliser:
    file = folder / "reward_normaliser.json"
    if file.exists():
        return RewardNormaliser(**read_json(file))
    prompts = ordered[: config.algorithm.normaliser_prompts]
    rounds = []
    for start in range(NORMALISER_SAMPLES):
        completions, _ = sample(policy, tokenizer, prompts, sampling, 7919 * (config.seed + 1) + start)
        rounds.append([completion.text for completion in completions])
    groups = list(zip(prompts, map(list, zip(*rounds, strict=True)), strict=True))
    normaliser = RewardNormaliser.fit(reward_model, groups, config.reward_model.comparability != "global")
    write_json(file, asdict(normaliser))
    return normaliser


def _publish(checkpoint: Path, target: Path, config: RunConfig) -> None:
    """The last checkpoint's weights as an ordinary model folder, renamed into place when complete."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    temporary = target.with_name("policy.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=getattr(torch, config.policy.dtype))
    model.save_pretrained(temporary)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
