"""What every test may use."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
for name in ("NO_PROXY", "no_proxy"):  # servers of the tests are on loopback
    os.environ.setdefault(name, "127.0.0.1,localhost")

ROOT = Path(__file__).parents[1]
GOLDEN = Path(os.environ.get("RLHF_EVAL_GOLDEN", ROOT / ".." / "shared" / "golden")).resolve()
VLLM = ROOT / ".venv-vllm" / "bin" / "python"

# No test fails because the machine is busy.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

SLOW = (
    "tests/slurm/",
    "tests/training/test_processes.py",
    "tests/training/test_eight_gpus.py",
    "tests/training/test_vllm_rollouts.py",
    "tests/training/test_vllm_server_rollouts.py",
    "tests/docs/test_pages.py",
    "tests/training/test_resume.py",
    "tests/audit/test_audit.py",
    "tests/security/",
)
"""What takes minutes: `make test-slow`. Begun last, it would keep a single process busy while others rest."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process takes a file; all of SLURM's are for the same: they mostly wait for the one cluster, which
    leaves the cores to its jobs and to the other processes."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "slurm" if nodeid.startswith("tests/slurm/") else super()._split_scope(nodeid)

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; tests of what is not on this machine are skipped, saying how to get it."""
    order = {name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: next((order[n] for n in SLOW if item.nodeid.startswith(n)), len(SLOW)))
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    absent = {}
    if not GOLDEN.is_dir():
        absent["golden"] = f"no published data at {GOLDEN}; $RLHF_EVAL_GOLDEN names their folder"
    if not VLLM.exists():
        absent["vllm"] = "no vLLM; `make setup-vllm` installs it"
    for item in items:
        for mark, reason in absent.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of published data; tests that use it carry the mark `golden`."""
    return GOLDEN


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for `compose`: the lab, small enough to be built in half a minute, and a short training.

    The first test that executes a run builds the world; all worker processes of pytest share it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    sizes = {
        "lab.policy_steps": 80,
        "lab.clean_pairs": 128,
        "lab.noisy_pairs": 64,
        "lab.small_pairs": 32,
        "lab.reward_model_steps": 8,
        "lab.benchmark_pairs": 32,
        "lab.evaluation_prompts": 24,
        "algorithm.steps": 6,
        "algorithm.prompts_per_step": 2,
        "algorithm.group_size": 4,
        "algorithm.completions_per_device_batch": 8,
        "algorithm.checkpoint_every": 2,
        "algorithm.normaliser_prompts": 8,
        "prompts.held_out_limit": 4,
        "prompts.held_out_samples": 2,
        "generation.batch_size": 8,
    }
    return [
        "experiment=lab",
        f"lab.cache={shared / 'lab'}",
        *(f"{field}={value}" for field, value in sizes.items()),
    ]


@pytest.fixture(scope="session")
def vllm_server() -> Callable[..., Any]:
    """A function: model folder and options → a context with the address of vLLM's HTTP server."""

    @contextmanager
    def serving(model: Path, *options: str) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = ["--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
        words += ["--enforce-eager", "--gpu-memory-utilization", "0.2"]  # of the machine's memory
        command = [str(VLLM), "-m", "vllm.entrypoints.openai.api_server", *words, *options]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        log = model / "vllm.log"
        with log.open("w") as out:
            # A session of its own, because the server has children that must end with it.
            server = subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, start_new_session=True
            )
        address = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                assert server.poll() is None, log.read_text()[-3000:]
                with suppress(httpx.TransportError):
                    if httpx.get(f"{address}/health").is_success:
                        break
                time.sleep(0.5)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    return serving


@pytest.fixture(scope="session")
def tiny_llama() -> Callable[..., Any]:
    """A function: writes the lab's tokenizer to a folder, returns the config of a Llama that fits it."""

    def config(folder: Path, **changes: Any) -> Any:
        from transformers import AutoTokenizer, LlamaConfig

        from rlhf_eval.lab.tokenizer import build_tokenizer

        build_tokenizer(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **changes,
        )

    return config
