"""The kinds of reward models by name. No heavy import: the command line checks kinds with this table."""

from rlhf_eval.config.inputs import nested
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.registry import Registry

KINDS = Registry(
    "reward model kind",
    {
        "classifier": "rlhf_eval.rewards.classifier:load_classifier",
        "armorm": "rlhf_eval.rewards.classifier:load_armorm",
        "urm": "rlhf_eval.rewards.classifier:load_urm",
        "inform": "rlhf_eval.rewards.classifier:load_inform",
        "internlm2": "rlhf_eval.rewards.classifier:load_internlm2",
        "token_logit": "rlhf_eval.rewards.classifier:load_token_logit",
        "implicit": "rlhf_eval.rewards.implicit:load",
        "ensemble": "rlhf_eval.rewards.ensemble:load",
        "generative": "rlhf_eval.rewards.generative:load",
        "judge": "rlhf_eval.rewards.generative:load_api",
        "remote": "rlhf_eval.rewards.remote:load",
        "rule": "rlhf_eval.rewards.rule:load",
        "constant": "rlhf_eval.rewards.controls:load_constant",
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
        for field, reward_model in nested(root, getattr(config, root)):
            KINDS.check(reward_model.kind, f"{field}.kind")
