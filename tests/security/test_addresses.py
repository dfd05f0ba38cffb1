"""Servers listen on loopback unless somebody asks for more, and then ask who is there."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.rewards.test_server import serving

LISTENS = "0A"
"""State of a socket in /proc/net/tcp."""


@contextmanager
def lab_judge(*words: str) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf_eval.lab.judge_server", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip().removesuffix("/v1")
    process.kill()
    process.communicate()


@contextmanager
def reward_server(*words: str) -> Iterator[str]:
    with serving(*words) as (address, _):
        yield address


def listening(port: int) -> set[str]:
    """The addresses, as the kernel writes them, at which this machine listens on a port."""
    found = set()
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(file).read_text().splitlines()[1:] if os.path.exists(file) else ():
            _, place, _, state, *_ = row.split()
            address, _, number = place.rpartition(":")
            if state == LISTENS and int(number, 16) == port:
                found.add(address)
    return found


@pytest.mark.parametrize("server", [lab_judge, reward_server])
def test_a_server_listens_on_loopback(server: Callable[[], AbstractContextManager[str]]) -> None:
    with server() as address:
        assert listening(int(address.rpartition(":")[2])) == {"0100007F"}  # 127.0.0.1


def test_what_is_looked_at_would_show_a_wide_one() -> None:
    with serving("--host", "0.0.0.0", RLHF_EVAL_REWARD_TOKEN="a-token-of-a-test") as (address, _):
        assert listening(int(address.rpartition(":")[2])) == {"00000000"}
