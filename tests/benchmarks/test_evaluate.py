"""Scoring items: once for an experiment, by scorers and by those that only compare; and private sets."""

import gzip
import html
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.benchmarks.evaluate import evaluate, load_benchmark, score_items
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.cli import main
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.config.reward_schema import EndpointConfig, GroupConfig, RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_json, read_jsonl, write_jsonl
from rlhf_eval.progress import SilentProgress
from rlhf_eval.records import Comparison, PreferenceBatch, user_prompt
from rlhf_eval.rewards.interface import PairwiseRewardModel
from rlhf_eval.rewards.stored import StoredRewardModel

RULE = """
def value(prompt, completion):
    with open({log!r}, "a") as stream:
        stream.write(completion + "\\n")
    return float("nan") if completion == "unreadable" else float(len(completion))
"""
SECRET = "the very secret wording of a question nobody else has"


@pytest.fixture
def rule(tmp_path: Path) -> list[str]:
    """A reward model that likes length, and writes down what it is asked in `asked.txt`."""
    (tmp_path / "rules.py").write_text(RULE.format(log=str(tmp_path / "asked.txt")))
    function = f"reward_model.function={tmp_path}/rules.py:value"
    return ["reward_model=rule", function, f"output={tmp_path}/runs", "reward_model.max_invalid_share=0.5"]


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked.txt").read_text().splitlines()


def pairs(path: Path, *texts: tuple[str, str], prompt: str = "Question") -> None:
    rows = [
        {"id": f"p{n}", "prompt": f"{prompt} {n}", "chosen": chosen, "rejected": rejected}
        for n, (chosen, rejected) in enumerate(texts)
    ]
    write_jsonl(path, rows)


def test_texts_are_scored_once_for_an_experiment(
    rule: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "private.jsonl"
    pairs(data, ("longer", "short"), ("a", "bbb"), ("unreadable", "c"))
    command = ["benchmark", *rule, "benchmark=private", "--data", str(data), "--json"]
    assert main(command) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["accuracy"], shown["n"], shown["invalid"]) == (pytest.approx(100 / 3), 3, 1)
    assert sorted(asked(tmp_path)) == ["a", "bbb", "c", "longer", "short", "unreadable"]
    assert main(command) == 0
    # Only what had no valid score is asked again.
    assert asked(tmp_path)[6:] == ["unreadable"]
    assert json.loads(capsys.readouterr().out) == shown
    [folder] = (tmp_path / "runs/default/shared/scores").iterdir()
    assert read_json(folder / "benchmarks/private.json") == shown
    rows = read_jsonl(folder / "benchmarks/private.jsonl")
    assert rows[0] == {"id": "p0", "scores": [6.0, 5.0], "right": 1.0}
    assert rows[2] == {"id": "p2", "scores": [None, 1.0], "right": 0.0}
    assert main([*command[:2], "benchmark=private", "--data", str(data), *rule[1:]]) == 0


def test_the_scores_written_can_be_read_back(
    rule: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "private.jsonl"
    pairs(data, ("longer", "short"), ("a", "bbb"), ("unreadable", "c"))
    words = ["benchmark=private", "--data", str(data), "--json"]
    assert main(["benchmark", *rule, *words]) == 0
    shown = json.loads(capsys.readouterr().out)
    [scores] = (tmp_path / "runs/default/shared/scores").glob("*/benchmarks/private.jsonl")
    assert main(["benchmark", *words, "--scores", str(scores)]) == 0
    assert json.loads(capsys.readouterr().out) == shown


def test_a_killed_pass_keeps_what_it_scored(
    rule: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_eval.rewards import stored

    monkeypatch.setattr(stored, "CHUNK", 4)
    data = tmp_path / "private.jsonl"
    pairs(data, *((f"chosen {n}", f"no {n}") for n in range(8)))
    honest, calls = stored.append_jsonl, []

    def dies(path: Path, *rows: dict) -> None:
        honest(path, *rows)
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt

    command = ["benchmark", *rule, "benchmark=private", "--data", str(data), "--json"]
    monkeypatch.setattr(stored, "append_jsonl", dies)
    assert main(command) == 130
    monkeypatch.setattr(stored, "append_jsonl", honest)
    assert main(command) == 0
    assert len(asked(tmp_path)) == 16  # none twice


def test_a_text_that_two_benchmarks_share_is_scored_once(rule: list[str], tmp_path: Path) -> None:
    pairs(tmp_path / "one.jsonl", ("longer", "short"), ("a", "bbb"))
    pairs(tmp_path / "two.jsonl", ("longer", "short"), ("new", "bbb"))
    config = RewardModelConfig("rule", "rule", function=f"{tmp_path}/rules.py:value")
    model = StoredRewardModel(config, tmp_path / "store", SilentProgress())
    loaded = [
        load_benchmark(BenchmarkConfig(name, {"all": str(tmp_path / f"{name}.jsonl")}))
        for name in ("one", "two")
    ]
    one, two = evaluate(model, loaded)
    assert sorted(asked(tmp_path)) == ["a", "bbb", "longer", "new", "short"]
    assert (one.summary.accuracy, two.summary.accuracy) == (50, 50)
    again = StoredRewardModel(config, tmp_path / "store", SilentProgress())
    evaluate(again, loaded)
    # Nothing was missing, so the reward model was not even loaded.
    assert again.load.cache_info().misses == 0


def test_a_reward_model_that_changed_is_asked_again(
    rule: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "private.jsonl"
    pairs(data, ("longer", "short"), ("bbb", "a"))
    command = ["benchmark", *rule, "benchmark=private", "--data", str(data), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 100
    code = (tmp_path / "rules.py").read_text()
    (tmp_path / "rules.py").write_text(code.replace("float(len(completion))", "-float(len(completion))"))
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == 0


def test_a_server_that_does_not_answer_makes_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "private.jsonl"
    pairs(data, ("longer", "short"), ("bbb", "a"))
    words = ["reward_model=served", "reward_model.endpoint.base_url=http://127.0.0.1:9", f"output={tmp_path}"]
    words += ["reward_model.endpoint.timeout_seconds=1", "reward_model.endpoint.deadline_seconds=1"]
    allowed = "benchmarks.private.may_be_sent_to_remote_models=true"
    assert main(["benchmark", *words, allowed, "benchmark=private", "--data", str(data)]) == 1
    assert "no valid score for 2 of 2 items" in capsys.readouterr().err


def test_answers_of_a_server_are_not_kept_for_another_one(tmp_path: Path) -> None:
    endpoint = EndpointConfig(base_url="http://127.0.0.1:9", timeout_seconds=1, deadline_seconds=1)
    (tmp_path / "reward_model.json").write_text('{"name": "far", "only_compares": false}')
    (tmp_path / "old.jsonl").write_text('{"key": "k", "answer": 1.0}\n')
    stored = StoredRewardModel(
        RewardModelConfig("far", "remote", endpoint=endpoint), tmp_path, SilentProgress(), lambda asked: "k"
    )
    assert not stored.score([user_prompt("p", "?").answered("!")]).valid.any()


class Longer(PairwiseRewardModel):
    """Compares lengths, and cannot say how good one is."""

    name = "longer"
    group = GroupConfig()

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        lengths = np.array([[len(c.completion_a), len(c.completion_b)] for c in comparisons]).reshape(-1, 2)
        wins = 1 / (1 + np.exp(lengths[:, 1] - lengths[:, 0]))
        return PreferenceBatch(wins, np.isfinite(wins))


def test_a_reward_model_that_only_compares_plays_a_tournament() -> None:
    items = [
        Item("pair", user_prompt("1", "?"), ("aa", "a"), (1.0, 0.0)),
        Item("four", user_prompt("2", "?"), ("aa", "a", "aaaa", "aaa"), (0.0, 0.0, 1.0, 0.0)),
    ]
    pair, four = score_items(Longer(), items, both_orders=False)
    assert pair == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))])
    assert np.argsort(four).tolist() == [1, 0, 3, 2]


def test_a_private_set_stays_private(
    rule: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    pairs(secret / "p.jsonl", ("longer answer", "short"), ("a", "bbb"), prompt=SECRET)
    assert main(["private", "seal", str(secret / "p.jsonl")]) == 0
    canary = capsys.readouterr().out.strip()
    assert all(row["canary"] == canary for row in read_jsonl(secret / "p.jsonl"))
    assert main(["private", "seal", str(secret / "p.jsonl")]) == 0  # sealed once
    assert capsys.readouterr().out.strip() == canary
    command = ["benchmark", *rule, "benchmark=private", "--data", str(secret / "p.jsonl")]
    assert main(command) == 0
    assert (secret / "p.jsonl.salt").stat().st_mode & 0o077 == 0
    find = ["private", "find", str(secret / "p.jsonl"), str(tmp_path / "runs")]
    assert main(find) == 0
    capsys.readouterr()
    # The same pairs under another salt have other keys: nobody can look a text up in the store.
    [folder] = (tmp_path / "runs/default/shared/scores").iterdir()
    [segment] = folder.glob("*.jsonl")
    keys = {row["key"] for row in read_jsonl(segment)}
    (secret / "p.jsonl.salt").write_text("ab" * 32)
    segment.unlink()
    assert main(command) == 0
    [segment] = folder.glob("*.jsonl")
    assert keys.isdisjoint(row["key"] for row in read_jsonl(segment))
    # A copy that got into a corpus, even as a part of other JSON, is found.
    corpus = tmp_path / "runs" / "corpus.json"
    corpus.write_text(json.dumps({"text": f"x {SECRET} 0 y"}))
    capsys.readouterr()
    assert main(find) == 1
    assert capsys.readouterr().out.split() == [str(corpus)]
    corpus.write_text(f'{{"meta": "{canary}"}}')
    assert main(find) == 1


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("plain.txt", lambda text: text.encode()),
        ("ours.jsonl", lambda text: json.dumps({"x": text}, ensure_ascii=False).encode()),
        ("ascii.json", lambda text: json.dumps({"x": text}).encode()),
        ("page.html", lambda text: html.escape(text).encode()),
        ("packed.jsonl.gz", lambda text: gzip.compress(json.dumps({"x": text}).encode())),
    ],
)
def test_leaks_are_found_in_every_form(
    tmp_path: Path, name: str, form: Callable[[str], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'A prompt that is "quoted" & wórded\nover two lines, known to nobody'
    (tmp_path / "set").mkdir()
    pairs(tmp_path / "set" / "p.jsonl", ("a", "b"), prompt=text)
    assert main(["private", "seal", str(tmp_path / "set/p.jsonl")]) == 0
    (tmp_path / "places").mkdir()
    find = ["private", "find", str(tmp_path / "set/p.jsonl"), str(tmp_path / "places")]
    assert main(find) == 0
    (tmp_path / "places" / name).write_bytes(form(f"before {text} 0 after"))
    capsys.readouterr()
    assert main(find) == 1
    assert capsys.readouterr().out.split() == [str(tmp_path / "places" / name)]
    assert main([*find, str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


GOOD = {"id": "p", "prompt": "?", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", json.dumps(GOOD | {"chosen": [{"role": "assistant", "content": "a"}]}), "is no text"),
        ("d.jsonl", json.dumps(GOOD | {"prompt": 3}), "neither text nor a list of turns"),
        ("d.jsonl", json.dumps(GOOD | {"prompt": [{"role": "user", "content": None}]}), "is no text"),
        ("d.jsonl", json.dumps(GOOD | {"subset": ["x"]}), "is no text"),
        ("d.json", "[1, 2]", "JSON list of objects"),
        ("d.jsonl", "", "hold no rows"),
        ("d.csv", b"id,prompt,chosen,rejected\np,\xe9,a,b\n", r"is no \.csv file"),
        ("d.jsonl.gz", b"not gzip", r"is no \.jsonl\.gz file"),
        ("d.parquet", b"not parquet", r"is no \.parquet file"),
    ],
)
def test_data_that_cannot_be_used_are_named_without_a_traceback(
    tmp_path: Path, name: str, content: str | bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    command = ["benchmark", "reward_model=length_only", f"output={tmp_path}/runs", "benchmark=private"]
    assert main([*command, "--data", str(tmp_path / name)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_long_field_and_a_mark_at_the_beginning_of_a_csv_are_no_mistakes(tmp_path: Path) -> None:
    long = "word " * 40_000
    (tmp_path / "d.csv").write_text(f"id,prompt,chosen,rejected\np,?,{long},b\n", encoding="utf-8-sig")
    command = ["benchmark", "reward_model=length_only", f"output={tmp_path}/runs", "benchmark=private"]
    assert main([*command, "--data", str(tmp_path / "d.csv")]) == 0


def test_two_benchmarks_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark=private,judgebench", "benchmarks.private.name=judgebench", "reward_model=random"]
    assert main(["benchmark", *words, f"output={tmp_path}"]) == 2
    assert "cannot name this benchmark's files" in capsys.readouterr().err


def test_a_private_set_is_not_sent_away_unless_the_configuration_says_so(tmp_path: Path) -> None:
    pairs(tmp_path / "p.jsonl", ("a", "b"))
    data = {"all": str(tmp_path / "p.jsonl")}
    judge = RewardModelConfig("far", "remote", endpoint=EndpointConfig(base_url="http://10.0.0.9:1"))
    wrapped = RewardModelConfig("turned", "flipped", inner=judge)
    for config in (judge, wrapped):
        model = StoredRewardModel.__new__(StoredRewardModel)  # refused before anything is opened or sent
        model.config = config
        with pytest.raises(ConfigError, match=r"is private, and reward_model[\s\S]*10\.0\.0\.9") as refused:
            evaluate(model, [load_benchmark(BenchmarkConfig("mine", data, private=True))])
        assert "benchmarks.mine.may_be_sent_to_remote_models=true" in refused.value.cure


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["benchmark", "reward_model=random"], "No benchmark is named"),
        (["benchmark", "reward_model=random", "benchmark=judgbench"], "mean 'judgebench'"),
        (["benchmark", "benchmark=judgebench"], "either a reward model or a file of scores"),
        (
            ["benchmark", "benchmark=judgebench", "reward_model=random", "--scores", "s.csv"],
            "either a reward model or a file of scores",
        ),
        (["benchmark", "benchmark=judgebench,rm_bench", "--scores", "s.csv"], "belongs to one benchmark"),
        (["benchmark", "benchmark=private", "--scores", "s", "--data", "nowhere"], "nothing of benchmark"),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) in (1, 2)
    assert message in capsys.readouterr().err
