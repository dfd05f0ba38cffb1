"""What happens between a trainer's steps: curves, checkpoints, and stopping when asked to."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import TrainedConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import append_jsonl, read_jsonl
from rlhf_eval.training.checkpoints import keep_as_peak, mark_complete
from rlhf_eval.training.gathering import whole
from rlhf_eval.training.measure import Measurement, Policies
from rlhf_eval.training.reward_function import RewardFunction, RewardNormaliser
from rlhf_eval.training.timing import PARTS, Stopwatch
from rlhf_eval.training.waiting import wait_for_everyone

Advance = Callable[[int, int, str], None]

CURVES = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "reward_std",
    "zero_variance_share": "frac_reward_zero_std",
    "kl": "kl",
    "entropy": "entropy",
    "grad_norm": "grad_norm",
    "completion_length": "completions/mean_length",
    "truncated_share": "completions/clipped_ratio",
    "invalid_rewards": "invalid_rewards",
    "clipped_share": "clip_ratio/region_mean",
    "importance_ratio": "importance_ratio",
    "importance_masked_share": "importance_masked_share",
    "rollout_gap": "sampling/sampling_logp_difference/mean",
    "rollout_gap_max": "sampling/sampling_logp_difference/max",
    "critic_grad_norm": "critic_grad_norm",
    "value_loss": "value_loss",
    "explained_variance": "explained_variance",
}
"""Columns of a training row of metrics.jsonl, and TRL's names of them; those that a trainer lacks are
absent."""


HELD_OUT = (
    "kl",
    "proxy_reward",
    "gold_reward",
    "length_tokens",
    "entropy",
    "reward_variance",
    "zero_variance_share",
)
"""What is reported of a measurement on held-out prompts."""


class Finished(Exception):
    """Training begins at a checkpoint after which nothing is left to train."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What the callback of a run's trainer works with.

    Attributes:
        normalise: fits the reward normaliser on samples of the policies given, or reads the fitted one.
        reference: see `whole`.
        metrics: `metrics.jsonl`, written by the main process.
        stop: whether this process has been asked to save and end.
    """

    trainer: Any
    stopwatch: Stopwatch
    measurement: Measurement
    reward: RewardFunction
    normalise: Callable[[Policies], RewardNormaliser]
    reference: Any
    metrics: Path
    advance: Advance
    stop: Callable[[], bool]
    algorithm: TrainedConfig


def recorder(of: Recording) -> Any:
    """The callback of a run's trainer."""
    import torch
    from accelerate.utils import reduce
    from transformers import TrainerCallback

    algorithm, metrics, stopwatch = of.algorithm, of.metrics, of.stopwatch
    updates = algorithm.updates_per_step
    main = of.trainer.accelerator.is_main_process

    class Recorder(TrainerCallback):
        """Writes the curves, and marks a checkpoint as complete when all of it is on disk."""

        def __init__(self) -> None:
            self.seconds: dict[str, float] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step // updates
            with whole(of.trainer, of.reference) as policies:
                of.reward.normaliser = of.normalise(policies)
                if is_planned(step, algorithm) and not is_measured(metrics, step):
                    self._measure(policies, step)
            self._keep_peak(Path(args.output_dir) / f"checkpoint-{state.global_step}", step)
            if step == algorithm.steps:
                raise Finished
            stopwatch.reset()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % updates:
                return
            # One exchange for both: all processes must agree to stop, and seconds are means over them.
            mine = [float(of.stop()), stopwatch.total, *(stopwatch.seconds[part] for part in PARTS)]
            means: Any = reduce(torch.tensor(mine, dtype=torch.float32, device=args.device), "mean")
            stopping, total, *parts = means.tolist()
            self.seconds = {
                "seconds": total,
                **{f"{part}_seconds": value for part, value in zip(PARTS, parts, strict=True)},
                "idle_seconds": max(0.0, total - sum(parts)),
            }
            if stopping:
                control.should_save = control.should_training_stop = True
            stopwatch.reset()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" not in logs:
                return
            step = state.global_step // updates
            numbers = [logs["loss"], logs.get("grad_norm", 0.0), logs.get("critic_grad_norm", 0.0)]
            if not all(map(math.isfinite, numbers)):
                raise StageError(
                    f"The loss is not finite at step {step}.",
                    "Lower algorithm.learning_rate; the last good checkpoint is kept, and continued from.",
                )
            row = {"kind": "train", "step": step}
            row |= {ours: logs[theirs] for ours, theirs in CURVES.items() if theirs in logs}
            completions = algorithm.completions_per_step
            row["tokens"] = round((row.get("completion_length") or 0.0) * completions)
            row["no_gradient"] = logs["no_gradient"] == 1.0 or row.get("grad_norm") == 0.0
            if main:
                append_jsonl(metrics, row | self.seconds)
                reward = row.get("reward")
                of.advance(step, algorithm.steps, "" if reward is None else f"reward {reward:.2f}")

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            step = state.global_step // updates
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            wait_for_everyone()
            if main:  # before it is measured: a kill from now on costs the measurement, not the training
                mark_complete(checkpoint, step)
            wait_for_everyone()
            # A checkpoint that was asked for by a signal is for continuing, and no point of the curves.
            if is_planned(step, algorithm):
                with whole(of.trainer, of.reference) as policies:
                    self._measure(policies, step)
                self._keep_peak(checkpoint, step)
            stopwatch.reset()

        def _measure(self, policies: Policies, step: int) -> None:
            assert of.reward.normaliser is not None
            row = of.measurement.of(policies, of.reward.normaliser, step)
            if main:
                append_jsonl(metrics, row)
                values = {f"held_out/{name}": row[name] for name in HELD_OUT if row[name] is not None}
                # To the reporters that TRL was told of (`report_to`); this callback passes over it.
                trainer = of.trainer
                trainer.callback_handler.on_log(trainer.args, trainer.state, trainer.control, values)

        def _keep_peak(self, checkpoint: Path, step: int) -> None:
            # The last checkpoint needs no copy: it stays where it is until it is published.
            may_go = algorithm.publish == "peak" and 0 < step < algorithm.steps
            if main and may_go and peak_step(metrics) == step:
                keep_as_peak(checkpoint, step)
            wait_for_everyone()

    return Recorder()


def is_planned(step: int, algorithm: TrainedConfig) -> bool:
    """Whether the policy is measured after that step."""
    return step % algorithm.checkpoint_every == 0 or step == algorithm.steps


def is_measured(metrics: Path, step: int) -> bool:
    """Whether the curves have a point at that step. A kill may come between a checkpoint and its point."""
    rows = read_jsonl(metrics) if metrics.exists() else []
    return any(row["kind"] == "checkpoint" and row["step"] == step for row in rows)


def peak_step(metrics: Path) -> int | None:
    """The trained checkpoint with the highest gold reward, or proxy reward where there is no gold; of equal
    ones the first."""
    rows = [row for row in read_jsonl(metrics) if row["kind"] == "checkpoint" and row["step"] > 0]
    value = "gold_reward" if rows and rows[0]["gold_reward"] is not None else "proxy_reward"
    return max(rows, key=lambda row: (row[value], -row["step"]))["step"] if rows else None
