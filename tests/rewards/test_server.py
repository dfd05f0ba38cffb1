"""The reward server as a process: the same scores, many clients, deadlines, back-pressure, a clean end."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig, VerdictConfig
from rlhf_eval.errors import StageError
from rlhf_eval.records import as_json, user_prompt
from rlhf_eval.rewards.batcher import Batcher, Item, QueueFull, select
from rlhf_eval.rewards.interface import load_reward_model


@contextmanager
def serving(*words: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process of `rlhf-eval reward serve`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf_eval", "reward", "serve", "reward_model=random", "--port", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening on http://"), line
        yield line.split()[-1], process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(tiny: Callable[..., Path]) -> Iterator[str]:
    words = [
        "reward_model.kind=classifier",
        f"reward_model.model={tiny('llama')}",
        "reward_model.max_length=300",
    ]
    with serving(*words, "reward_model.batch_tokens=2000") as (address, _):
        yield address


def remote(address: str, **changes: Any) -> RewardModelConfig:
    endpoint = EndpointConfig(base_url=address, **changes)
    return RewardModelConfig(name="remote", kind="remote", endpoint=endpoint)


def test_the_server_gives_the_scores_of_this_process(
    address: str, tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    asked = conversations(60)
    asked += asked[:10]
    here = load_reward_model(config_of(tiny("llama"), max_length=300)).score(asked)
    there = load_reward_model(remote(address)).score(asked)
    assert there.scores == pytest.approx(here.scores, abs=1e-4)
    one = conversations(1, seed=5)
    alone = load_reward_model(config_of(tiny("llama"))).score(one).scores
    assert load_reward_model(remote(address)).score(one).scores.tolist() == alone.tolist()


def test_too_long_is_null_and_malformed_is_refused_with_its_place(
    address: str, conversations: Callable[..., Any]
) -> None:
    long = [*conversations(1), *conversations(1, 400, 400)]
    reply = httpx.post(f"{address}/score", json={"conversations": [as_json(c) for c in long]})
    assert reply.status_code == 200
    assert [score is None for score in reply.json()["scores"]] == [False, True]
    for body, words in (
        ({"conversations": [[{"role": "user", "content": "x"}]]}, "Conversation 1 of 1 does not end"),
        ({"conversations": [[{"role": "user"}]]}, "malformed request"),
        ({}, "malformed request"),
    ):
        reply = httpx.post(f"{address}/score", json=body)
        assert reply.status_code == 400
        assert words in reply.json()["error"]
    assert httpx.post(f"{address}/score", content=b"{").status_code == 400


def test_health_and_metrics(address: str, conversations: Callable[..., Any]) -> None:
    load_reward_model(remote(address)).score(conversations(5, seed=9))
    health = httpx.get(f"{address}/health").json()
    assert health == {"status": "ok", "reward_model": "random", "waiting_tokens": 0}
    lines = dict(
        line.rsplit(" ", 1)
        for line in httpx.get(f"{address}/metrics").text.splitlines()
        if not line.startswith("#")
    )
    assert float(lines["reward_conversations_total"]) >= 5
    assert float(lines["reward_padded_tokens_total"]) >= float(lines["reward_tokens_total"]) > 0
    assert float(lines['reward_requests_total{status="200"}']) >= 1


def test_hung_and_killed_clients_delay_no_one(address: str, conversations: Callable[..., Any]) -> None:
    host, port = address.removeprefix("http://").split(":")
    hung = []
    for part in (b"", b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n{"):
        client = socket.create_connection((host, int(port)))
        client.sendall(part)
        hung.append(client)
    body = json.dumps({"conversations": [as_json(c) for c in conversations(50, 200, 250)]}).encode()
    for _ in range(3):  # asks for much and goes away
        client = socket.create_connection((host, int(port)))
        client.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        client.close()
    began = time.monotonic()
    batch = load_reward_model(remote(address, deadline_seconds=20)).score(conversations(8, seed=3))
    assert batch.valid.all()
    assert time.monotonic() - began < 10
    for client in hung:
        client.close()


def test_a_comparing_model_is_served_and_trains_as_if_it_were_here(
    tiny: Callable[..., Path], tmp_path: Path
) -> None:
    prompt = tmp_path / "prompt.jinja"
    prompt.write_text("{{ instruction }} {{ answer_a }} also {{ answer_b }}")
    verdict = VerdictConfig(str(prompt), labels=("cat", "dog"), opening="")
    here = load_reward_model(
        RewardModelConfig(
            "x", "generative", str(tiny("language_model")), comparability="pair", verdict=verdict
        )
    )
    words = ["reward_model.kind=generative", "reward_model.comparability=pair"]
    words += [f"reward_model.model={tiny('language_model')}"]
    words += [f"+reward_model.verdict={{prompt: {prompt}, labels: [cat, dog], opening: ''}}"]
    group = (user_prompt("p", "list two animals"), ["cat dog .", "hammer .", "saw saw"])
    with serving(*words) as (address, _):
        there = load_reward_model(replace(remote(address), comparability="pair"))
        (expected,), (found,) = here.score_groups([group]), there.score_groups([group])
        assert found.scores == pytest.approx(expected.scores, abs=1e-5)
        assert np.ptp(found.scores) > 0.01
        with pytest.raises(StageError, match="POST /compare instead"):
            load_reward_model(remote(address)).score([group[0].answered("cat")])
        body = {"comparisons": [{"prompt": "list", "completion_a": "cat"}]}
        assert httpx.post(f"{address}/compare", json=body).status_code == 400


def test_many_clients_at_once(address: str, conversations: Callable[..., Any]) -> None:
    lists = [conversations(20, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda c: load_reward_model(remote(address)).score(c), lists))
    for asked, batch in zip(lists, batches, strict=True):
        again = load_reward_model(remote(address)).score(asked)
        assert batch.scores == pytest.approx(again.scores, abs=1e-5)


def test_a_request_that_misses_its_deadline_is_504_and_then_invalid(
    address: str, conversations: Callable[..., Any]
) -> None:
    asked = conversations(40, 200, 250, seed=11)
    body = {"conversations": [as_json(c) for c in asked], "deadline_seconds": 0.001}
    assert httpx.post(f"{address}/score", json=body).status_code == 504
    late = load_reward_model(remote(address, deadline_seconds=0.001)).score(asked)
    assert not late.valid.any()


def test_a_token_guards_what_is_bound_wider(conversations: Callable[..., Any], monkeypatch: Any) -> None:
    with serving("--host", "0.0.0.0", RLHF_EVAL_REWARD_TOKEN="secret") as (address, _):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{address}/health").status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == 401
        monkeypatch.setenv("MY_TOKEN", "secret")
        guarded = load_reward_model(remote(address, api_key_variable="MY_TOKEN"))
        assert guarded.score(conversations(3)).valid.all()
        with pytest.raises(Exception, match="refuses a request \\(401\\)"):
            load_reward_model(remote(address)).score(conversations(3))


def test_a_wide_address_without_a_token_and_a_taken_port_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RLHF_EVAL_REWARD_TOKEN", raising=False)
    assert main(["reward", "serve", "reward_model=random", "--host", "0.0.0.0"]) == 2
    assert "RLHF_EVAL_REWARD_TOKEN" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["reward", "serve", "reward_model=random", "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be listened on" in capsys.readouterr().err


def test_sigterm_finishes_what_is_under_way(
    conversations: Callable[..., Any], tiny: Callable[..., Path]
) -> None:
    words = ["reward_model.kind=classifier", f"reward_model.model={tiny('llama')}"]
    with serving(*words, "reward_model.batch_tokens=600") as (address, process):
        found: list[Any] = []
        body = {"conversations": [as_json(c) for c in conversations(200, 100, 200)]}
        client = threading.Thread(
            target=lambda: found.append(httpx.post(f"{address}/score", json=body, timeout=60))
        )
        client.start()
        while httpx.get(f"{address}/health").json()["waiting_tokens"] == 0:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        client.join()
        assert len(found[0].json()["scores"]) == 200
        assert process.wait(20) in (0, -signal.SIGTERM)


def test_a_full_queue_says_when_to_come_again() -> None:
    began, go_on = threading.Event(), threading.Event()

    def work(keys: Any) -> list[float]:
        began.set()
        go_on.wait()
        return [0.0] * len(keys)

    batcher = Batcher(work, batch_tokens=10, queue_tokens=20)
    first = batcher.submit(["under way"], [10])
    began.wait()
    waiting = batcher.submit(["a", "b"], [10, 10])
    with pytest.raises(QueueFull) as full:
        batcher.submit(["c"], [1])
    assert full.value.seconds > 0
    waiting[0].cancel()
    go_on.set()
    assert [future.result() for future in (*first, waiting[1])] == [0.0, 0.0]
    batcher.close()
    assert batcher.counters.items == 2


def test_a_fault_reaches_those_who_wait_and_the_next_are_served() -> None:
    def work(keys: Any) -> list[float]:
        if "bad" in keys:
            raise ValueError("broken")
        return [1.0] * len(keys)

    batcher = Batcher(work, batch_tokens=1, queue_tokens=100)
    bad, good = batcher.submit(["bad", "good"], [1, 1])
    with pytest.raises(ValueError, match="broken"):
        bad.result(5)
    assert good.result(5) == 1.0
    batcher.close()


def test_the_longest_waiting_comes_first_and_batches_are_of_similar_lengths() -> None:
    items = [Item(n, size, float(n)) for n, size in enumerate((50, 400, 52, 48, 390, 3))]
    assert {item.key for item in select(items, 150)} == {0, 2}
    assert {item.key for item in select(items[1:], 800)} == {1, 4}
    assert [item.key for item in select(items[1:], 10)] == [1]


def test_a_server_that_comes_late_is_waited_for_and_one_that_never_comes_masks_the_rows(
    conversations: Callable[..., Any],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asked = conversations(4)
    gone = load_reward_model(remote(f"http://127.0.0.1:{port}", deadline_seconds=1)).score(asked)
    assert not gone.valid.any()
    assert np.isnan(gone.scores).all()
    found = []
    client = threading.Thread(
        target=lambda: found.append(
            load_reward_model(remote(f"http://127.0.0.1:{port}", deadline_seconds=60)).score(asked)
        )
    )
    client.start()
    with serving("--port", str(port)):
        client.join()
    assert found[0].valid.all()
