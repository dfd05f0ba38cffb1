"""Trainings on the small lab: configurations with every path resolved, and what came out of them."""

import json
from collections.abc import Callable

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_jsonl
from rlhf_eval.lab.build import ensure
from rlhf_eval.progress import SilentProgress
from rlhf_eval.sources import localise

SIZES = (
    "algorithm.steps=6",
    "algorithm.prompts_per_step=2",
    "algorithm.group_size=4",
    "algorithm.completions_per_device_batch=2",
    "algorithm.checkpoint_every=2",
    "algorithm.normaliser_prompts=4",
)
PROMPTS = 5
"""Fewer than a training takes: every one goes past its first epoch."""


@pytest.fixture(scope="session")
def training(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunConfig]:
    """A function: overrides → the configuration of a short training, ready to be launched."""
    world_words = [word for word in small_lab if not word.startswith("algorithm.")]
    first = compose([*world_words, "reward_model=lab_clean_small"])
    assert first.lab is not None
    world = ensure(first.lab, 1, SilentProgress())
    rows = read_jsonl(world / "data" / "train_prompts.jsonl")[:PROMPTS]
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def configured(*words: str) -> RunConfig:
        choice = "reward_model=lab_clean_small"
        config = compose([*world_words, choice, f"prompts.train={prompts}", *SIZES, *words])
        return localise(config, world)

    return configured
