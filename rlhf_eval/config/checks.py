"""What a configuration must fulfil beyond the types of its fields: values that have to fit each other."""

import math
import re
from dataclasses import replace

from rlhf_eval.config.algorithm_schema import AccelerateConfig, BestOfNConfig, TrainedConfig
from rlhf_eval.config.plain import fingerprint, flat, plain
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.keys import without_secrets

NAME = re.compile(r"(?!.*--)[A-Za-z0-9_][A-Za-z0-9._-]*")


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
    algorithm = config.algorithm
    assert not isinstance(algorithm, BestOfNConfig)
    engine = algorithm.rollout.engine
    if algorithm.lora and engine != "transformers" and config.policy.train_dtype != "float32":
        # TRL merges the adapter into the weights and out again for every transfer to vLLM; in a 16-bit format
        # the base drifts (FIELD_NOTES: half of its mean magnitude in 200 transfers).
        raise ConfigError(
            "algorithm.lora with vLLM rollouts would let the policy's weights drift in "
            f"policy.train_dtype={config.policy.train_dtype}.",
            "Set policy.train_dtype=float32 and accelerate.mixed_precision=bf16.",
        )


def _check_grid(config: RunConfig) -> None:
    """A grid is over what trains a policy. A reward model is ranked at the point where it did best, so the
    reward model itself and what measures (prompts, judge, gold reward model) cannot be in it."""
    fixed = {"algorithm.kind", "algorithm.name"}
    known = flat(fingerprint(config.algorithm), "algorithm").keys() - fixed
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
