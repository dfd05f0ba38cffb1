"""The lab's judge: an OpenAI-compatible HTTP endpoint on loopback that knows how good an answer is.

`python -m rlhf_eval.lab.judge_server [--seed 0] [--noise 1.0] [--port 0]` prints its address as the first
line and ends when its standard input closes. It recognises AlpacaEval's annotator prompts and Arena-Hard's
games by their layout, values both answers by `rlhf_eval.lab.world.utility`, and answers as a model would:
with log-probabilities of the tokens m and M, or with a sentence and a label. Noise depends on nothing but
the seed and the texts, so the same question always gets the same answer, and a little favour for the answer
shown first makes it worth swapping sides. Anything else gets a plain chat answer.

Standard library only: it starts in a fraction of a second.
"""

import argparse
import hashlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

from rlhf_eval.lab.world import utility

MODEL = "lab-judge-1"
SHARPNESS = 8.0
"""Log-odds per unit of utility: a difference of 0.25 is seen with 88 % certainty where there is no noise."""
POSITION_BIAS = 0.2
"""Log-odds in favour of the answer shown first."""
SLIGHT, CLEAR = 0.5, 2.5
"""Absolute log-odds from which an Arena-Hard game is a slight, and a clear, win."""
OTHER_TOKENS = {"Both": 2e-4, "The": 1e-4, "Model": 5e-5}
"""What a model puts on other first tokens than m and M; endpoints list five."""

_ALPACA_EVAL = re.compile(
    r'"instruction": """(.*?)""",\s*\}\s*## Model Outputs.*?'
    r'"model_identifier": "m",\s*"output": """(.*?)"""\s*\},\s*\{\s*'
    r'"model_identifier": "M",\s*"output": """(.*)"""\s*\}\s*\}',
    re.DOTALL,
)
_ARENA_HARD = re.compile(
    r"<\|User Prompt\|>\n(.*?)\n\n"
    r"<\|The Start of Assistant A's Answer\|>\n(.*?)\n<\|The End of Assistant A's Answer\|>\n\n"
    r"<\|The Start of Assistant B's Answer\|>\n(.*)\n<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Judge:
    """What the endpoint thinks of two answers.

    Attributes:
        seed: of the noise.
        noise: standard deviation of the noise, in log-odds.
        value: how good an answer to an instruction is, in [0, 1].
    """

    seed: int = 0
    noise: float = 1.0
    value: Callable[[str, str], float] = utility

    def log_odds(self, instruction: str, first: str, second: str) -> float:
        """Log-odds that the first answer is better."""
        difference = self.value(instruction, first) - self.value(instruction, second)
        return SHARPNESS * difference + self.noise * self._noise(instruction, first, second) + POSITION_BIAS

    def _noise(self, instruction: str, first: str, second: str) -> float:
        """Standard normal; a judge's taste, so it changes sign with the sides."""
        low, high = sorted((first, second))
        digest = hashlib.sha256("\0".join((str(self.seed), instruction, low, high)).encode()).digest()
        return Random(digest).gauss(0, 1) * (1 if first == low else -1) if low != high else 0.0

    def answer(self, messages: list[dict[str, Any]]) -> tuple[str, dict[str, float] | None]:
        """The answer's text and, where it is one token, the probabilities of the likeliest tokens."""
        text = messages[-1]["content"]
        if match := _ALPACA_EVAL.search(text):
            return self._one_token(*match.groups())
        if match := _ARENA_HARD.search(text):
            return self._label(*match.groups()), None
        return "I compare two answers to one request; this is none of the layouts that I know.", None

    def _one_token(self, instruction: str, first: str, second: str) -> tuple[str, dict[str, float]]:
        share = 1 / (1 + math.exp(-self.log_odds(instruction, first, second)))
        rest = 1 - sum(OTHER_TOKENS.values())
        probabilities = {"m": share * rest, "M": (1 - share) * rest} | OTHER_TOKENS
        ranked = dict(sorted(probabilities.items(), key=lambda entry: -entry[1]))
        return next(iter(ranked)), ranked

    def _label(self, instruction: str, first: str, second: str) -> str:
        odds = self.log_odds(instruction, first, second)
        better, worse = ("A", "B") if odds > 0 else ("B", "A")
        if abs(odds) < SLIGHT:
            return "Both answers serve the user about equally well.\n\nMy final verdict is: [[A=B]]"
        degree, sign = ("far", ">>") if abs(odds) >= CLEAR else ("somewhat", ">")
        return (
            f"Assistant {better}'s answer does {degree} better what was asked than Assistant {worse}'s.\n\n"
            f"My final verdict is: [[{better}{sign}{worse}]]"
        )


class BadRequest(Exception):
    """A request that an OpenAI-compatible endpoint answers with an error object."""

    def __init__(self, status: HTTPStatus, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def chat_completion(judge: Judge, request: Any) -> dict[str, Any]:
    """The response object to the body of a chat completion request.

    Raises:
        BadRequest: the body is not in the API's format, or names another model.
    """
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list) or not messages or not all(_is_message(m) for m in messages):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "'messages' must be a list of objects with role and text.")
    if request.get("model") != MODEL:
        raise BadRequest(
            HTTPStatus.NOT_FOUND, f"The model '{request.get('model')}' does not exist.", "model_not_found"
        )
    text, probabilities = judge.answer(messages)
    words = text.split(" ")
    limit = request.get("max_tokens") or request.get("max_completion_tokens") or len(words)
    kept = " ".join(words[:limit])
    prompt_tokens = sum(_tokens(message["content"]) for message in messages)
    return {
        "id": f"chatcmpl-{hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": kept, "refusal": None},
                "logprobs": _log_probabilities(request, probabilities),
                "finish_reason": "length" if len(words) > limit else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": _tokens(kept),
            "total_tokens": prompt_tokens + _tokens(kept),
        },
    }


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and "role" in message and isinstance(message.get("content"), str)


def _tokens(text: str) -> int:
    return len(text.split())


def _log_probabilities(
    request: dict[str, Any], probabilities: dict[str, float] | None
) -> dict[str, Any] | None:
    if not request.get("logprobs") or probabilities is None:
        return None
    entries = [
        {"token": token, "bytes": list(token.encode()), "logprob": math.log(max(p, 1e-300))}
        for token, p in probabilities.items()
    ]
    first = entries[0] | {"top_logprobs": entries[: request.get("top_logprobs", 0)]}
    return {"content": [first], "refusal": None}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    judge: Judge

    def do_GET(self) -> None:
        if self.path == "/health":
            self._reply(HTTPStatus.OK, {"status": "ok"})
        elif self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "rlhf_eval"}
            self._reply(HTTPStatus.OK, {"object": "list", "data": [model]})
        else:
            self._fail(BadRequest(HTTPStatus.NOT_FOUND, f"Unknown address {self.path}."))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.path != "/v1/chat/completions":
                raise BadRequest(HTTPStatus.NOT_FOUND, f"Unknown address {self.path}.")
            self._reply(HTTPStatus.OK, chat_completion(self.judge, json.loads(body)))
        except ValueError as error:
            self._fail(BadRequest(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}"))
        except BadRequest as error:
            self._fail(error)

    def _fail(self, error: BadRequest) -> None:
        about = {"message": str(error), "type": "invalid_request_error", "param": None, "code": error.code}
        self._reply(error.status, {"error": about})

    def _reply(self, status: HTTPStatus, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: standard error belongs to failures."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def server(judge: Judge, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1, not yet serving; port 0 takes a free one."""
    return _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"judge": judge}))


def main() -> None:
    """Serve until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_eval.lab.judge_server", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise")
    parser.add_argument("--noise", type=float, default=1.0, help="its standard deviation in log-odds")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    arguments = parser.parse_args()
    http = server(Judge(arguments.seed, arguments.noise), arguments.port)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{http.server_address[1]}/v1", flush=True)
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
