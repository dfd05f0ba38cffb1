"""GRPO: TRL's GRPOTrainer as it is."""

from typing import Any

from rlhf_eval.config.algorithm_schema import GRPOConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.training.models import load_trainable


def grpo_trainer(algorithm: GRPOConfig, arguments: dict[str, Any], policy: PolicyConfig, **parts: Any) -> Any:
    """The trainer of a configuration.

    Args:
        arguments: `common_arguments`.
        parts: what TRL's trainers are given besides: reward_funcs, train_dataset, peft_config, …
    """
    from trl.trainer.grpo_config import GRPOConfig as Arguments
    from trl.trainer.grpo_trainer import GRPOTrainer

    own: dict[str, Any] = {
        "scale_rewards": algorithm.scale_rewards,
        "loss_type": algorithm.loss_type,
        "epsilon_high": algorithm.clip_range_high,
        "importance_sampling_level": algorithm.importance_sampling,
        "mask_truncated_completions": algorithm.mask_truncated,
    }
    # A model that is loaded after them is split at once under ZeRO-3.
    made = Arguments(**arguments, **own)
    return GRPOTrainer(args=made, model=load_trainable(policy), **parts)
