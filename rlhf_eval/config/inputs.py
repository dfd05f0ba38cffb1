"""What a configuration refers to outside itself, and whether it is there: known before anything is loaded."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import BASE, JudgeConfig, RunConfig
from rlhf_eval.errors import ConfigError

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")

FOUND = "found"
MISSING = "missing"
BUILT = "built on demand"
MADE = "answered by the policy base"
UNCHECKED = "on the hub, not checked here"
UNSET = "not set here"
NOT_INSTALLED = "not installed here"


@dataclass(frozen=True)
class Input:
    """One reference: the dotted path of the field, its value, and what was found."""

    field: str
    value: str
    state: str


def inputs(config: RunConfig) -> list[Input]:
    """Every source, model, engine and environment variable that the run will need."""
    found = [Input(field, value, _source_state(value)) for field, value in _sources(config)]
    found += [Input(field, value, _model_state(value)) for field, value in _models(config)]
    if config.generation.engine == "vllm" and config.generation.python is None:
        found.append(Input("generation.engine", "vllm", FOUND if find_spec("vllm") else NOT_INSTALLED))
    if variable := config.judge.api_key_variable:
        state = FOUND if os.environ.get(variable) else UNSET
        found.append(Input("judge.api_key_variable", variable, state))
    found += [
        Input(field, value, FOUND if os.environ.get(value) else UNSET) for field, value in _keys(config)
    ]
    return found


def require_inputs(config: RunConfig) -> None:
    """Raises ConfigError, naming the fields, if a local file or folder is missing or the lab is not there."""
    for item in inputs(config):
        if item.state == BUILT and config.lab is None:
            raise ConfigError(
                f"{item.field}: '{item.value}' belongs to the embedded lab, but `lab` is null.",
                "Add experiment=lab, or give a local path or a hub name.",
            )
    missing = [item for item in inputs(config) if item.state == MISSING]
    if missing:
        names = "; ".join(f"{item.field}: '{item.value}'" for item in missing)
        raise ConfigError(f"These do not exist (looked in {Path.cwd()}): {names}.", "Correct the paths.")


def _sources(config: RunConfig) -> Iterator[tuple[str, str]]:
    prompts = config.prompts
    yield "prompts.train", prompts.train
    yield "prompts.held_out", prompts.held_out
    yield "prompts.alpaca_eval.reference_outputs", prompts.alpaca_eval.reference_outputs
    if prompts.alpaca_eval.difficulty:
        yield "prompts.alpaca_eval.difficulty", prompts.alpaca_eval.difficulty
    if prompts.alpaca_eval.regulariser:
        yield "prompts.alpaca_eval.regulariser", prompts.alpaca_eval.regulariser
    yield "prompts.arena_hard.questions", prompts.arena_hard.questions
    yield "prompts.arena_hard.baseline_answers", prompts.arena_hard.baseline_answers
    for category, source in prompts.arena_hard.category_baseline_answers.items():
        yield f"prompts.arena_hard.category_baseline_answers.{category}", source
    if prompts.arena_hard.style_normalisation:
        yield "prompts.arena_hard.style_normalisation", prompts.arena_hard.style_normalisation
    if config.judge.arena_hard_prompt:
        yield "judge.arena_hard_prompt", config.judge.arena_hard_prompt
    for root in ("reward_model", "gold_reward_model"):
        for field, reward_model in nested(root, getattr(config, root)):
            if reward_model.chat_template:
                yield f"{field}.chat_template", reward_model.chat_template
    for name, benchmark in config.benchmarks.items():
        for part, source in benchmark.data.items():
            yield f"benchmarks.{name}.data.{part}", source


def _models(config: RunConfig) -> Iterator[tuple[str, str]]:
    yield "policy.model", config.policy.model
    for root in ("reward_model", "gold_reward_model"):
        for field, reward_model in nested(root, getattr(config, root)):
            if reward_model.model and reward_model.endpoint is None:
                yield f"{field}.model", reward_model.model
            if reward_model.reference:
                yield f"{field}.reference", reward_model.reference


def nested(field: str, reward_model: RewardModelConfig | None) -> Iterator[tuple[str, RewardModelConfig]]:
    """A reward model and all that it wraps or is made of, each with its dotted path."""
    if reward_model is not None:
        yield field, reward_model
        yield from nested(f"{field}.inner", reward_model.inner)
        for name, member in reward_model.ensemble.members.items() if reward_model.ensemble else ():
            yield from nested(f"{field}.ensemble.members.{name}.reward_model", member.reward_model)


def judges(config: RunConfig) -> dict[str, JudgeConfig]:
    """Every judge of a run, by its dotted path."""
    return {"judge": config.judge} | {f"second_judges.{n}": j for n, j in config.second_judges.items()}


def _keys(config: RunConfig) -> Iterator[tuple[str, str]]:
    if config.generation.api_key_variable:
        yield "generation.api_key_variable", config.generation.api_key_variable
    for name, judge in config.second_judges.items():
        if judge.api_key_variable:
            yield f"second_judges.{name}.api_key_variable", judge.api_key_variable
    for field, reward_model in nested("reward_model", config.reward_model):
        if reward_model.endpoint and reward_model.endpoint.api_key_variable:
            yield f"{field}.endpoint.api_key_variable", reward_model.endpoint.api_key_variable


def _source_state(value: str) -> str:
    if value.startswith("lab:"):
        return BUILT
    if value == BASE:
        return MADE
    if value.startswith("hf://"):
        return UNCHECKED
    return FOUND if Path(value).expanduser().exists() else MISSING


def _model_state(value: str) -> str:
    if value.startswith("lab:"):
        return BUILT
    if Path(value).expanduser().is_dir():
        return FOUND
    return UNCHECKED if HUB_NAME.fullmatch(value) and not value.startswith(".") else MISSING
