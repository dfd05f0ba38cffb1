"""kill -9 at any moment and the same command again: the weights of an undisturbed training."""

import random
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.files import read_jsonl, sha256_file
from rlhf_eval.processes import fork_context
from rlhf_eval.training.arguments import trained
from rlhf_eval.training.checkpoints import COMPLETE, last_complete
from rlhf_eval.training.launch import launch

LORA = "algorithm.lora={rank: 4}"
PPO = ("algorithm=ppo_lab", "algorithm.epochs=2", "algorithm.minibatches=2")


def folders(run: Path) -> tuple[Path, Path, Path]:
    return run / "stages" / "train", run / "metrics.jsonl", run / "train.log"


def weights(run: Path) -> dict[str, str]:
    """SHA-256 of what a training has published."""
    policy = folders(run)[0] / "policy"
    return {file.name: sha256_file(file) for file in sorted(policy.glob("*.safetensors"))}


def silent(*_: Any) -> None:
    """Tells nobody how far a training is."""


def launch_saying(config: RunConfig, run: Path) -> None:
    """The training; what it says when it fails is written down."""
    try:
        launch(config, *folders(run), silent)
    except StageError as error:
        (run / "said").write_text(error.what)
        raise


def start(config: RunConfig, run: Path) -> Any:
    folders(run)[0].mkdir(parents=True, exist_ok=True)
    process = fork_context().Process(target=launch_saying, args=(config, run))
    process.start()
    return process


def finish(config: RunConfig, run: Path) -> dict[str, str]:
    process = start(config, run)
    process.join()
    assert process.exitcode == 0
    return weights(run)


def kill_when(process: Any, has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not has_come():
        assert process.is_alive(), "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode == -9


def steps_done(run: Path) -> int:
    metrics = folders(run)[1]
    rows = read_jsonl(metrics) if metrics.exists() else []
    return max((row["step"] for row in rows if row["kind"] == "train"), default=0)


@pytest.mark.parametrize("lora", [(), (LORA,)], ids=["full", "lora"])
@pytest.mark.parametrize(
    "algorithm", [("algorithm=grpo_lab",), ("algorithm=rloo_lab",), PPO], ids=["grpo", "rloo", "ppo"]
)
def test_killed_at_a_step_it_ends_with_the_same_weights(
    training: Callable[..., RunConfig], algorithm: tuple[str, ...], lora: tuple[str, ...], tmp_path: Path
) -> None:
    config = training(*algorithm, *lora)
    undisturbed = finish(config, tmp_path / "undisturbed")
    run = tmp_path / "killed"
    process, step = start(config, run), random.Random(str((algorithm, lora))).randrange(2, 6)
    kill_when(process, lambda: steps_done(run) >= step)
    assert finish(config, run) == undisturbed
    rows = [read_jsonl(folders(r)[1]) for r in (tmp_path / "undisturbed", run)]
    curves = [[row for row in of if row["kind"] == "checkpoint"] for of in rows]
    assert curves[0] == curves[1]
    assert [row["step"] for row in rows[1]] == [row["step"] for row in rows[0]]


@pytest.mark.parametrize("algorithm", [("algorithm=grpo_lab",), (*PPO, LORA)], ids=["grpo", "ppo lora"])
def test_killed_while_a_checkpoint_is_written_it_ends_with_the_same_weights(
    training: Callable[..., RunConfig], algorithm: tuple[str, ...], tmp_path: Path
) -> None:
    config = training(*algorithm)
    undisturbed = finish(config, tmp_path / "undisturbed")
    run = tmp_path / "killed"
    checkpoints = folders(run)[0] / "checkpoints"
    begun = "adapter_config.json" if LORA in algorithm else "config.json"
    for step in (2, 4):  # the first checkpoint, and one that follows a complete one
        checkpoint = checkpoints / f"checkpoint-{step * trained(config).updates_per_step}"
        kill_when(start(config, run), (checkpoint / begun).exists)
        assert not (checkpoint / COMPLETE).exists()
    assert finish(config, run) == undisturbed


def test_seeds_give_rollouts_of_their_own(training: Callable[..., RunConfig], tmp_path: Path) -> None:
    found = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = training("algorithm=grpo_lab", "algorithm.steps=2", f"seed={seed}")
        found[name] = finish(config, tmp_path / name)
    assert found["a"] == found["b"]
    assert found["a"] != found["c"]


def test_a_full_disk_leaves_the_earlier_checkpoint(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = training("algorithm=grpo_lab")
    undisturbed, run = finish(config, tmp_path / "undisturbed"), tmp_path / "full"
    process = start(config, run)
    checkpoints = folders(run)[0] / "checkpoints"
    deadline = time.monotonic() + 120
    while not (checkpoints / "checkpoint-2" / COMPLETE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    # From now on the kernel lets the process write no file beyond 4 KiB.
    assert process.pid is not None
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    process.join()
    assert process.exitcode == 1
    assert "checkpoint could not be written" in (run / "said").read_text()
    assert last_complete(checkpoints) == checkpoints / "checkpoint-2"
    assert finish(config, run) == undisturbed


def test_the_peak_on_held_out_prompts_is_published(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    words = (
        "algorithm=grpo_lab",
        "reward_model=lab_flipped",
        "algorithm.learning_rate=0.002",
    )  # it gets worse
    at_peak = finish(training(*words, "algorithm.publish=peak"), tmp_path / "peak")
    rows = [row for row in read_jsonl(folders(tmp_path / "peak")[1]) if row["kind"] == "checkpoint"]
    best = max(rows[1:], key=lambda row: row["gold_reward"])
    assert best["step"] < 6
    assert at_peak == finish(training(*words, f"algorithm.steps={best['step']}"), tmp_path / "last")


def test_curves_go_where_they_are_reported(training: Callable[..., RunConfig], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = training("algorithm=grpo_lab", "algorithm.steps=2", "algorithm.report_to=[tensorboard]")
    finish(config, tmp_path)
    [file] = tmp_path.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file)).Reload()
    rows = [row for row in read_jsonl(folders(tmp_path)[1]) if row["kind"] == "checkpoint"]
    reported = [event.value for event in events.Scalars("train/held_out/kl")]
    assert reported == pytest.approx([row["kl"] for row in rows], rel=1e-5)
    assert len(events.Scalars("train/reward")) == 2


def test_a_reporter_that_is_not_there_is_named(training: Callable[..., RunConfig], tmp_path: Path) -> None:
    if find_spec("mlflow"):
        pytest.skip("mlflow is installed here")
    config = training("algorithm=grpo_lab", "algorithm.report_to=[mlflow]")
    with pytest.raises(ConfigError, match="names mlflow, which is not installed"):
        launch(config, *folders(tmp_path), silent)


def points(run: Path) -> list[dict[str, Any]]:
    metrics = folders(run)[1]
    return [r for r in read_jsonl(metrics) if r["kind"] == "checkpoint"] if metrics.exists() else []


@pytest.mark.parametrize("step", [2, 6], ids=["between", "at the end"])
def test_a_kill_while_a_checkpoint_is_measured_costs_the_measurement_alone(
    training: Callable[..., RunConfig], step: int, tmp_path: Path
) -> None:
    slow = ("prompts.held_out_limit=24", "prompts.held_out_samples=16")
    config = training("algorithm=grpo_lab", "algorithm.publish=peak", *slow)
    undisturbed, run = finish(config, tmp_path / "undisturbed"), tmp_path / "killed"
    checkpoint = folders(run)[0] / "checkpoints" / f"checkpoint-{step}"
    kill_when(start(config, run), (checkpoint / COMPLETE).exists)
    assert [row["step"] for row in points(run)][-1] < step  # it was being measured
    made = (checkpoint / "trainer_state.json").stat().st_mtime_ns
    assert finish(config, run) == undisturbed
    if checkpoint.exists():  # it was not written again
        assert (checkpoint / "trainer_state.json").stat().st_mtime_ns == made
    assert points(run) == points(tmp_path / "undisturbed")
    assert [row["step"] for row in read_jsonl(folders(run)[1]) if row["kind"] == "train"] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
