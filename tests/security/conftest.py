"""Servers that demand a key, and tell on whoever gives it away."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from rlhf_eval.lab.judge_server import BadRequest, Judge, chat_completion

REFUSED = {"echo 401": 401, "echo 400": 400}


class Server:
    """An OpenAI-compatible judge on loopback that wants a key.

    Attributes:
        key: what it demands.
        seen: the Authorization header of every request.
    """

    def __init__(self, key: str, manner: str) -> None:
        """
        Args:
            manner: `good` answers as the lab's judge; `echo 401` and `echo 400` refuse with what they were
                sent, as some proxies do; an address is where clients are sent on to.
        """
        self.key = key
        self.seen: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                sent = self.headers.get("Authorization", "")
                server.seen.append(sent)
                status, reply = server.reply(manner, sent, body)
                text = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if status == 307:
                    self.send_header("Location", f"{manner}{self.path}")
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"

    def reply(self, manner: str, sent: str, body: bytes) -> tuple[int, Any]:
        """Status and body of an answer."""
        if manner.startswith("http"):
            return 307, {}
        if manner in REFUSED or sent != f"Bearer {self.key}":
            status = REFUSED.get(manner, 401)
            return status, {"error": {"message": f"refused; your headers: Authorization: {sent}"}}
        try:
            return 200, chat_completion(Judge(), json.loads(body))
        except BadRequest as error:
            return error.status, {"error": {"message": str(error)}}


@contextmanager
def running(key: str, manner: str) -> Iterator[Server]:
    server = Server(key, manner)
    thread = Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[[str, str], Server]]:
    """A function: key and manner → a server that answers until the module's tests are over."""
    with ExitStack() as stack:
        yield lambda key, manner: stack.enter_context(running(key, manner))
