"""Stand-ins at the outermost edge: a GPU's program, a judge or hub on loopback."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlhf_eval.doctor.checks import Finding, Look, examine


def found(look: Callable[[], Iterable[Finding]]) -> dict[str, Finding]:
    """What the report has of one look, by check."""
    return {finding.check: finding for finding in examine([Look("topic", "look", look)])}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function: name and script → the first of that name on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def serve() -> Callable[..., object]:
    """A function: path → status and headers → a context with the address of a server that answers so. It says
    the request's Authorization again, as careless servers do."""

    @contextmanager
    def serving(answer: Callable[[str], tuple[int, dict[str, str]]]) -> Iterator[str]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers = answer(self.path)
                body = f"you sent {self.headers.get('Authorization')}".encode()
                self.send_response(status, f"for {self.headers.get('Authorization')}")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()

    return serving
