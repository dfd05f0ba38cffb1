"""vLLM's OpenAI-compatible server as a child that ends with its parent. Run as a file, by the interpreter
that has vLLM; options are those of `vllm serve`.

When the server answers, its address `http://127.0.0.1:<port>/v1` is printed as the only line on standard
output. When standard input closes, the server is stopped. It imports the standard library only.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress

GRACE = 4.0
"""Seconds that the server has to end by itself."""
NO_VLLM = 3
"""Exit code where the interpreter has no vLLM."""


def main() -> None:
    if importlib.util.find_spec("vllm") is None:
        sys.exit(NO_VLLM)
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # the group that is ended with the server must not be the parent's
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [*sys.argv[1:], "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2)
    threading.Thread(target=_end_with_parent, args=(server,), daemon=True).start()
    while server.poll() is None and not _answers(f"http://127.0.0.1:{port}/health"):
        time.sleep(0.2)
    if server.poll() is None:
        print(f"http://127.0.0.1:{port}/v1", flush=True)
    code = server.wait()
    # A server that died may have left children of its own in this group.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    sys.exit(code if code > 0 else 1)


def _answers(address: str) -> bool:
    # A proxy meant for the outside world must not stand between a process and its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def _end_with_parent(server: "subprocess.Popen[bytes]") -> None:
    sys.stdin.read()
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(GRACE)
    # The server's own children are in this group too.
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
