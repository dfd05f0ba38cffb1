"""The kinds of reward models by name. No heavy import: the command line checks kinds with this table."""

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.registry import Registry

KINDS = Registry(
    "reward model kind",
    {
        "classifier": "rlhf_eval.rewards.classifier:load",
        "random": "rlhf_eval.rewards.controls:load_random",
        "length": "rlhf_eval.rewards.controls:load_length",
        "flipped": "rlhf_eval.rewards.controls:load_flipped",
        "lab_gold": "rlhf_eval.lab.gold:load",
        "untrained": "rlhf_eval.rewards.controls:load_untrained",
    },
)


def check_kinds(config: RunConfig) -> None:
    """Raises ConfigError, naming the field, unless every reward model of a run is of a known kind."""
    for root in ("reward_model", "gold_reward_model"):
        reward_model, where = getattr(config, root), root
        while reward_model is not None:
            KINDS.check(reward_model.kind, f"{where}.kind")
            reward_model, where = reward_model.inner, f"{where}.inner"
