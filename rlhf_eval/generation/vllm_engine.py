"""Sampling with vLLM in a process of its own (`vllm_worker.py`), prompt by prompt as they finish."""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlhf_eval.generation.engines import Job, Keep, Request
from rlhf_eval.generation.policy import completion, published_stop_tokens
from rlhf_eval.generation.worker_process import WorkerProcess, started

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for its `max_lora_rank`."""


@dataclass(frozen=True)
class VllmEngine:
    """Every prompt is seeded by itself, so answers do not depend on which others are sampled beside it
    (but for rounding: batches of other sizes may round differently in the last bits)."""

    worker: WorkerProcess
    job: Job
    stops: list[int]

    def answer(self, requests: Sequence[Request], done: Collection[str], keep: Keep) -> None:
        """Send all open prompts at once and hand on each answer as it comes.

        Raises:
            StageError: the worker ended; its last words are in the message.
        """
        missing = [request for request in requests if request.prompt_id not in done]
        self.worker.say([{"id": r.prompt_id, "tokens": r.tokens, "seed": r.seed} for r in missing])
        for _ in missing:
            answer = json.loads(self.worker.hear())
            keep([completion(answer["id"], answer["tokens"], self.stops, self.job.tokenizer)])


@contextmanager
def open_engine(job: Job) -> Iterator[VllmEngine]:
    """The engine with its weights loaded.

    Raises:
        ConfigError: `generation.python` has no vLLM.
        StageError: vLLM could not load the policy.
    """
    stops = published_stop_tokens(job.policy, job.parts, job.tokenizer)
    with started(job.config.python, "vllm_worker.py", (), job.log) as worker:
        engine = vllm_options(job) | {"disable_log_stats": True}
        worker.say({"engine": engine, "sampling": sampling(job, stops), "adapter": job.parts.adapter})
        worker.hear()
        yield VllmEngine(worker, job, stops)


def vllm_options(job: Job) -> dict[str, Any]:
    """What vLLM is to load and how, by the names of its engine's arguments."""
    parts, config = job.parts, job.config
    options: dict[str, Any] = {
        "model": parts.base,
        "tokenizer": parts.tokenizer,
        "dtype": job.policy.dtype,
        # Its default reads pickles too.
        "load_format": "safetensors",
        "max_model_len": job.context,
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel,
        "gpu_memory_utilization": config.gpu_memory_share,
        # Sampling comes from our configuration alone.
        "generation_config": "vllm",
        "seed": 0,
    }
    if parts.revision is not None:
        options["revision"] = parts.revision
    if parts.tokenizer_revision is not None:
        options["tokenizer_revision"] = parts.tokenizer_revision
    if parts.adapter is not None:
        rank = next((rank for rank in LORA_RANKS if rank >= parts.rank), parts.rank)
        options |= {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}
    return options


def sampling(job: Job, stops: list[int]) -> dict[str, Any]:
    """Parameters of sampling by the names of vLLM, seed apart; the same for the engine and the server."""
    config = job.config
    return {
        "max_tokens": config.max_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": -1,
        "stop_token_ids": stops,
    }
