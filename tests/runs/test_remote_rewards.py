"""GRPO on the lab with the reward model behind our server: the same rewards as in the trainer's process."""

import threading
import time
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import read_jsonl
from rlhf_eval.lab.build import ensure
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.stages import execute
from tests.rewards.test_server import serving

CURVES = ("step", "reward", "reward_std", "proxy_reward", "gold_reward", "kl", "loss")


def through(address: str, small_lab: list[str], output: Path) -> RunConfig:
    words = ["reward_model.kind=remote", f"reward_model.endpoint.base_url={address}"]
    words += ["reward_model.endpoint.deadline_seconds=8", f"output={output}"]
    return compose([*small_lab, "reward_model=random", *words])


@pytest.fixture
def served(small_lab: list[str]) -> list[str]:
    """What the server is started with: the lab's `clean_small`."""
    lab = compose([*small_lab, "reward_model=lab_clean_small"]).lab
    assert lab is not None
    world = ensure(lab, 2, SilentProgress())
    return ["reward_model=lab_clean_small", f"reward_model.model={world}/reward_models/clean_small"]


def curves(path: Path) -> list[dict]:
    return [{name: row.get(name) for name in CURVES} for row in read_jsonl(path / "metrics.jsonl")]


def test_the_server_trains_as_the_process_does_and_may_go_away_in_between(
    small_lab: list[str], served: list[str], tmp_path: Path
) -> None:
    execute(compose([*small_lab, "reward_model=lab_clean_small"]), tmp_path / "here", SilentProgress())
    expected = [pytest.approx(row, abs=1e-4) for row in curves(tmp_path / "here")]
    with serving(*served) as (address, _):
        execute(through(address, small_lab, tmp_path), tmp_path / "there", SilentProgress())
    assert curves(tmp_path / "there") == expected

    alone = "reward_model.batch_tokens=1"  # a batch for each conversation: equal batches, here and there
    here = compose([*small_lab, "reward_model=lab_clean_small", alone])
    execute(here, tmp_path / "here_alone", SilentProgress())
    with serving(*served, alone) as (address, _):
        execute(through(address, small_lab, tmp_path), tmp_path / "there_alone", SilentProgress())
    assert curves(tmp_path / "there_alone") == curves(tmp_path / "here_alone")

    checkpoint = tmp_path / "broken" / "stages" / "train" / "checkpoints" / "checkpoint-2" / "complete.json"
    with serving(*served) as (address, server):

        def kill_in_the_middle() -> None:
            while not checkpoint.exists():
                time.sleep(0.002)
            server.kill()

        killer = threading.Thread(target=kill_in_the_middle)
        killer.start()
        with pytest.raises(StageError, match="scores of the reward model are invalid"):
            execute(through(address, small_lab, tmp_path), tmp_path / "broken", SilentProgress())
        killer.join()
    with serving(*served) as (elsewhere, _):
        execute(through(elsewhere, small_lab, tmp_path), tmp_path / "broken", SilentProgress())
    assert curves(tmp_path / "broken") == expected
