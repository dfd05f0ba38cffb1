"""Branches of the hub become commits, once for an experiment; a hub on loopback stands for the real one."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from rlhf_eval.config.algorithm_schema import PPOConfig
from rlhf_eval.config.compose import compose
from rlhf_eval.errors import DataError
from rlhf_eval.files import read_json, write_json
from rlhf_eval.runs.revisions import adopt, hub_names, pinned, resolved

FIRST, SECOND = "1" * 40, "2" * 40


class Hub(ThreadingHTTPServer):
    """Repositories as the Hugging Face hub serves them: `(kind, name)` → commit → file → bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub: Hub = self.server  # type: ignore[assignment]
        words = unquote(self.path.partition("?")[0]).strip("/").split("/")
        is_api = words[0] == "api"
        words = words[1:] if is_api else words
        kind = words.pop(0) if words[0] in ("models", "datasets") else "models"
        key, rest = (kind, "/".join(words[:2])), words[2:]
        commits = hub.repositories.get(key)
        if commits is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = hub.branches[key] if revision == "main" else revision
        if commit not in commits:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if is_api:
            files = [
                {"rfilename": name, "type": "file", "path": name, "oid": "0" * 40, "size": len(content)}
                for name, content in commits[commit].items()
            ]
            value = files if rest[0] == "tree" else {"id": key[1], "sha": commit, "siblings": files}
            return self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)
        content = commits[commit].get("/".join(rest[2:]))
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, body)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._send(200, content, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def command(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rlhf_eval", *words], env=os.environ | own, capture_output=True, text=True
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def test_a_run_loads_what_the_branch_was_when_its_experiment_began(
    hub: Hub, small_lab: list[str], tmp_path: Path
) -> None:
    """Policy and prompts from the hub by name and branch; the branch moves between two runs. Adapters are
    trained, so that the answers need the policy base once more."""
    from rlhf_eval.lab.build import ensure
    from rlhf_eval.progress import SilentProgress

    lab = compose([*small_lab, "reward_model=lab_clean_small"]).lab
    assert lab is not None
    world = ensure(lab, 1, SilentProgress())
    policy, prompts = ("models", "lab/policy"), ("datasets", "lab/prompts")
    train = (world / "data/train_prompts.jsonl").read_bytes()
    hub.repositories[policy] = {FIRST: files_of(world / "policy")}
    hub.repositories[prompts] = {FIRST: {"train.jsonl": train}}
    hub.branches = {policy: FIRST, prompts: FIRST}
    words = [
        "run",
        *small_lab,
        "reward_model=random",
        f"output={tmp_path / 'runs'}",
        "policy.model=lab/policy",
        "algorithm.lora={rank: 4}",
    ]
    words += ["policy.revision=main", "prompts.train=hf://datasets/lab/prompts@main/train.jsonl"]

    done = command(hub, tmp_path / "home", *words)
    assert done.returncode == 0, done.stderr[-2000:]
    recorded = {"datasets/lab/prompts@main": FIRST, "models/lab/policy@main": FIRST}
    (first,) = (tmp_path / "runs/lab").glob("*--s0--*")
    manifest = json.loads((first / "manifest.json").read_text())
    assert manifest["revisions"] == recorded
    assert "chat template of policy" in manifest["templates"]

    hub.repositories[policy][SECOND] = files_of(world / "policy") | {"model.safetensors": b"others"}
    hub.branches[policy] = SECOND
    done = command(hub, tmp_path / "home", *words, "seed=1")
    assert done.returncode == 0, done.stderr[-2000:]
    (second,) = (tmp_path / "runs/lab").glob("*--s1--*")
    assert json.loads((second / "manifest.json").read_text())["revisions"] == recorded

    reproduced = command(hub, tmp_path / "home", "reproduce", str(first), "--json")
    assert reproduced.returncode == 0, reproduced.stderr[-2000:]
    answer = json.loads(reproduced.stdout)
    assert answer["identical"], answer["stages"]
    assert answer["drift"] == []
    assert json.loads(Path(answer["run"], "manifest.json").read_text())["revisions"] == recorded


def test_every_hub_name_is_found_and_pinned() -> None:
    prompts = "prompts.train=hf://datasets/a/b@v1/c/d.jsonl"
    config = compose(["reward_model=dpo", "policy=tulu3_8b_sft", prompts])
    names = set(hub_names(config))
    assert "models/allenai/Llama-3.1-Tulu-3-8B-SFT@main" in names
    assert "datasets/a/b@v1" in names
    assert "models/allenai/Llama-3.1-Tulu-3-8B-DPO@main" in names
    commits = {name: hashlib.sha1(name.encode()).hexdigest() for name in names}
    fixed = pinned(config, commits)
    assert fixed.policy.revision == commits["models/allenai/Llama-3.1-Tulu-3-8B-SFT@main"]
    assert fixed.prompts.train == f"hf://datasets/a/b@{commits['datasets/a/b@v1']}/c/d.jsonl"
    assert {name.rpartition("@")[2] for name in hub_names(fixed)} == set(commits.values())
    assert pinned(fixed, {}) == fixed


def test_a_commit_stands_for_itself_whatever_a_file_says(tmp_path: Path) -> None:
    config = compose(["experiment=lab", "reward_model=skywork_v2_llama_8b", f"reward_model.revision={FIRST}"])
    (name,) = (name for name in hub_names(config) if name.endswith(FIRST))
    write_json(tmp_path / "revisions.json", {name: SECOND})
    assert resolved(config, tmp_path)[name] == FIRST


def test_python_of_a_repository_is_pinned_by_nobody_but_its_reader() -> None:
    config = compose(["experiment=lab", "reward_model=internlm2_7b", "reward_model.revision=main"])
    names = dict.fromkeys(hub_names(config), FIRST)
    assert pinned(config, names).reward_model.revision == "main"


def test_a_critic_from_the_hub_is_pinned() -> None:
    words = ["reward_model=random", "algorithm=ppo", "algorithm.critic=classifier"]
    config = compose(["experiment=lab", *words, "algorithm.critic_model=me/critic"])
    assert "models/me/critic@main" in hub_names(config)
    algorithm = pinned(config, {"models/me/critic@main": FIRST}).algorithm
    assert isinstance(algorithm, PPOConfig)
    assert algorithm.critic_revision == FIRST


def test_the_commits_of_an_original_are_taken_over_once(tmp_path: Path) -> None:
    adopt({"models/a/b@main": FIRST, "models/c/d@main": "no commit"}, tmp_path)
    assert read_json(tmp_path / "revisions.json") == {"models/a/b@main": FIRST}
    with pytest.raises(DataError, match=f"at {FIRST}, the original at {SECOND}"):
        adopt({"models/a/b@main": SECOND}, tmp_path)
