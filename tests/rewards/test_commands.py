"""`rlhf-eval reward score` and `rlhf-eval validate reward_model=…` as a user meets them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.cli import main
from rlhf_eval.files import read_jsonl, write_jsonl
from rlhf_eval.records import as_json
from rlhf_eval.rewards import commands
from rlhf_eval.rewards.interface import load_reward_model


@pytest.fixture
def words(tiny: Callable[..., Path]) -> list[str]:
    """Overrides that choose a tiny classifier."""
    return ["reward_model=random", "reward_model.kind=classifier", f"reward_model.model={tiny('llama')}"]


def test_a_file_is_scored_in_its_order_and_continued(
    words: list[str],
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = conversations(30)
    rows: list[dict[str, Any]] = [{"id": f"c{n}", "messages": as_json(c)} for n, c in enumerate(asked)]
    rows[1] = {"prompt": asked[1][0].content, "completion": asked[1][1].content}
    write_jsonl(tmp_path / "in.jsonl", rows)
    command = ["reward", "score", *words, "--input", str(tmp_path / "in.jsonl")]
    command += ["--output", str(tmp_path / "out" / "scores.jsonl")]
    monkeypatch.setattr(commands, "CHUNK", 8)
    honest = commands.append_jsonl
    written: list[int] = []

    def dies(path: Path, *rows: dict[str, Any]) -> None:
        honest(path, *rows)
        written.append(len(rows))
        if sum(written) > 16:
            raise KeyboardInterrupt

    monkeypatch.setattr(commands, "append_jsonl", dies)
    assert main(command) == 130
    monkeypatch.setattr(commands, "append_jsonl", honest)
    assert not (tmp_path / "out" / "scores.jsonl").exists()
    capsys.readouterr()
    assert main(command) == 0
    assert "scored 30, invalid 0, kept 16" in capsys.readouterr().out
    found = read_jsonl(tmp_path / "out" / "scores.jsonl")
    assert [row["id"] for row in found] == ["c0", 2, *(f"c{n}" for n in range(2, 30))]
    expected = load_reward_model(config_of(tiny("llama"))).score(asked).scores
    assert [row["score"] for row in found] == pytest.approx(expected.tolist(), abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.jsonl"]


def test_a_part_of_something_else_is_refused(
    words: list[str], conversations: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"messages": as_json(c)} for c in conversations(2)])
    write_jsonl(tmp_path / "scores.jsonl.part", [{"reward_model": "other", "source": "other"}])
    command = ["reward", "score", *words, "--input", str(tmp_path / "in.jsonl")]
    assert main([*command, "--output", str(tmp_path / "scores.jsonl")]) == 1
    assert "was begun with another reward model" in capsys.readouterr().err


def test_groups_of_completions_are_scored_together(
    words: list[str],
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [c[-1].content for c in conversations(4)]
    rows = [
        {"id": "g", "prompt": "list two animals", "completions": texts},
        {"prompt": "x", "completions": texts},
    ]
    write_jsonl(tmp_path / "in.jsonl", rows)
    prompt = tmp_path / "prompt.jinja"
    prompt.write_text("{{ instruction }} {{ answer_a }} also {{ answer_b }}")
    judge = ["reward_model.kind=generative", "reward_model.comparability=pair"]
    judge += [f"reward_model.model={tiny('language_model')}", "reward_model.group.schedule=reference"]
    judge += [f"+reward_model.verdict={{prompt: {prompt}, labels: [cat, dog], opening: ''}}"]
    command = ["reward", "score", "reward_model=random", *judge, "--input", str(tmp_path / "in.jsonl")]
    assert main([*command, "--output", str(tmp_path / "scores.jsonl")]) == 0
    (first, second) = read_jsonl(tmp_path / "scores.jsonl")
    assert (first["id"], second["id"]) == ("g", 2)
    assert first["valid"] == [True] * 4
    assert sum(first["score"]) == pytest.approx(0, abs=1e-9)
    assert main(["validate", "reward_model=random", *judge, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["group_calls"] == {"4": 6, "8": 14, "16": 30}

    write_jsonl(tmp_path / "in.jsonl", [*rows, {"prompt": "x", "completion": "cat"}])
    assert main([*command, "--output", str(tmp_path / "others.jsonl")]) == 1
    assert "row 3 has no group of completions" in capsys.readouterr().err
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x", "completion": "cat"}])
    assert main([*command, "--output", str(tmp_path / "others2.jsonl")]) == 2
    assert "compares two answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"prompt": "x"}, "row 1 has no conversation"),
        ({"messages": [{"role": "user", "content": "x"}]}, "Conversation 1 of 1 does not end"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(
    row: dict, fault: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "in.jsonl", [row])
    command = ["reward", "score", *words, "--input", str(tmp_path / "in.jsonl")]
    assert main([*command, "--output", str(tmp_path / "scores.jsonl")]) == 1
    assert fault in capsys.readouterr().err


def test_validate_loads_the_model_and_compares_golden_scores(
    words: list[str],
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (asked,) = conversations(1)
    (score,) = load_reward_model(config_of(tiny("llama"))).score([asked]).scores
    capsys.readouterr()

    def golden(score: float) -> str:
        row = {"prompt": asked[0].content, "completion": asked[1].content, "score": score, "tolerance": 1e-3}
        return "reward_model.golden=[{" + ",".join(f"{k}: {json.dumps(v)}" for k, v in row.items()) + "}]"

    assert main(["validate", *words, golden(float(score)), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["loaded"] is True
    assert shown["golden"][0]["agrees"] is True
    assert set(shown["card"]) >= {"base_model", "licence", "open_data", "training_data"}
    assert main(["validate", *words, golden(float(score) + 1)]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert main(["validate", *words, "reward_model.model=/no/such/folder"]) == 2
    assert "/no/such/folder" in capsys.readouterr().err
