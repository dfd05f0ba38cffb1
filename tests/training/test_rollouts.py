"""What TRL's vLLM is given by us: seeds, whole weights, deadlines; and what is refused beforehand.

vLLM itself samples in test_vllm_rollouts.py.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.training import rollouts
from rlhf_eval.training.critic import attach_critic
from rlhf_eval.training.launch import launch
from tests.training.test_ppo import options


class Sampling(SimpleNamespace):
    """vLLM's SamplingParams as far as they are used."""

    def clone(self) -> "Sampling":
        return copy(self)


def fake_trainer(update: int, process: int, sharing: int, seen: list[list[int]]) -> Any:
    llm = SimpleNamespace(
        generate=lambda prompts, sampling_params: seen.append([s.seed for s in sampling_params])
    )
    vllm = SimpleNamespace(
        mode="colocate", llm=llm, tensor_parallel_size=sharing, _dist=SimpleNamespace(gather_params=None)
    )
    accelerator = SimpleNamespace(process_index=process)
    state = SimpleNamespace(global_step=update)
    return SimpleNamespace(vllm_generation=vllm, accelerator=accelerator, state=state, model=None)


def seeds(seed: int, update: int, process: int, rows: int = 4, sharing: int = 1) -> list[int]:
    seen: list[list[int]] = []
    trainer = fake_trainer(update, process, sharing, seen)
    rollouts.prepare(trainer, seed)
    trainer.vllm_generation.llm.generate([[1]] * rows, sampling_params=Sampling())
    return seen[0]


def test_every_completion_of_every_run_step_and_process_has_a_seed_of_its_own() -> None:
    drawn = [
        s for seed in (0, 1) for update in (0, 4) for process in (0, 1) for s in seeds(seed, update, process)
    ]
    assert len(set(drawn)) == len(drawn) == 32


def test_seeds_depend_on_nothing_that_a_restart_forgets() -> None:
    assert seeds(3, 8, 1) == seeds(3, 8, 1)


def test_processes_that_share_an_engine_give_it_the_same_seeds() -> None:
    assert seeds(0, 0, 0, 8, sharing=2) == seeds(0, 0, 1, 8, sharing=2)
    assert not set(seeds(0, 0, 0, 8, sharing=2)) & set(seeds(0, 0, 2, 8, sharing=2))


def test_a_server_is_asked_prompt_by_prompt_with_a_seed() -> None:
    asked: dict[int, int] = {}

    def generate(prompts: list[list[int]], n: int, generation_kwargs: dict[str, Any]) -> dict[str, Any]:
        [prompt] = prompts
        asked[prompt[0]] = generation_kwargs["seed"]
        return {"prompt_ids": prompts, "completion_ids": [[prompt[0], k] for k in range(n)], "logprobs": None}

    client = SimpleNamespace(generate=generate)
    vllm = SimpleNamespace(mode="server", vllm_client=client, _dist=SimpleNamespace(gather_params=None))
    accelerator = SimpleNamespace(is_main_process=True)
    state = SimpleNamespace(global_step=2)
    trainer = SimpleNamespace(vllm_generation=vllm, accelerator=accelerator, state=state, model=None)
    rollouts.prepare(trainer, 5)
    output = client.generate(prompts=[[7], [8]], n=2, generation_kwargs={})
    assert output["completion_ids"] == [[7, 0], [7, 1], [8, 0], [8, 1]]
    assert asked == {7: rollouts.request_seed(5, 2, 0), 8: rollouts.request_seed(5, 2, 1)}


class Server(BaseHTTPRequestHandler):
    """As vLLM's to a client that begins; then `how` it fails."""

    how = ""

    def do_GET(self) -> None:
        if self.path == "/health" and self.how == "starting for ever":
            self.answer(503, {})
        elif self.path == "/health" and self.how == "deaf":
            time.sleep(3)
        elif self.path == "/health":
            self.answer(200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"data": [{"id": "policy"}]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        if self.how == "hangs":
            time.sleep(3)
        elif self.how == "dies":
            self.connection.close()
        else:
            self.answer(400, {"error": "The prompt is too long."})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A function: how the server fails → what asks it for TRL, once it is connected."""
    vllm_client = pytest.importorskip("trl.generation.vllm_client")
    monkeypatch.setattr(vllm_client, "is_vllm_available", lambda: True)
    monkeypatch.setattr(rollouts, "SERVER_SECONDS", 0.5)
    monkeypatch.setattr(rollouts, "HEALTH_SECONDS", 0.5)
    servers = []

    def connected(how: str) -> Any:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Server,), {"how": how})))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{servers[-1].server_port}"
        return rollouts._client_class()(base_url=url, connection_timeout=0.1)

    yield connected
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("how", ["starting for ever", "deaf"])
def test_a_server_that_is_not_there_in_time(client: Callable[[str], Any], how: str) -> None:
    with pytest.raises(StageError, match=r"at http://127\.0\.0\.1:\d+ is not there after 0 s"):
        client(how)


def test_a_server_that_cannot_take_weights(client: Callable[[str], Any]) -> None:
    with pytest.raises(StageError, match=r"VLLM_SERVER_DEV_MODE=1[\s\S]*training\.rollout_server <run"):
        client("started by hand").init_communicator("cuda")


@pytest.mark.parametrize(
    ("how", "said"), [("refuses", "The prompt is too long"), ("hangs", "timed out"), ("dies", "failed: ")]
)
def test_a_server_that_does_not_do_what_it_is_asked(
    client: Callable[[str], Any], how: str, said: str
) -> None:
    """It is not asked again: what it may have begun, such as taking weights, is not begun twice."""
    asked = client(how)
    begin = time.monotonic()
    with pytest.raises(StageError, match=rf"{said}[\s\S]*the same command: it continues") as caught:
        asked.generate([[1]])
    assert time.monotonic() - begin < 3
    assert f"vLLM's server of rollouts at {asked.base_url} failed" in caught.value.what


def test_weights_that_are_cut_off_with_the_server(client: Callable[[str], Any]) -> None:
    """They do not go by HTTP: whether the server has gone is asked. Other failures are left as they are."""

    def weights() -> Iterator[Any]:
        raise RuntimeError("out of memory")
        yield

    asked = client("refuses")
    asked._updating_weights = True  # TRL's: it does not ask the server to begin
    asked._post = lambda *words, **named: None
    vllm_client: Any = sys.modules["trl.generation.vllm_client"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_client, "_HAS_STATEFUL_TRAINER_ENGINE", True)
        send = lambda iterator, **named: list(iterator)  # noqa: E731
        patch.setattr(vllm_client, "packed_nccl_broadcast_producer", send, raising=False)
        with pytest.raises(RuntimeError, match="out of memory"):
            asked.update_named_params([("w", "float32", [1])], weights())
        patch.setattr(asked, "is_well", lambda: False)
        with pytest.raises(StageError, match="took no weights: out of memory"):
            asked.update_named_params([("w", "float32", [1])], weights())


@contextmanager
def gathered(_: list[Any]) -> Iterator[None]:
    """Weights that are whole already."""
    yield


@pytest.fixture
def policy_folder(tmp_path: Path, tiny_llama: Callable[..., Any]) -> Path:
    import torch
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(tiny_llama(tmp_path / "policy")).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def with_adapters(folder: Path, dtype: str) -> Any:
    """A policy whose adapters have learnt something."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    return model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_base_is_the_same_after_50_transfers_of_merged_adapters(policy_folder: Path, dtype: str) -> None:
    """PEFT's own merging in place, as TRL does it for vLLM, drifts in bf16: that is shown too."""
    import torch

    model = with_adapters(policy_folder, dtype)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(50):
        given = dict(rollouts.whole_weights(model, gathered))
    assert all(value.equal(before[name]) for name, value in model.named_parameters())
    exact = with_adapters(policy_folder, "float32")
    expected = exact.merge_and_unload().state_dict()
    assert given.keys() == {name for name, _ in exact.get_base_model().named_parameters()}
    for name, value in given.items():
        assert value.dtype == getattr(torch, dtype)
        assert value.float().allclose(expected[name], atol=1e-6 if dtype == "float32" else 4e-3, rtol=1e-2)
    for _ in range(50):
        model.merge_adapter()
        model.unmerge_adapter()
    drifted = [n for n, value in model.named_parameters() if not value.allclose(before[n], atol=1e-6, rtol=0)]
    assert bool(drifted) == (dtype == "bfloat16")


def test_a_critic_stays_at_home_and_tied_weights_go_once(policy_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(policy_folder)
    names = {name for name, _ in model.named_parameters()}
    policy: Any = SimpleNamespace(model=str(policy_folder), revision=None, train_dtype="float32")
    attach_critic(model, options(critic="policy"), policy, checkpointing=False)
    given = [name for name, _ in rollouts.whole_weights(model, gathered)]
    assert len(given) == len(set(given))
    assert set(given) == names


@pytest.mark.parametrize("engine", ["vllm_colocate", "vllm_server"])
def test_without_vllm_it_is_asked_for_before_anything_is_loaded(
    training: Callable[..., RunConfig], engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "find_spec", lambda name: None)
    server = ["algorithm.rollout.server_url=http://127.0.0.1:9"]
    config = training("algorithm=grpo_lab", f"algorithm.rollout.engine={engine}", *server)
    with pytest.raises(ConfigError, match=f"engine={engine} needs vLLM"):
        launch(config, tmp_path, tmp_path / "metrics.jsonl", tmp_path / "log", lambda *_: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "refused"), [("0.21.3", True), ("0.31.0", False), ("0.31.2", True), ("0.32.0", True)]
)
def test_a_vllm_that_trl_does_not_drive_is_refused(
    training: Callable[..., RunConfig], found: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "find_spec", lambda name: True)
    monkeypatch.setattr(rollouts, "version", lambda name: found)
    config: Any = training("algorithm=grpo_lab", "algorithm.rollout.engine=vllm_colocate")
    if not refused:
        rollouts.require_vllm(config.algorithm)
        return
    with pytest.raises(
        ConfigError, match=rf"vLLM {found} is installed; TRL drives versions 0\.22\.0 to 0\.31\.0"
    ):
        rollouts.require_vllm(config.algorithm)


def test_a_server_without_an_address_is_refused(
    training: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "find_spec", lambda name: True)
    monkeypatch.setattr(rollouts, "version", lambda name: "0.31.0")
    config: Any = training("algorithm=grpo_lab", "algorithm.rollout.engine=vllm_server")
    with pytest.raises(ConfigError, match=r"server_url is missing[\s\S]*rollout_server"):
        rollouts.require_vllm(config.algorithm)
