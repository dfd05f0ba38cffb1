"""No stage of a run leaves weights behind for the next, which wants the memory."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhf_eval.config.compose import compose
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import StageError
from rlhf_eval.progress import SilentProgress
from rlhf_eval.records import ScoreBatch
from rlhf_eval.rewards import stored
from rlhf_eval.rewards.interface import PointwiseRewardModel
from rlhf_eval.runs.stages import STAGES, execute, free

GOLD = "reward_model@gold_reward_model=lab_clean"
STAGE_NAMES = [name for name, _ in STAGES]


def parameters() -> list[Any]:
    """All parameters of torch that are alive in this process."""
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.nn.Parameter)]


class Watching(SilentProgress):
    """Counts the parameters that are alive and were not before: as stages begin and end, and in between."""

    def __init__(self) -> None:
        self.before = parameters()
        self.at: dict[tuple[str, str], int] = {}
        self.within = 0

    def new(self) -> int:
        known = set(map(id, self.before))  # kept alive, so that no later one gets the same id
        return sum(id(parameter) not in known for parameter in parameters())

    def stage(self, name: str, state: str) -> None:
        self.at[name, state] = self.new()

    def advance(self, done: int, total: int, text: str = "") -> None:
        self.within = self.within or self.new()

    def left(self, state: str) -> dict[str, int]:
        return {name: self.at[name, state] for name in STAGE_NAMES if (name, state) in self.at}


@pytest.fixture(autouse=True)
def no_luck() -> Iterator[None]:
    """Python looks for cycles when enough objects were made; here only when it is told to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "best_of_n"])
def test_no_stage_leaves_weights_behind(small_lab: list[str], tmp_path: Path, algorithm: str) -> None:
    words = {
        "grpo": [*small_lab],
        "ppo": [*small_lab, "algorithm=ppo_lab", "algorithm.completions_per_device_batch=2"],
        "best_of_n": [word for word in small_lab if not word.startswith("algorithm.")]
        + ["algorithm=best_of_n_lab", "algorithm.samples=2", "algorithm.normaliser_prompts=8"],
    }[algorithm]
    words += ["reward_model=lab_clean_small", GOLD]
    config = compose([*words, "prompts.arena_hard.baseline_answers=base"])
    watching = Watching()
    execute(config, tmp_path / "run", watching)
    assert watching.within > 0
    assert watching.left("running") == dict.fromkeys(STAGE_NAMES, 0)
    assert watching.left("done") == dict.fromkeys(STAGE_NAMES, 0)


def test_a_run_that_failed_leaves_no_weights_behind_for_the_next_in_its_process(
    small_lab: list[str], tmp_path: Path
) -> None:
    failing = compose([*small_lab, "reward_model=lab_clean_small", GOLD, "algorithm.learning_rate=1e30"])
    watching = Watching()
    with suppress(StageError):
        execute(failing, tmp_path / "run", watching)
    assert ("train", "done") not in watching.at
    assert watching.new() > 0  # the trainer and what it holds refer to each other
    config = compose([*small_lab, "reward_model=untrained", GOLD])
    watching.at.clear()
    execute(config, tmp_path / "next", watching)
    assert watching.left("running") == watching.left("done") == dict.fromkeys(STAGE_NAMES, 0)


def test_weights_that_vllm_told_python_to_pass_over_are_freed() -> None:
    """vLLM calls `gc.freeze` when it starts, and in the training process everything else is there already."""
    parameter: Any = torch.nn.Parameter(torch.zeros(1))
    parameter.itself = parameter
    alive = weakref.ref(parameter)
    gc.freeze()
    del parameter
    gc.collect()
    assert alive() is not None
    free()
    assert alive() is None


def test_copies_of_a_stored_reward_model_share_its_weights_and_let_them_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Weights(PointwiseRewardModel):
        def score(self, conversations: Any) -> ScoreBatch:
            return ScoreBatch(np.zeros(len(conversations)), np.ones(len(conversations), dtype=bool))

    loaded: list[weakref.ref[Any]] = []

    def load(config: RewardModelConfig) -> Weights:
        model = Weights()
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(stored, "load_reward_model", load)
    model = stored.StoredRewardModel(RewardModelConfig("x", "random"), tmp_path, SilentProgress())
    copies = [model, model.salted(str), model.salted(repr)]
    assert len({id(copy.model) for copy in copies}) == len(loaded) == 1
    del model, copies
    assert loaded[0]() is None  # without a look for cycles
