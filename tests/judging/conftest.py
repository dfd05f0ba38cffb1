"""A small judged world: two evaluation sets in the published formats, and an endpoint that can misbehave."""

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlhf_eval.config.algorithm_schema import GRPOConfig
from rlhf_eval.config.schema import (
    AlpacaEvalConfig,
    ArenaHardConfig,
    GenerationConfig,
    JudgeConfig,
    PolicyConfig,
    PromptsConfig,
    RewardModelConfig,
    RunConfig,
)
from rlhf_eval.judging import stage
from rlhf_eval.lab.judge_server import MODEL, Judge, chat_completion
from rlhf_eval.lab.world import all_tasks


def run_config(prompts: PromptsConfig, judge: JudgeConfig) -> RunConfig:
    return RunConfig(
        reward_model=RewardModelConfig("random", "random"),
        policy=PolicyConfig("tiny", "tiny"),
        algorithm=GRPOConfig(
            name="grpo",
            kind="grpo",
            steps=1,
            prompts_per_step=1,
            group_size=2,
            max_completion_tokens=8,
            learning_rate=1e-5,
            kl_coefficient=0.0,
        ),
        prompts=prompts,
        generation=GenerationConfig("sampled"),
        judge=judge,
        seed=0,
    )


@pytest.fixture
def make_run_config() -> Callable[[PromptsConfig, JudgeConfig], RunConfig]:
    return run_config


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """40 AlpacaEval prompts and 30 Arena-Hard questions with a judge that the test puts an address to."""
    alpaca = [
        {"instruction": task.instruction, "output": f"cat {n} .", "generator": "base"}
        for n, task in enumerate(all_tasks()[:40])
    ]
    alpaca[0]["instruction"] = "écris – “quelque chose” 🎉"
    asked = [
        {"uid": f"q{n}", "category": "hard_prompt", "prompt": task.instruction}
        for n, task in enumerate(all_tasks()[40:70])
    ]
    answered = [
        {
            "uid": row["uid"],
            "model": "base",
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": {"answer": "hammer saw ."} if n % 2 else "hammer saw ."},
            ],
        }
        for n, row in enumerate(asked)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(alpaca))
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answered))
    prompts = PromptsConfig(
        name="small",
        train="-",
        held_out="-",
        alpaca_eval=AlpacaEvalConfig(str(tmp_path / "alpaca.json")),
        arena_hard=ArenaHardConfig(str(tmp_path / "questions.jsonl"), str(tmp_path / "answers.jsonl")),
    )
    return run_config(prompts, JudgeConfig("lab", MODEL, concurrency=8, max_retries=2, timeout_seconds=10))


@pytest.fixture
def answers(config: RunConfig) -> dict[str, dict[str, str]]:
    """A policy's answers, of different lengths and worth."""
    return {
        evaluation: {
            prompt.id: " ".join(["cat", "dog", "hammer", "saw", "drill", "file"][: 2 + n % 5]) + " ."
            for n, prompt in enumerate(prompts)
        }
        for evaluation, prompts in stage.evaluation_prompts(config.prompts).items()
    }


class Endpoint:
    """The lab's judge over HTTP, with faults on demand.

    Attributes:
        fault: called with how often this very request was made before and a number that belongs to it;
            names the fault, or None for a proper answer.
        good: how many proper answers were given.
    """

    def __init__(self) -> None:
        self.fault: Callable[[int, int], str | None] = lambda times, number: None
        self.good = 0
        self.hanging = threading.Event()
        """Set to let hanging calls go."""
        self.seen: dict[bytes, int] = {}
        self.headers: dict[str, str] = {}
        self.lock = threading.Lock()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.headers = {name.lower(): value for name, value in self.headers.items()}
                number = int.from_bytes(hashlib.sha256(body).digest()[:4])
                with endpoint.lock:
                    times = endpoint.seen[body] = endpoint.seen.get(body, -1) + 1
                fault = endpoint.fault(times, number)
                if fault == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                if fault == "hang":
                    endpoint.hanging.wait(30)
                    self.close_connection = True
                    return
                status, reply, headers = endpoint.reply(fault, body)
                self.send_response(status)
                for name, value in ({"Content-Type": "application/json"} | headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply[: len(reply) // 2] if fault == "half" else reply)
                self.close_connection = fault == "half"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def handle(self) -> None:
                with suppress(OSError):  # the client was killed, or the connection reset on purpose
                    super().handle()

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def reply(self, fault: str | None, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if fault in ("429", "500", "503", "400", "401", "404"):
            return (
                int(fault),
                json.dumps({"error": {"message": f"made {fault}"}}).encode(),
                {"Retry-After": "0.05"},
            )
        if fault == "malformed":
            return 200, b'{"choices": [', {}
        completion = chat_completion(Judge(seed=1), json.loads(body))
        choice = completion["choices"][0]
        if fault == "no logprobs":
            choice["logprobs"] = None
        if fault == "refusal":
            choice["message"] |= {"content": None, "refusal": "I will not judge that."}
        if fault == "empty":
            choice["message"]["content"] = ""
        if fault == "chatter":
            choice["message"]["content"] = "Both are fine, see a[b]."
            choice["logprobs"] = None
        if fault is None:
            with self.lock:
                self.good += 1
        return 200, json.dumps(completion).encode(), {}


@contextmanager
def _running(endpoint: Endpoint) -> Iterator[Endpoint]:
    thread = threading.Thread(target=endpoint.http.serve_forever, daemon=True)
    thread.start()
    yield endpoint
    endpoint.http.shutdown()
    endpoint.http.server_close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with _running(Endpoint()) as running:
        yield running


@pytest.fixture
def judged_by(config: RunConfig) -> Callable[..., RunConfig]:
    """The configuration with other judge fields."""
    return lambda **fields: replace(config, judge=replace(config.judge, **fields))
