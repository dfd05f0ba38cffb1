"""What a configuration must fulfil beyond the types of its fields: values that have to fit each other."""

import math
import re
from dataclasses import replace

from rlhf_eval.config.algorithm_schema import (
    COLLECTIVE_SECONDS,
    AccelerateConfig,
    BestOfNConfig,
    TrainedConfig,
)
from rlhf_eval.config.inputs import nested
from rlhf_eval.config.plain import flat, plain, result_fields
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.keys import without_secrets

NAME = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]*")
ASKING_SECONDS = 3 * COLLECTIVE_SECONDS // 4
"""Seconds that a process may wait for servers before the other processes hear from it again; the rest of
`COLLECTIVE_SECONDS` is for sampling."""
LEAST_GROUP = 4
"""Completions of a prompt on which rewards are standardised (`training/reward_function.py`)."""


def check(config: RunConfig) -> RunConfig:
    """The configuration itself if its values fit each other and hold no secret; else ConfigError."""
    _check_secrets(config)
    _check_processes(config.accelerate)
    if isinstance(config.algorithm, BestOfNConfig):
        if config.generation.temperature == 0:
            raise ConfigError(
                "generation.temperature=0 gives the same answer every time: there is nothing to choose from.",
                "Set generation.temperature above 0 for algorithm.kind best_of_n.",
            )
    else:
        _check_batches(config.algorithm, config.accelerate)
        _check_rollouts(config)
    if config.algorithm.kind == "ppo" and (config.algorithm.critic == "classifier") != bool(
        config.algorithm.critic_model
    ):
        raise ConfigError(
            f"algorithm.critic={config.algorithm.critic} does not fit "
            f"algorithm.critic_model={config.algorithm.critic_model}.",
            "Name a classifier for critic: classifier, and none for the others.",
        )
    _check_grid(config)
    return check_names(config)


def check_training(config: RunConfig) -> RunConfig:
    """The configuration itself if its reward models suit the processes that train; else ConfigError.

    `check` does not ask for this, so that the results of earlier runs can still be read.
    """
    if isinstance(config.algorithm, TrainedConfig) and config.reward_model.kind != "untrained":
        _check_device_maps(config)
        _check_deadlines(config, config.algorithm.group_size)
    return config


def in_experiment(config: RunConfig, experiment: str | None) -> RunConfig:
    """The configuration in another experiment's folder, where one is named; checked by `check_names`."""
    return config if experiment is None else check_names(replace(config, experiment=experiment))


def check_names(config: RunConfig) -> RunConfig:
    """The configuration itself, if its names can stand in paths and benchmarks' differ; else ConfigError."""
    names = {
        "experiment": config.experiment,
        "reward_model.name": config.reward_model.name,
        "policy.name": config.policy.name,
        "algorithm.name": config.algorithm.name,
    }
    for path, name in names.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: '{name}' cannot be part of a folder name.",
                "Use letters, digits, '_', '.', and single '-', beginning with a letter, digit or '_'.",
            )
    benchmarks = [benchmark.name for benchmark in config.benchmarks.values()]
    for field, name in zip(config.benchmarks, benchmarks, strict=True):
        if not NAME.fullmatch(name) or benchmarks.count(name) > 1:
            raise ConfigError(
                f"benchmarks.{field}.name: '{name}' cannot name this benchmark's files.",
                "Give every benchmark a name of its own of letters, digits, '_', '.' and single '-'.",
            )
    return config


def _check_secrets(config: RunConfig) -> None:
    """A configuration is written down and handed on; a key in it would be too."""
    texts = {
        field: str(value) for field, value in flat(plain(config)).items() if isinstance(value, str | list)
    }
    everything = "\n".join(texts.values())
    if without_secrets(everything) == everything:  # once for all: a thousand runs are loaded for a ranking
        return
    for field, text in texts.items():
        if without_secrets(text) != text:
            raise ConfigError(
                f"{field} holds a password, or the value of an environment variable that holds a key.",
                "Leave it out; name the variable that holds it in the field for that (api_key_variable).",
            )


def _check_processes(accelerate: AccelerateConfig) -> None:
    processes, machines = accelerate.processes, accelerate.machines
    if accelerate.strategy == "single" and processes * machines != 1:
        raise ConfigError(
            f"accelerate.strategy=single is one process, not {processes} on {machines} machines.",
            "Choose accelerate=ddp, zero2 or zero3.",
        )
    if processes % machines:
        raise ConfigError(
            f"accelerate.processes: {processes} cannot be shared out evenly over {machines} machines.",
            f"Set accelerate.processes to a multiple of {machines}.",
        )


def _check_device_maps(config: RunConfig) -> None:
    """Every process loads the reward models. Spreading them saves nothing: there are as many copies as GPUs,
    so each GPU holds as much as with a whole copy of its own."""
    processes = config.accelerate.processes // config.accelerate.machines
    for field, reward_model in _reward_models(config):
        if processes > 1 and reward_model.device_map and reward_model.endpoint is None:
            group = "reward_model" if field.startswith("reward_model") else "reward_model@gold_reward_model"
            raise ConfigError(
                f"{field}.device_map={reward_model.device_map}: each of the {processes} training processes "
                "on a machine would spread a copy of its own over all GPUs.",
                f"Serve it: `rlhf-eval reward serve`, then {group}=served. Or train in fewer processes "
                f"(accelerate=single). Or set {field}.device_map=null if each GPU has room for it.",
            )


def _check_deadlines(config: RunConfig, group_size: int) -> None:
    """Between two exchanges with the others, a process scores its completions of one step, or of one
    measurement. Each call to a server that does not answer takes the whole deadline."""
    processes = config.accelerate.processes
    own, gold = _calls(config.reward_model), _calls(config.gold_reward_model)
    calls = max(
        own * _rounds(config.reward_model, max(group_size, LEAST_GROUP)),
        own + gold,
    )
    for field, reward_model in _reward_models(config):
        endpoint = reward_model.endpoint
        if processes > 1 and endpoint and endpoint.deadline_seconds * calls > ASKING_SECONDS:
            raise ConfigError(
                f"{field}.endpoint.deadline_seconds={endpoint.deadline_seconds:g} is too long: a process may "
                f"make {calls} calls to servers, one after the other, while the other processes wait for it, "
                f"and they give up after {COLLECTIVE_SECONDS} s.",
                f"Set {field}.endpoint.deadline_seconds={ASKING_SECONDS // calls} or less.",
            )


def _reward_models(config: RunConfig) -> list[tuple[str, RewardModelConfig]]:
    """The reward models that a training loads, and what they are made of, each with its dotted path."""
    return [
        *nested("reward_model", config.reward_model),
        *nested("gold_reward_model", config.gold_reward_model),
    ]


def _calls(reward_model: RewardModelConfig | None) -> int:
    """Calls to servers, one after the other, with which a reward model scores or compares what it is
    given."""
    return sum(
        2 if part.verdict and part.verdict.style == "comparison" and part.verdict.both_orders else 1
        for _, part in nested("", reward_model)
        if part.endpoint
    )


def _rounds(reward_model: RewardModelConfig, group_size: int) -> int:
    """Rounds of comparisons in which it scores groups."""
    knockout = reward_model.comparability == "pair" and reward_model.group.schedule == "knockout"
    return math.ceil(math.log2(group_size)) if knockout else 1


def _check_batches(algorithm: TrainedConfig, accelerate: AccelerateConfig) -> None:
    processes, completions = accelerate.processes, algorithm.completions_per_step
    if algorithm.prompts_per_step % processes:
        raise ConfigError(
            f"algorithm.prompts_per_step: {algorithm.prompts_per_step} prompts cannot be shared out evenly "
            f"over {processes} processes.",
            f"Set algorithm.prompts_per_step to a multiple of {processes}.",
        )
    share, batch = completions // processes, algorithm.completions_per_device_batch
    if share % algorithm.minibatches:
        raise ConfigError(
            f"algorithm.minibatches: {algorithm.minibatches} does not divide the {share} completions of a "
            "process.",
            f"Set algorithm.minibatches={math.gcd(share, algorithm.minibatches)} or another divisor.",
        )
    share //= algorithm.minibatches
    if share % batch:
        raise ConfigError(
            f"algorithm.completions_per_device_batch: {batch} does not divide {share}, which is "
            "prompts_per_step * group_size / (processes * minibatches).",
            f"Set algorithm.completions_per_device_batch={math.gcd(share, batch)} or another divisor.",
        )


def _check_rollouts(config: RunConfig) -> None:
    algorithm, processes = config.algorithm, config.accelerate.processes
    assert not isinstance(algorithm, BestOfNConfig)
    rollout = algorithm.rollout
    if rollout.engine != "transformers" and algorithm.top_p < 1 and rollout.importance_correction != "none":
        raise ConfigError(
            f"algorithm.top_p={algorithm.top_p:g}: vLLM reports probabilities within the nucleus, the trainer"
            " those of all tokens, and the correction for their ratio would remove long completions.",
            "Set algorithm.top_p=1, or algorithm.rollout.importance_correction=none.",
        )
    if rollout.engine == "vllm_colocate" and processes % rollout.tensor_parallel:
        raise ConfigError(
            f"algorithm.rollout.tensor_parallel: {rollout.tensor_parallel} does not divide the {processes} "
            "training processes that share out the engines.",
            f"Set algorithm.rollout.tensor_parallel={math.gcd(processes, rollout.tensor_parallel)} or another"
            " divisor.",
        )


def _check_grid(config: RunConfig) -> None:
    """A grid is over what trains a policy. A reward model is ranked at the point where it did best, so the
    reward model itself and what measures (prompts, judge, gold reward model) cannot be in it."""
    fixed = {"algorithm.kind", "algorithm.name"}
    known = flat(result_fields(config.algorithm), "algorithm").keys() - fixed
    for name, values in config.grid.items():
        if name not in known:
            raise ConfigError(
                f"grid: '{name}' is no field of the algorithm in which runs may differ.",
                did_you_mean(name, known),
            )
        if not values or len(set(values)) < len(values):
            raise ConfigError(
                f"grid: {name} has the values {list(values)}.", "Give it at least one value, and each once."
            )
