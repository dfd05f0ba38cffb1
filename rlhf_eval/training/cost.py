"""What a run will ask of its reward model, told before anything is loaded or paid."""

import math

from rlhf_eval.config.algorithm_schema import BestOfNConfig
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.rewards.tournament import comparisons_needed
from rlhf_eval.training.reward_function import NORMALISER_SAMPLES


def group_calls(config: RewardModelConfig, size: int) -> int:
    """How many texts a reward model reads to score `size` completions of one prompt: one each, or for one
    that compares, the comparisons of its schedule in one or both orders. Of an ensemble, all members' sum."""
    if config.ensemble:
        return sum(group_calls(member.reward_model, size) for member in config.ensemble.members.values())
    if config.inner:
        return group_calls(config.inner, size)
    if config.comparability != "pair":
        return size
    return comparisons_needed(config.group, size) * _orders(config)


def reward_calls(config: RunConfig) -> dict[str, int]:
    """At most so many texts are read by the reward model of a run in training; benchmarks come apart.

    Returns:
        `standardising` (on the initial policy's samples), `training` (of best-of-n: choosing among the
        answers that are evaluated is not counted), `checkpoints` (held-out prompts), and `total`; all 0 where
        nothing is trained.
    """
    reward_model, algorithm = config.reward_model, config.algorithm
    if reward_model.kind == "untrained":
        return dict.fromkeys(("standardising", "training", "checkpoints", "total"), 0)
    held_out = config.prompts.held_out_limit
    calls = {"standardising": algorithm.normaliser_prompts * group_calls(reward_model, NORMALISER_SAMPLES)}
    if isinstance(algorithm, BestOfNConfig):
        calls |= {"training": 0, "checkpoints": held_out * group_calls(reward_model, algorithm.samples)}
    else:
        measured = 1 + math.ceil(algorithm.steps / algorithm.checkpoint_every)
        calls |= {
            "training": algorithm.steps
            * algorithm.prompts_per_step
            * group_calls(reward_model, algorithm.group_size),
            # A checkpoint's answers are scored, or compared with the initial policy's one by one.
            "checkpoints": measured * held_out * config.prompts.held_out_samples * _orders(reward_model),
        }
    return calls | {"total": sum(calls.values())}


def _orders(config: RewardModelConfig) -> int:
    return 2 if config.verdict and config.verdict.style == "comparison" and config.verdict.both_orders else 1
