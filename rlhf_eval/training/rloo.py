"""RLOO: TRL's RLOOTrainer as it is."""

from typing import Any

from rlhf_eval.config.algorithm_schema import RLOOConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.training.models import load_trainable


def rloo_trainer(algorithm: RLOOConfig, arguments: dict[str, Any], policy: PolicyConfig, **parts: Any) -> Any:
    """The trainer of a configuration; see `grpo_trainer`."""
    from trl.trainer.rloo_config import RLOOConfig as Arguments
    from trl.trainer.rloo_trainer import RLOOTrainer

    own: dict[str, Any] = {
        "normalize_advantages": algorithm.normalize_advantages,
        "mask_truncated_completions": algorithm.mask_truncated,
    }
    # A model that is loaded after them is split at once under ZeRO-3.
    made = Arguments(**arguments, **own)
    return RLOOTrainer(args=made, model=load_trainable(policy), **parts)
