import urllib.request

import pytest

from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.judging import server
from rlhf_eval.judging.server import serving


def test_the_server_runs_for_the_length_of_the_block():
    with serving(JudgeConfig("lab", "m", serve=("python", "-m", "rlhf_eval.lab.judge_server"))) as address:
        health = address.removesuffix("/v1") + "/health"
        assert urllib.request.urlopen(health, timeout=5).status == 200
    with pytest.raises(OSError):
        urllib.request.urlopen(health, timeout=5)


def test_a_given_address_wins_over_a_command():
    with serving(JudgeConfig("j", "m", base_url="http://elsewhere/v1", serve=("false",))) as address:
        assert address == "http://elsewhere/v1"
    with serving(JudgeConfig("j", "m")) as address:
        assert address == "https://api.openai.com/v1"


def test_a_server_that_fails_shows_what_it_said():
    command = ("python", "-c", "import sys; sys.exit('no such weights')")
    with pytest.raises(JudgeError, match="no such weights"), serving(JudgeConfig("j", "m", serve=command)):
        pass


def test_a_server_that_stays_silent_is_stopped_at_its_deadline(monkeypatch):
    monkeypatch.setattr(server, "START_SECONDS", 0.5)
    command = ("python", "-c", "import sys; sys.stdin.read()")
    with pytest.raises(JudgeError, match="nothing within"), serving(JudgeConfig("j", "m", serve=command)):
        pass


def test_a_command_that_does_not_exist_is_named():
    with (
        pytest.raises(JudgeError, match="no-such-judge"),
        serving(JudgeConfig("j", "m", serve=("no-such-judge",))),
    ):
        pass


def test_a_server_that_ignores_its_closed_input_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(server, "STOP_SECONDS", 0.5)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('http://127.0.0.1:9/v1', flush=True); time.sleep(600)"
    )
    with serving(JudgeConfig("j", "m", serve=("python", "-c", program))) as address:
        assert address == "http://127.0.0.1:9/v1"
