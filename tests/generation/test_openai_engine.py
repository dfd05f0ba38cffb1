"""The engine `openai` against HTTP servers that are not as they should be; interpreters without vLLM."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import ConfigError, DataError, StageError
from rlhf_eval.files import read_jsonl
from rlhf_eval.generation.engines import answer_sets, prompt_seed
from rlhf_eval.generation.transformers_engine import prompt_ids
from rlhf_eval.records import Prompt, user_prompt

PROMPTS = [user_prompt(f"p{number}", f"list {number} animals") for number in range(20)]


class Server:
    """A completions endpoint that knows the model `policy`, keeps what it was asked, and fails on demand."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.breaks_after = 10**9
        self.refuses_with = 0
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._give(200, {"object": "list", "data": [{"id": "policy", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.keys.add(self.headers.get("Authorization"))
            if server.refuses_with:
                self._give(server.refuses_with, {"error": {"message": "no, because of this"}})
            elif len(server.asked) >= server.breaks_after:
                self.connection.close()
            else:
                server.asked.append(body)
                text = f" answer {sum(body['prompt'])} {body['seed'] % 1000} "
                choice = {"index": 0, "text": text, "finish_reason": "length", "logprobs": None}
                usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
                self._give(200, {"id": "1", "object": "text_completion", "choices": [choice], "usage": usage})

        def _give(self, status: int, value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any]) -> Path:
    """A policy without weights: these engines read its tokenizer and its configuration only."""
    path = tmp_path_factory.mktemp("policy")
    tiny_llama(path).save_pretrained(path)
    return path


def answer(
    folder: Path, out: Path, prompts: Sequence[Prompt] = PROMPTS, max_prompt_tokens: int = 64, **changes: Any
) -> list[dict[str, Any]]:
    settings = {"name": "test", "engine": "openai", "max_tokens": 8, "concurrency": 4} | changes
    policy, config = PolicyConfig(name="policy", model=str(folder)), GenerationConfig(**settings)
    [file] = answer_sets(
        policy, config, {"set": prompts}, 5, max_prompt_tokens, out, lambda done, total: None
    )
    return read_jsonl(file)


def test_a_call_holds_token_ids_seed_and_sampling_and_its_text_is_taken(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = answer(folder, tmp_path, base_url=server.url, served_model="policy", temperature=0.5, top_p=0.8)
    by_seed = {body["seed"]: body for body in server.asked}
    for prompt, row in zip(PROMPTS, rows, strict=True):
        body = by_seed[prompt_seed(5, prompt.id)]
        assert body["prompt"] == prompt_ids(tokenizer, prompt)
        assert (body["model"], body["max_tokens"]) == ("policy", 8)
        assert (body["temperature"], body["top_p"], body["top_k"]) == (0.5, 0.8, -1)
        assert body["stop_token_ids"] == [tokenizer.eos_token_id]
        text = f"answer {sum(body['prompt'])} {body['seed'] % 1000}"
        assert row == {
            "prompt_id": prompt.id,
            "instruction": prompt.instruction,
            "text": text,
            "tokens": 3,
            "finish": "length",
        }


def test_a_server_that_goes_away_is_named_and_the_same_call_asks_for_what_is_missing(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    server.breaks_after = 7
    arguments: dict[str, Any] = {"base_url": server.url, "served_model": "policy"}
    with pytest.raises(
        StageError, match=rf"{server.url} cannot be reached.*\n.*answers given before are kept"
    ):
        answer(folder, tmp_path, **arguments)
    kept = read_jsonl(tmp_path / "set.segment.jsonl")
    assert 0 < len(kept) <= 7
    server.breaks_after = 10**9
    server.asked.clear()
    rows = answer(folder, tmp_path, **arguments)
    assert len(server.asked) == len(PROMPTS) - len(kept)
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in PROMPTS]
    server.asked.clear()
    assert answer(folder, tmp_path, **arguments) == rows
    assert server.asked == []


def test_nobody_listening_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"127\.0\.0\.1:9/v1 cannot be reached"):
        answer(folder, tmp_path, base_url="http://127.0.0.1:9/v1")


def test_a_refusal_is_passed_on_in_the_server_s_words(server: Server, folder: Path, tmp_path: Path) -> None:
    server.refuses_with = 400
    with pytest.raises(StageError, match=r"refuses a call \(400\).*no, because of this"):
        answer(folder, tmp_path, base_url=server.url, served_model="policy")
    with pytest.raises(StageError, match=r"has no model '.*policy\d+'; it has: policy\."):
        answer(folder, tmp_path, base_url=server.url)


def test_the_key_comes_from_the_environment(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {
        "base_url": server.url,
        "served_model": "policy",
        "api_key_variable": "POLICY_KEY",
    }
    monkeypatch.delenv("POLICY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"POLICY_KEY .*is not set"):
        answer(folder, tmp_path, **arguments)
    monkeypatch.setenv("POLICY_KEY", "secret")
    answer(folder, tmp_path, **arguments)
    assert server.keys == {"Bearer secret"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the standard library alone."""
    import venv

    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    return folder


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_an_interpreter_without_vllm_is_named(
    folder: Path, tmp_path: Path, environment: Path, engine: str
) -> None:
    python = str(environment / "bin" / "python")
    with pytest.raises(ConfigError, match=rf"{python} has no vLLM.\n.*generation\.python"):
        answer(folder, tmp_path, engine=engine, python=python)
    with pytest.raises(ConfigError, match=r"generation\.python: '/nowhere/python' cannot be started"):
        answer(folder, tmp_path, engine=engine, python="/nowhere/python")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            "class OddError(Exception): pass\nraise OddError('2 faults:\\n the context\\n is short')",
            "the context is",
        ),
        ("import os; os.write(2, b'Segmentation fault'); os._exit(9)", "9, saying: Segmentation"),
    ],
)
def test_what_a_failing_vllm_said_last_is_told(
    folder: Path, tmp_path: Path, environment: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    (tmp_path / "vllm.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(StageError, match=rf"vLLM ended with exit code .*{said}.*engine\.log"):
        answer(folder, tmp_path / "out", engine="vllm", python=str(environment / "bin" / "python"))


@pytest.mark.parametrize("engine", ["vllm", "openai"])
def test_a_prompt_that_is_too_long_is_named_before_an_engine_starts(
    folder: Path, tmp_path: Path, engine: str
) -> None:
    prompts = [*PROMPTS, user_prompt("long", "cat " * 100)]
    with pytest.raises(DataError, match=r"1 evaluation prompts exceed 64 tokens, first long"):
        answer(folder, tmp_path, prompts, engine=engine, python="/nowhere/python")
