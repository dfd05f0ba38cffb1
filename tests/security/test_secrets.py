"""No key reaches a file, a log, the terminal or a process's arguments: not by a run, and not by its failures.

Every secret is a marker; a whole run, and all the ways in which servers refuse it, must leave none.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.files import read_json
from rlhf_eval.generation.engines import Job
from rlhf_eval.generation.openai_engine import OpenAIEngine
from rlhf_eval.generation.policy import Parts
from rlhf_eval.keys import key_in, without_secrets
from tests.rewards.test_server import serving
from tests.security.conftest import Server

JUDGE = "LAB_JUDGE_PASS"
"""A name by which nobody would take it for a secret."""


def drawn(name: str, digits: int) -> str:
    """The same in every process of pytest, and written in no file of the checkout."""
    return hashlib.sha256(name.encode()).hexdigest()[:digits]


MARKERS = {name: f"marker-{drawn(name, 24)}" for name in (JUDGE, "RLHF_EVAL_REWARD_TOKEN", "proxy")}
MARKERS |= {name: f"sk-marker-{drawn(name, 24)}" for name in ("OPENAI_API_KEY", "NVIDIA_API_KEY")}
MARKERS |= {name: f"hf_marker{drawn(name, 32)}" for name in ("HF_TOKEN", "WANDB_API_KEY")}
PROXIES = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), f"http://user:{MARKERS['proxy']}@127.0.0.1:9")
SECRETS = {name: value for name, value in MARKERS.items() if name != "proxy"} | PROXIES


@dataclass
class Desk:
    """A working directory, and everything that commands said there."""

    folder: Path
    said: str = ""
    arguments: set[bytes] = field(default_factory=set)
    """Command lines of all processes of this machine, looked at time and again."""

    def call(self, *words: str, exit_code: int = 0) -> str:
        """Standard output and error of `rlhf-eval` with these words."""
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_eval", *words],
            cwd=self.folder,
            env=os.environ | SECRETS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        said = done.stdout + done.stderr
        assert done.returncode == exit_code, said
        self.said += said
        return said

    def watch(self, ended: threading.Event) -> None:
        """As `ps` would, until the event."""
        while not ended.wait(0.5):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.arguments.add(file.read_bytes())


@dataclass
class Servers:
    good: Server
    echo: Server
    echo_400: Server
    elsewhere: Server
    moved: Server


@pytest.fixture(scope="module")
def servers(serve: Callable[[str, str], Server]) -> Servers:
    key = MARKERS[JUDGE]
    elsewhere = serve(key, "good")
    return Servers(
        serve(key, "good"),
        serve(key, "echo 401"),
        serve(key, "echo 400"),
        elsewhere,
        serve(key, elsewhere.address),
    )


@pytest.fixture(scope="module")
def desk(servers: Servers, small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """After a run that two servers refused, one sent on and one answered, and all that looks at it."""
    desk, ended = Desk(tmp_path_factory.mktemp("desk")), threading.Event()
    watcher = threading.Thread(target=desk.watch, args=(ended,))
    watcher.start()
    token = ("reward_model.endpoint.api_key_variable=RLHF_EVAL_REWARD_TOKEN",)
    (desk.folder / "conversations.jsonl").write_text('{"prompt": "2+2?", "completion": "4"}\n')
    files = ("--input", "conversations.jsonl", "--output", "scores.jsonl")
    pair = '{"prompt": "2+2?", "completions": ["4", "5"]}\n'
    (desk.folder / "groups.jsonl").write_text(pair)
    groups = ("--input", "groups.jsonl", "--output", "strengths.jsonl")
    with serving(**SECRETS) as (address, _):
        remote = ("reward_model=served", *token, f"reward_model.endpoint.base_url={address}")
        lab = (*small_lab, *remote, "seed=0", f"judge.api_key_variable={JUDGE}")

        def judged_by(server: Server) -> tuple[str, ...]:
            return (*lab, f"judge.base_url={server.address}/v1")

        desk.call("validate", *judged_by(servers.good))
        desk.call("validate", *judged_by(servers.good), "--json")
        desk.call("sweep", *judged_by(servers.good), "cluster=lab", "--dry-run")
        refused = desk.call("run", *judged_by(servers.echo), exit_code=1)
        assert "refuses access (401): " in refused
        assert f"Authorization: Bearer <{JUDGE}>" in refused
        assert "Traceback" in desk.call("run", *judged_by(servers.echo), "--debug", exit_code=1)
        desk.call("status", "runs/lab")
        desk.call("run", *judged_by(servers.echo_400), exit_code=1)
        assert "sends its clients on to" in desk.call("run", *judged_by(servers.moved), exit_code=1)
        desk.call("sweep", *judged_by(servers.good), "--local", "1")
    at = f"reward_model.endpoint.base_url={servers.echo.address}"
    key = f"reward_model.endpoint.api_key_variable={JUDGE}"
    desk.call("reward", "score", "reward_model=served", key, at, *files, "--debug", exit_code=1)
    desk.call("reward", "score", "reward_model=api_judge", key, at, *groups, exit_code=1)
    at = f"reward_model.endpoint.base_url={servers.moved.address}"
    assert "(307)" in desk.call("reward", "score", "reward_model=served", key, at, *files, exit_code=1)
    for command in ("status", "rank", "report"):
        desk.call(command, "runs/lab")
    ended.set()
    watcher.join()
    return desk


def test_the_run_was_done_with_the_keys(desk: Desk, servers: Servers) -> None:
    (row,) = json.loads(desk.call("status", "runs/lab", "--json"))
    assert row["state"] == "done"
    for server in (servers.good, servers.echo, servers.echo_400, servers.moved):
        assert server.seen.count(f"Bearer {MARKERS[JUDGE]}") == len(server.seen) > 0


def test_no_secret_is_in_a_file(desk: Desk) -> None:
    files = [file for file in desk.folder.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert names >= {"config.yaml", "status.json", "manifest.json", "report.html", "train-1.sbatch"}
    for file in files:
        content = file.read_bytes()
        found = [name for name, marker in MARKERS.items() if marker.encode() in content]
        assert not found, file


def test_no_secret_is_shown(desk: Desk) -> None:
    assert not [name for name, marker in MARKERS.items() if marker in desk.said]


def test_no_secret_is_an_argument_of_a_process(desk: Desk) -> None:
    assert any(b"rlhf_eval" in command for command in desk.arguments)
    seen = b"\n".join(desk.arguments)
    assert not [name for name, marker in MARKERS.items() if marker.encode() in seen]


def test_who_is_sent_on_does_not_go(desk: Desk, servers: Servers) -> None:
    """Neither with the key nor with the answers."""
    assert servers.moved.seen
    assert not servers.elsewhere.seen


def test_a_failed_verdict_keeps_its_cause(desk: Desk) -> None:
    """Other than by its key: what was refused, and how, is there to be read."""
    kept = [file.read_text() for file in desk.folder.glob("runs/lab/shared/verdicts/*")]
    causes = [text for text in kept if "HTTP 400: " in text]
    assert causes
    assert all(f"Bearer <{JUDGE}>" in text for text in causes)


@pytest.mark.parametrize("manner", ["echo 401", "echo 400", "moved"])
def test_a_server_of_the_policy_is_not_told_on_either(
    manner: str, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JUDGE, MARKERS[JUDGE])
    server = {"echo 401": servers.echo, "echo 400": servers.echo_400, "moved": servers.moved}[manner]
    calls = len(server.seen)
    config = GenerationConfig("openai", engine="openai", api_key_variable=JUDGE)
    policy = PolicyConfig("policy", "policy")
    job = Job(policy, Parts("policy", None, None, 0, "policy", None), None, config, 1, Path("unused"))
    with pytest.raises(StageError) as told:
        OpenAIEngine(job, f"{server.address}/v1", "policy", {}).check()
    assert server.seen[calls:] == [f"Bearer {MARKERS[JUDGE]}"]
    assert MARKERS[JUDGE] not in str(told.value)
    assert not servers.elsewhere.seen


@pytest.mark.parametrize(
    "field",
    [
        "judge.base_url",
        "generation.base_url",
        "algorithm.rollout.server_url",
        "prompts.train",
    ],
)
@pytest.mark.parametrize("value", [f"https://user:{MARKERS['proxy']}@host/v1", MARKERS["OPENAI_API_KEY"]])
def test_a_configuration_that_holds_a_secret_is_refused(
    field: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", MARKERS["OPENAI_API_KEY"])
    assert main(["run", "experiment=lab", "reward_model=random", f"{field}={value}"]) == 2
    said = capsys.readouterr().err
    assert f"{field} holds a password" in said
    assert "marker" not in said
    assert not list(tmp_path.iterdir())


def test_a_key_among_the_words_of_a_command_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", MARKERS["OPENAI_API_KEY"])
    words = f"judge.serve=[vllm,serve,--api-key,{MARKERS['OPENAI_API_KEY']}]"
    with pytest.raises(ConfigError, match=r"judge\.serve holds a password") as told:
        compose(["experiment=lab", "reward_model=random", words])
    assert "marker" not in str(told.value)


def test_a_malformed_override_is_not_repeated_with_its_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    word = f"judge.base_url=[https://user:{MARKERS['proxy']}@host/v1"
    for debug in ([], ["--debug"]):
        assert main(["validate", "experiment=lab", "reward_model=random", word, *debug]) == 2
        said = capsys.readouterr().err
        assert "is no override" in said
        assert MARKERS["proxy"] not in said


def test_what_is_taken_out_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "0123456789")
    monkeypatch.setenv("SOME_TOKEN", "0123456789-and-more")
    monkeypatch.setenv("SHORT_KEY", "none")
    monkeypatch.setenv("ODD", " by-any-name ")
    assert without_secrets("by-any-name") == "by-any-name"
    assert key_in("ODD") == "by-any-name"
    text = "keys 0123456789, 0123456789-and-more, by-any-name, none; http://me:p@ss@host:1/v1?to=a@b"
    assert without_secrets(text) == (
        "keys <SOME_API_KEY>, <SOME_TOKEN>, <ODD>, none; http://host:1/v1?to=a@b"
    )
    plain = "hf://datasets/org/name@main/file.json, me@host, http://host/@x"
    assert without_secrets(plain) == plain


def test_a_key_of_two_lines_is_taken_out_as_a_client_quotes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "first-line-of-it\nsecond-line-of-it")
    quoted = f"Illegal header value {'Bearer first-line-of-it' + chr(10) + 'second-line-of-it'!r}"
    assert without_secrets(quoted) == "Illegal header value 'Bearer <SOME_API_KEY>'"


def test_a_frozen_configuration_names_the_variable(desk: Desk) -> None:
    (file,) = desk.folder.glob("runs/lab/*/config.yaml")
    assert f"api_key_variable: {JUDGE}" in file.read_text()
    assert "echo" not in json.dumps(read_json(file.parent / "manifest.json")["judges"])
