"""An exported run: whole, the same bytes every time, without secrets; and no archive is trusted."""

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_eval.config.compose import compose
from rlhf_eval.errors import DataError, RlhfEvalError
from rlhf_eval.files import read_json, sha256_file, write_json, write_jsonl, write_text
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.bundle import INDEX, data_of, export, import_
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.stages import execute

OWN = (b"my own" + b" garden", b"c4n4ry-" + b"01")
CANARY = "c4n4ry-" + "0123456789abcdef0123456789"


@pytest.fixture(scope="module")
def run(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    write_jsonl(folder / "held_out.jsonl", [{"prompt": f"name {n} fruits"} for n in range(1, 7)])
    rows = [
        {
            "id": "1",
            # In parts, or this file, as a change of the checkout, would be where they are found.
            "prompt": "name a fruit " + "of my garden",
            "chosen": "a pear " + "of my own garden",
            "rejected": "a shoe " + "that is my neighbour's",
            "canary": CANARY,
        }
    ]
    write_jsonl(folder / "private.jsonl", rows)
    overrides = [
        *small_lab,
        "reward_model=lab_clean_small",
        f"prompts.held_out={folder / 'held_out.jsonl'}",
        f"benchmarks.lab_private.data.pairs={folder / 'private.jsonl'}",
    ]
    config = compose(overrides)
    path = folder / "runs/lab" / "the_run"
    execute(config, path, SilentProgress())
    return path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "the_run")


@pytest.fixture(scope="module")
def archive(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("archive") / "run.tar.gz"
    export(run, file)
    return file


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def packed(file: Path, content: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """An archive that somebody made by hand."""
    with tarfile.open(file, "w:gz") as tar:
        for name, value in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return file


def with_index(content: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    index = json.loads(content[f"the_run/{INDEX}"]) | changes
    return {f"the_run/{INDEX}": json.dumps(index).encode()} | {
        name: value for name, value in content.items() if not name.endswith(INDEX)
    }


def test_it_comes_back_as_it_was(run: Path, archive: Path, tmp_path: Path) -> None:
    imported = import_(archive, tmp_path)
    assert imported == tmp_path / "lab-imported" / "the_run"
    index = read_json(imported / INDEX)
    for name in index["files"]:
        if not name.startswith("data/"):
            assert (imported / name).read_bytes() == (run / name).read_bytes()
    assert {"config.yaml", "manifest.json", "stages/generate/alpaca_eval.jsonl"} <= index["files"].keys()
    assert import_(archive, tmp_path) == imported, "a second time it is left as it is"


def test_the_same_run_gives_the_same_bytes(run: Path, archive: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def test_data_go_along_and_weights_and_private_prompts_do_not(
    run: Path, archive: Path, tmp_path: Path
) -> None:
    held_out, private = run.parents[2] / "held_out.jsonl", run.parents[2] / "private.jsonl"
    content = members(archive)
    assert not [name for name in content if name.endswith(".safetensors")]
    assert not [name for name, value in content.items() if any(text in value for text in OWN)]
    assert f"{private} (private)" in json.loads(content[f"the_run/{INDEX}"])["left_out"]
    assert read_json(run / "manifest.json")["sha256"][str(private)] != sha256_file(private), "salted"
    there = data_of(import_(archive, tmp_path))
    assert list(there) == [str(held_out)]
    assert Path(there[str(held_out)]).read_bytes() == held_out.read_bytes()


def test_elsewhere_it_is_reproduced_from_the_archive_alone(run: Path, archive: Path, tmp_path: Path) -> None:
    """Data are taken from the archive; the private benchmark, which stayed at home, is left out and said."""
    home = run.parents[2]
    hidden = home.with_name("hidden")
    home.rename(hidden)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "rlhf_eval", "reproduce", str(archive), "--json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    finally:
        hidden.rename(home)
    answer = json.loads(done.stdout)
    assert answer["notes"] == ["Without the private benchmarks that are not on this machine: lab_private."]
    assert {one["name"].partition(".")[0] for one in answer["drift"]} == {"benchmarks"}
    outcomes = {stage["stage"]: stage["outcome"] for stage in answer["stages"]}
    assert outcomes == dict.fromkeys(("train", "generate", "judge", "score"), "identical") | {
        "benchmark": "within tolerance"
    }
    assert "lab_private in one alone" in answer["stages"][0]["found"]


def test_what_somebody_sent_is_executed_only_when_trusted(small_lab: list[str], tmp_path: Path) -> None:
    """Python in the archive leaves a trace where it is executed; without `--trust` there is none."""
    trace = tmp_path / "was_here"
    rule = tmp_path / "theirs.py"
    write_text(
        rule, f"open({str(trace)!r}, 'w').close()\n\n\ndef short(prompt, text):\n    return -len(text)\n"
    )
    words = [
        *small_lab,
        "reward_model=rule",
        "reward_model.name=short",
        f"reward_model.function={rule}:short",
    ]
    RunDirectory.open(tmp_path / "theirs/lab/the_run", compose(words))
    archive = tmp_path / "run.tar.gz"
    export(tmp_path / "theirs/lab/the_run", archive)
    rule.unlink()

    def reproduce(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rlhf_eval", "reproduce", str(archive), *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    refused = reproduce()
    assert refused.returncode == 2
    assert re.search(r"reward_model.function: .*theirs.py:short\n", refused.stderr)
    assert "--trust" in refused.stderr
    assert not trace.exists()
    trusted = reproduce("--trust")
    assert trusted.returncode == 0, trusted.stderr[-3000:]
    assert "trusted, from the archive: reward_model.function" in trusted.stdout
    assert trace.exists()


def test_a_secret_is_never_packed(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(copy / "code.diff", "+key = 'sk-" + "a1" * 20 + "'\n")
    with pytest.raises(DataError, match=r"code.diff, line 1 holds something that looks like a key"):
        export(copy, tmp_path / "x.tar.gz")
    write_text(copy / "code.diff", "")
    monkeypatch.setenv("SOME_API_KEY", "mysterious-value")
    answers = copy / "stages/generate/alpaca_eval.jsonl"
    write_text(answers, answers.read_text() + '{"prompt_id": "x", "text": "mysterious-value"}\n')
    with pytest.raises(DataError, match=r"alpaca_eval.jsonl, line \d+ holds SOME_API_KEY") as error:
        export(copy, tmp_path / "x.tar.gz")
    assert "mysterious" not in str(error.value)
    assert not (tmp_path / "x.tar.gz").exists()


def test_what_a_person_wrote_is_searched_for_keys_too(small_lab: list[str], tmp_path: Path) -> None:
    write_text(tmp_path / "rule.py", "KEY = 'sk-" + "a1" * 20 + "'\n")
    words = ["reward_model=rule", "reward_model.name=rule", f"reward_model.function={tmp_path}/rule.py:rule"]
    RunDirectory.open(tmp_path / "lab/run", compose([*small_lab, *words]))
    with pytest.raises(DataError, match=r"rule.py, line 1 holds something that looks like a key"):
        export(tmp_path / "lab/run", tmp_path / "x.tar.gz")


def test_a_run_that_is_being_executed_is_not_packed(copy: Path, tmp_path: Path) -> None:
    with RunDirectory(copy).locked(), pytest.raises(DataError, match="is being worked on"):
        export(copy, tmp_path / "x.tar.gz")


@pytest.mark.parametrize("name", ["../../../outside", "/etc/hostname"])
def test_a_marker_that_names_a_file_elsewhere_is_not_believed(copy: Path, tmp_path: Path, name: str) -> None:
    done = read_json(copy / "stages/generate/done.json")
    done["outputs"][name] = {"size": 1, "mtime_ns": 1, "sha256": "0"}
    write_json(copy / "stages/generate/done.json", done)
    with pytest.raises(DataError, match="outside its folder"):
        export(copy, tmp_path / "x.tar.gz")


def test_a_private_prompt_in_another_file_is_never_packed(run: Path, copy: Path, tmp_path: Path) -> None:
    answers = copy / "stages/generate/alpaca_eval.jsonl"
    write_text(answers, answers.read_text() + f'{{"text": "{CANARY}"}}\n')
    with pytest.raises(DataError, match="private benchmark 'lab_private'"):
        export(copy, tmp_path / "x.tar.gz")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda c: c | {"the_run/manifest.json": c["the_run/manifest.json"][:-2] + b"x}"}, "was changed"),
        (lambda c: c | {"the_run/more.txt": b"x"}, "is not what its bundle.json lists"),
        (lambda c: {k: v for k, v in c.items() if not k.endswith("status.json")}, "is missing"),
        (lambda c: with_index(c, run="../../escaped"), "leads out of its folder"),
        (lambda c: with_index(c, experiment="/tmp/escaped"), "leads out of its folder"),
        (
            lambda c: with_index(c, files={"../escaped": {"size": 1, "sha256": "x"}}),
            "leads out of its folder",
        ),
        (lambda c: with_index(c, data={"a": "../../escaped"}), "leads out of its folder"),
        (lambda c: with_index(c, format=99), "has format 99"),
        (lambda c: with_index(c, files={"config.yaml": {"size": 10**15, "sha256": "x"}}), "unpacks to"),
        (lambda c: with_index(c, files=[]), "malformed"),
        (lambda c: dict(reversed(c.items())), "does not begin with bundle.json"),
    ],
)
def test_a_changed_archive_is_refused(archive: Path, tmp_path: Path, spoil: Any, said: str) -> None:
    spoilt = packed(tmp_path / "spoilt.tar.gz", spoil(members(archive)))
    with pytest.raises(DataError, match=said):
        import_(spoilt, tmp_path / "runs")
    assert not [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    assert not list(tmp_path.parent.glob("escaped*"))


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be imported"):
        import_(tmp_path, tmp_path / "runs")


def test_two_runs_of_an_experiment_share_their_data(run: Path, archive: Path, tmp_path: Path) -> None:
    """So that a reproduction of both holds them to one protocol."""
    other = shutil.copytree(run, tmp_path / "lab" / "other_run")
    export(other, tmp_path / "other.tar.gz")
    imported = [import_(file, tmp_path / "runs") for file in (archive, tmp_path / "other.tar.gz")]
    assert data_of(imported[0]) == data_of(imported[1])


def test_a_link_is_refused(archive: Path, tmp_path: Path) -> None:
    content = members(archive)
    del content["the_run/status.json"]
    links = {"the_run/status.json": "/etc/passwd"}
    spoilt = packed(tmp_path / "spoilt.tar.gz", content, links)
    with pytest.raises(DataError, match="is not what its bundle"):
        import_(spoilt, tmp_path / "runs")


def test_another_run_in_its_place_is_kept(archive: Path, tmp_path: Path) -> None:
    imported = import_(archive, tmp_path)
    write_json(imported / INDEX, {})
    with pytest.raises(DataError, match="is there already"):
        import_(archive, tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_gets_through(archive: Path, tmp_path: Path, data: st.DataObject) -> None:
    """A byte changed, or the end cut off, of the archive or of what is in it: refused, or harmless."""
    whole = archive.read_bytes()
    inner = data.draw(st.booleans())
    raw = bytearray(gzip.decompress(whole) if inner else whole)
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] ^= data.draw(st.integers(1, 255))
    else:
        del raw[at:]
    file = tmp_path / "damaged.tar.gz"
    file.write_bytes(gzip.compress(bytes(raw), 1) if inner else bytes(raw))
    place = tmp_path / "runs"
    shutil.rmtree(place, ignore_errors=True)
    try:
        imported = import_(file, place)
    except RlhfEvalError:
        assert not [found for found in place.rglob("*") if found.is_file()]
    else:
        for name, entry in read_json(imported / INDEX)["files"].items():
            file = (imported.parent if name.startswith("data/") else imported) / name
            assert file.stat().st_size == entry["size"]


def test_the_command_line(run: Path, tmp_path: Path) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rlhf_eval", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ,
        )

    packed = command("export", str(run))
    assert packed.returncode == 0, packed.stderr
    assert (tmp_path / "the_run.tar.gz").exists()
    assert "not in it:" in packed.stdout
    unpacked = command("import", "the_run.tar.gz")
    assert unpacked.stdout.splitlines()[0] == "runs/lab-imported/the_run"
    assert command("export", str(tmp_path)).returncode == 2
    (tmp_path / "no.tar.gz").write_bytes(b"no archive")
    refused = command("import", "no.tar.gz")
    assert (refused.returncode, "cannot be imported" in refused.stderr) == (1, True)
