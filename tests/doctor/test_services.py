"""Judges, servers and the hub, on loopback; keys are used and never shown."""

import json
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.doctor import services
from tests.conftest import VLLM
from tests.doctor.conftest import found

KEY = "marker-of-a-key-0123456789"
LAB = ["experiment=lab", "reward_model=lab_clean"]
HUB = """
import json, sys
from rlhf_eval.config.compose import compose
from rlhf_eval.doctor.checks import Look, examine
from rlhf_eval.doctor.services import hub
config = compose(sys.argv[1:])
print(json.dumps([f.as_json() for f in examine([Look("network", "hub", lambda: hub(config))])]))
"""


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def asked(url: str) -> list[str]:
    return [*LAB, "judge=openai_gpt41", f"judge.base_url={url}/v1", "judge.api_key_variable=MY_JUDGE"]


def test_a_key_that_is_not_set_is_a_failure_that_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    second = ["+judge@second_judges.two=openai_gpt41", "second_judges.two.api_key_variable=MY_JUDGE"]
    config = compose([*LAB, "judge=openai_gpt41", *second])
    monkeypatch.setenv("MY_JUDGE", KEY)
    told = found(partial(services.files_and_keys, config))
    assert told["judge.api_key_variable"].state == "failure"
    assert "OPENAI_API_KEY is not set" in told["judge.api_key_variable"].seen
    assert told["judge.api_key_variable"].cure == "export OPENAI_API_KEY=..."
    assert told["second_judges.two.api_key_variable"].state == "pass"
    assert KEY not in str(told)


def test_a_judge_that_answers_and_one_that_refuses_the_key(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE", KEY)
    paths = []

    def answer(status: int, path: str) -> tuple[int, dict[str, str]]:
        paths.append(path)
        return status, {}

    for status, state in ((200, "pass"), (404, "pass"), (401, "failure"), (503, "warning")):
        with serve(partial(answer, status)) as url:
            told = found(partial(services.judges, compose(asked(url))))["judge"]
        assert told.state == state
        assert KEY not in str(told)
    assert set(paths) == {"/v1/models"}


def test_a_judge_that_is_not_there_is_a_failure_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_JUDGE", KEY)
    began = time.monotonic()
    told = found(partial(services.judges, compose(asked(f"http://127.0.0.1:{closed_port()}"))))
    assert told["judge"].state == "failure"
    assert "cannot be reached" in told["judge"].seen
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert found(partial(services.judges, compose(asked(url))))["judge"].state == "failure"
    assert time.monotonic() - began < 60
    assert KEY not in str(told)


def test_the_server_of_a_reward_model_is_asked(serve: Any) -> None:
    overrides = ["experiment=lab", "reward_model=served"]
    with serve(lambda path: (404, {})) as url:
        config = compose([*overrides, f"reward_model.endpoint.base_url={url}"])
        assert found(partial(services.servers, config))["reward_model.endpoint.base_url"].state == "pass"
    config = compose([*overrides, f"reward_model.endpoint.base_url=http://127.0.0.1:{closed_port()}"])
    assert found(partial(services.servers, config))["reward_model.endpoint.base_url"].state == "failure"


def test_a_file_that_the_configuration_names_and_is_not_there(tmp_path: Path) -> None:
    told = found(partial(services.files_and_keys, compose([*LAB, f"prompts.train={tmp_path}/no.jsonl"])))
    assert told["prompts.train"].state == "failure"


def test_an_interpreter_without_vllm_is_a_failure() -> None:
    config = compose([*LAB, "generation=vllm", f"generation.python={sys.executable}"])
    told = found(partial(services.vllm, config))["vLLM"]
    assert told.state == "failure"
    assert "No module named 'vllm'" in told.seen
    nowhere = compose([*LAB, "generation=vllm", "generation.python=/nowhere/python"])
    assert "No such file" in found(partial(services.vllm, nowhere))["vLLM"].seen


@pytest.mark.vllm
def test_an_interpreter_with_vllm_passes() -> None:
    config = compose([*LAB, "generation=vllm", f"generation.python={VLLM}"])
    told = found(partial(services.vllm, config))["vLLM"]
    assert told.state == "pass", told.seen


def test_code_of_a_repository_that_would_run_here_is_named() -> None:
    commit = "0" * 40
    config = compose(["experiment=lab", "reward_model=internlm2_7b", f"reward_model.revision={commit}"])
    told = found(partial(services.foreign_code, config))["reward_model.remote_code"]
    assert told.state == "warning"
    assert f"internlm/internlm2-7b-reward@{commit}" in told.seen
    assert not found(partial(services.foreign_code, compose(LAB)))


def test_proxies_are_told_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    assert found(services.proxies)["proxies"].seen.startswith("https_proxy=http://proxy:3128")


def hub_findings(tmp_path: Path, **environment: str) -> tuple[dict[str, Any], str]:
    """What is found of the hub of this environment, in a process of its own: its library reads it once."""
    names = ["reward_model=skywork_v2_llama_8b", "policy=tulu3_8b_sft"]
    done = subprocess.run(
        [sys.executable, "-c", HUB, *names],
        env=os.environ
        | {"HF_HOME": str(tmp_path), "HF_TOKEN": f"hf_{KEY}", "HF_HUB_OFFLINE": "0"}
        | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return {row["check"]: row for row in json.loads(done.stdout.splitlines()[-1])}, done.stdout + done.stderr


def test_a_gated_model_is_a_failure_with_the_page_where_to_ask(serve: Any, tmp_path: Path) -> None:
    def answer(path: str) -> tuple[int, dict[str, str]]:
        gated = "allenai/" in path
        return (403, {"X-Error-Code": "GatedRepo"}) if gated else (200, {})

    with serve(answer) as url:
        told, everything = hub_findings(tmp_path, HF_ENDPOINT=url)
    assert told["token"]["state"] == "pass"
    gated = told["allenai/Llama-3.1-Tulu-3-8B-SFT"]
    assert gated["state"] == "failure"
    assert f"{url}/allenai/Llama-3.1-Tulu-3-8B-SFT" in gated["cure"]
    assert told["Skywork/Skywork-Reward-V2-Llama-3.1-8B"]["state"] == "pass"
    assert told["tatsu-lab/alpaca_eval"]["state"] == "pass"
    assert KEY not in everything


def test_a_hub_that_cannot_be_reached_is_a_warning_that_says_so(tmp_path: Path) -> None:
    began = time.monotonic()
    told, everything = hub_findings(tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    assert told["hub"]["state"] == "warning"
    assert "cannot be reached" in told["hub"]["seen"]
    assert "allenai/Llama-3.1-Tulu-3-8B-SFT" in told["hub"]["seen"]
    assert time.monotonic() - began < 15
    assert KEY not in everything


def test_offline_what_is_not_in_the_cache_is_a_failure(tmp_path: Path) -> None:
    cached = tmp_path / "hub" / "models--allenai--Llama-3.1-Tulu-3-8B-SFT" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    told, _ = hub_findings(tmp_path, HF_HUB_OFFLINE="1")
    assert told["allenai/Llama-3.1-Tulu-3-8B-SFT"]["state"] == "pass"
    absent = told["Skywork/Skywork-Reward-V2-Llama-3.1-8B"]
    assert absent["state"] == "failure"
    assert absent["cure"] == "HF_HUB_OFFLINE=0 hf download Skywork/Skywork-Reward-V2-Llama-3.1-8B"
