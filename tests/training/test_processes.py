"""Training on two CPU processes (gloo): by DDP, ZeRO-2 and ZeRO-3 alike, as one machine and as two, killed
and stopped at any moment.

Every algorithm by every strategy, in the number formats of GPUs, is in test_eight_gpus.py.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.processes import fork_context
from rlhf_eval.training.launch import launch
from tests.training.several import Job, train_all

FULL, LORA = (), ("algorithm.lora={rank: 4}",)
STRATEGIES = ("ddp", "zero2", "zero3")
# The critic's gradients are far above the bound, the policy's just above it.
CLIPPED = ("algorithm.max_grad_norm=0.2", "algorithm.value_coefficient=5")
ALIKE = {
    "grpo": ("grpo", FULL),
    "rloo": ("rloo", FULL),
    "ppo": ("ppo", ("algorithm.critic=policy", *LORA, *CLIPPED)),
}
"""What ends with the same weights by every strategy, in 32 bits: in 16 a sum depends on how it is shared
out."""
KILLED = [("ddp", "grpo", FULL), ("zero2", "rloo", FULL), ("zero3", "ppo", LORA)]


def words_of(strategy: str, algorithm: str, more: tuple[str, ...]) -> list[str]:
    one_update = ["algorithm.epochs=1", "algorithm.minibatches=1"] if algorithm == "ppo" else []
    processes = ["accelerate.processes=2", "accelerate.mixed_precision=no", "accelerate.device=cpu"]
    choices = [f"accelerate={strategy}", f"algorithm={algorithm}_lab", "algorithm.steps=4"]
    return [*choices, *processes, *more, *one_update]


def begin(config: RunConfig, run: Path) -> Any:
    folder = run / "stages" / "train"
    folder.mkdir(parents=True, exist_ok=True)
    process = fork_context().Process(
        target=launch, args=(config, folder, run / "metrics.jsonl", run / "train.log", silent)
    )
    process.start()
    return process


def silent(*_: Any) -> None:
    """Tells nobody how far a training is."""


def finish(config: RunConfig, run: Path) -> dict[str, Any]:
    """Train to the end, and the published weights as tensors."""
    process = begin(config, run)
    process.join()
    log = run / "train.log"
    assert process.exitcode == 0, log.read_text()[-3000:] if log.exists() else "no log"
    return published(run)


def published(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    [file] = (run / "stages" / "train" / "policy").glob("*.safetensors")
    return load_file(file)


def steps(run: Path) -> list[int]:
    metrics = run / "metrics.jsonl"
    return [r["step"] for r in read_jsonl(metrics) if r["kind"] == "train"] if metrics.exists() else []


def living_workers(run: Path) -> list[str]:
    found = subprocess.run(["pgrep", "-af", str(run)], capture_output=True, text=True).stdout
    return [line for line in found.splitlines() if "rlhf_eval.training" in line]


@pytest.fixture(scope="module")
def results(
    training: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], dict[str, Any]]:
    """Published weights by strategy and algorithm."""
    made = {}
    for strategy in STRATEGIES:
        folder = tmp_path_factory.mktemp(strategy)
        configs = {name: training(*words_of(strategy, *of)) for name, of in ALIKE.items()}
        train_all([Job(config, folder / name) for name, config in configs.items()], folder / "start")
        made |= {(strategy, name): published(folder / name) for name in ALIKE}
    return made


@pytest.mark.parametrize("algorithm", ALIKE)
def test_strategies_end_with_the_same_weights(
    results: dict[tuple[str, str], dict[str, Any]], algorithm: str
) -> None:
    first, *others = (results[strategy, algorithm] for strategy in STRATEGIES)
    for other in others:
        assert other.keys() == first.keys()
        assert max((other[name] - first[name]).abs().max().item() for name in other) < 1e-5


@pytest.mark.parametrize(("strategy", "algorithm", "lora"), KILLED)
def test_after_kill_9_nothing_lives_on_and_the_training_continues(
    training: Callable[..., RunConfig],
    strategy: str,
    algorithm: str,
    lora: tuple[str, ...],
    tmp_path: Path,
) -> None:
    config = training(*words_of(strategy, algorithm, lora))
    process = begin(config, tmp_path)
    deadline = time.monotonic() + 180
    while max(steps(tmp_path), default=0) < 3:
        assert process.is_alive(), (tmp_path / "train.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()
    while living_workers(tmp_path):  # none outlives the process that started them
        assert time.monotonic() < deadline
        time.sleep(0.05)
    finish(config, tmp_path)
    assert steps(tmp_path) == [1, 2, 3, 4]


def test_as_two_machines_it_ends_with_the_same_weights(
    training: Callable[..., RunConfig],
    results: dict[tuple[str, str], dict[str, Any]],
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = words_of("ddp", "grpo", FULL)
    config = training(*words, "accelerate.machines=2", f"accelerate.main_address={address}")
    first = begin(config, tmp_path)
    folder = tmp_path / "stages" / "train"
    deadline = time.monotonic() + 60
    while not (folder / "accelerate.yaml").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # What the run shows for the other machine.
    command = [sys.executable, "-m", "rlhf_eval.training.node", str(folder), "1"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=240)
    first.join()
    assert (first.exitcode, second.returncode) == (0, 0), second.stderr[-3000:]
    one_machine, weights = results["ddp", "grpo"], published(tmp_path)
    assert all((weights[name] == one_machine[name]).all() for name in weights)


def test_sigterm_saves_and_the_same_command_continues(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """The command line's process hands the wish on to its training processes."""
    config = training(*words_of("ddp", "grpo", FULL), "algorithm.steps=200", "algorithm.checkpoint_every=100")
    program = (
        "import sys; from pathlib import Path\n"
        "from rlhf_eval.config.compose import load\n"
        "from rlhf_eval.interruption import Interrupted, listen\n"
        "from rlhf_eval.training.launch import launch\n"
        "listen(); run = Path(sys.argv[1])\n"
        "try:\n"
        "    launch(load(run / 'config.yaml'), run / 'stages' / 'train', run / 'metrics.jsonl',\n"
        "           run / 'train.log', lambda *_: None)\n"
        "except Interrupted: sys.exit(75)\n"
    )
    from rlhf_eval.config.compose import freeze

    (tmp_path / "stages" / "train").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text(freeze(config))
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    deadline = time.monotonic() + 120
    while max(steps(tmp_path), default=0) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    stopped_at = max(steps(tmp_path))
    assert stopped_at < 200
    checkpoints = tmp_path / "stages" / "train" / "checkpoints"
    assert (checkpoints / f"checkpoint-{stopped_at}" / "complete.json").exists()
    # Points of the curves stand where they were planned, and nowhere else.
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "checkpoint"] == [0]


def test_what_a_worker_says_reaches_the_user(training: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = training(*words_of("ddp", "grpo", FULL), "algorithm.learning_rate=1e30")
    folder = tmp_path / "stages" / "train"
    folder.mkdir(parents=True)
    with pytest.raises(StageError, match=r"loss is not finite at step \d[\s\S]*learning_rate"):
        launch(config, folder, tmp_path / "metrics.jsonl", tmp_path / "train.log", silent)


def test_a_gpu_for_every_process_is_asked_for_beforehand(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    import torch

    if torch.cuda.device_count() >= 16:
        pytest.skip("this machine has 16 GPUs")
    words = ["accelerate=ddp", "accelerate.processes=16", "accelerate.device=cuda"]
    config = training(*words, "algorithm.prompts_per_step=16")
    with pytest.raises(ConfigError, match="needs 16 GPUs on this machine"):
        launch(config, tmp_path, tmp_path / "metrics.jsonl", tmp_path / "train.log", silent)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("address", "said"), [("taken", r"port \d+ cannot be used.*in use"), ("node7", "must be host:port")]
)
def test_an_address_where_processes_cannot_meet_is_refused_beforehand(
    training: Callable[..., RunConfig], address: str, said: str, tmp_path: Path
) -> None:
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}" if address == "taken" else address
        words = words_of("ddp", "grpo", FULL)
        config = training(*words, "accelerate.machines=2", f"accelerate.main_address={address}")
        with pytest.raises(ConfigError, match=said):
            launch(config, tmp_path, tmp_path / "metrics.jsonl", tmp_path / "train.log", silent)
    assert os.listdir(tmp_path) == []


def test_a_process_without_a_gpu_of_its_own_says_so() -> None:
    from rlhf_eval.training.worker import _require_gpu

    _require_gpu(0, 3)  # a machine without GPUs
    _require_gpu(4, 3)
    with pytest.raises(ConfigError, match="has 4 GPUs, and at least 5 training processes"):
        _require_gpu(4, 4)


def test_how_long_processes_wait_for_each_other_is_what_every_deadline_is_below(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """Read off the groups of processes that a training has made, under `accelerate launch`."""
    from rlhf_eval.config.algorithm_schema import COLLECTIVE_SECONDS
    from rlhf_eval.config.checks import ASKING_SECONDS
    from rlhf_eval.training.rollouts import SERVER_SECONDS

    for strategy in ("ddp", "zero2"):
        run = tmp_path / strategy
        config = training(*words_of(strategy, "grpo", FULL), "algorithm.steps=1")
        train_all([Job(config, run)], tmp_path / f"start {strategy}")
        for process in (0, 1):
            assert read_json(run / f"patience-{process}.json") == COLLECTIVE_SECONDS
    assert max(ASKING_SECONDS, SERVER_SECONDS) < COLLECTIVE_SECONDS
