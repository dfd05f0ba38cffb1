import itertools
import json
import pickle
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.judging import scoring, stage
from rlhf_eval.records import ScoreBatch

TOTAL = 40 + 2 * 30
FAULTS = (None, "429", "500", "reset", "malformed", "no logprobs", "refusal", "empty", "chatter")
SILENT = lambda done, total: None  # noqa: E731


def results(folder: Path) -> tuple[Any, list[dict[str, Any]]]:
    return read_json(folder / "scores.json"), read_jsonl(folder / "per_prompt.jsonl")


def test_verdicts_stand_in_prompt_order_and_the_means_are_the_scores(
    config, judged_by, answers, endpoint, tmp_path
):
    config = judged_by(base_url=endpoint.address)
    progress = []
    stage.judge(
        config,
        answers,
        tmp_path / "judge",
        tmp_path / "judge_cache",
        lambda done, total: progress.append((done, total)),
    )
    assert progress[0] == (0, TOTAL)
    assert progress[-1] == (TOTAL, TOTAL)
    assert len(progress) == TOTAL + 1

    prompts = stage.evaluation_prompts(config.prompts)
    verdicts = read_jsonl(tmp_path / "judge" / "arena_hard.jsonl")
    assert [(v["prompt_id"], v["game"]) for v in verdicts] == [
        (p.id, g) for p in prompts["arena_hard"] for g in (0, 1)
    ]
    assert all(v["policy_first"] == (v["game"] == 1) for v in verdicts)
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == [
        "alpaca_eval.jsonl",
        "arena_hard.jsonl",
        "spent.jsonl",
    ]

    def gold(conversations):
        valid = np.arange(len(conversations)) % 10 != 0
        return ScoreBatch(np.array([float(len(c[-1].content)) for c in conversations]), valid)

    scores = scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", gold)
    saved, rows = results(tmp_path / "score")
    assert saved == scores
    assert scores["alpaca_eval"]["n"] == 40
    assert scores["arena_hard"]["n"] == 30
    assert scores["gold"]["n"] == 63
    for evaluation, value, score in (
        ("alpaca_eval", "value", "win_rate"),
        ("alpaca_eval", "length_controlled", "length_controlled_win_rate"),
        ("arena_hard", "value", "score"),
    ):
        mean = 100 * np.mean([row[value] for row in rows if row["evaluation"] == evaluation])
        assert mean == pytest.approx(scores[evaluation][score], abs=1e-9)
    assert all(row["gold"] in (None, row["characters"]) for row in rows)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault])
def test_a_fault_is_waited_out_or_becomes_a_failed_verdict_that_the_next_call_asks_again(
    fault, judged_by, answers, endpoint, tmp_path
):
    endpoint.fault = lambda times, number: fault if times == 0 and number % 10 == 0 else None
    config = judged_by(base_url=endpoint.address, max_failed_share=0.9)
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "judge_cache", SILENT)
    verdicts = [v for path in (tmp_path / "judge").glob("*_*.jsonl") for v in read_jsonl(path)]
    failed = [v for v in verdicts if v["preference"] is None]
    struck = sum(times > 0 for times in endpoint.seen.values())
    if fault in ("429", "500", "reset"):
        assert failed == []
        assert struck > 0
        return
    assert failed
    assert all(v["error"] for v in failed)
    scores = scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", None)
    left_out = {(v["evaluation"], v["prompt_id"]) for v in failed}
    assert scores["alpaca_eval"]["failed"] + scores["arena_hard"]["failed"] == len(left_out)
    assert scores["alpaca_eval"]["n"] + scores["arena_hard"]["n"] == 70 - len(left_out)
    good = endpoint.good
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "judge_cache", SILENT)
    assert endpoint.good == good + len(failed)
    assert all(
        v["error"] is None for path in (tmp_path / "judge").glob("*_*.jsonl") for v in read_jsonl(path)
    )


def test_kill_and_faults_in_the_middle_change_no_score(judged_by, answers, endpoint, tmp_path):
    config = judged_by(base_url=endpoint.address)
    stage.judge(config, answers, tmp_path / "calm", tmp_path / "calm_cache", SILENT)
    scoring.score(config, answers, tmp_path / "calm", tmp_path / "calm_score", None)

    endpoint.seen.clear()
    endpoint.good = 0

    def fault(times: int, number: int) -> str | None:
        time.sleep(0.02)
        return FAULTS[number % len(FAULTS)] if times == 0 else None

    endpoint.fault = fault
    (tmp_path / "input.pickle").write_bytes(
        pickle.dumps((config, answers, tmp_path / "judge", tmp_path / "judge_cache"))
    )
    program = (
        "import pickle, sys; from pathlib import Path; from rlhf_eval.judging import stage\n"
        "stage.judge(*pickle.loads(Path(sys.argv[1]).read_bytes()), lambda done, total: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "input.pickle")])
    deadline = time.monotonic() + 60
    while sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("judge_cache/*.segment")) < 15:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    [segment] = (tmp_path / "judge_cache").glob("*.segment")
    with segment.open("ab") as torn:
        torn.write(b'{"evaluation": "alpaca_ev')
    kept = sum(row["error"] is None for row in read_jsonl(segment))
    assert 0 < kept < TOTAL

    progress = []
    with pytest.raises(JudgeError) as refused:
        stage.judge(
            config,
            answers,
            tmp_path / "judge",
            tmp_path / "judge_cache",
            lambda done, total: progress.append(done),
        )
    assert progress[0] == kept
    assert "%" in refused.value.what
    assert "same command" in refused.value.cure
    assert any(
        cause in refused.value.what for cause in ("malformed", "log-prob", "refused", "empty", "label")
    )

    stage.judge(config, answers, tmp_path / "judge", tmp_path / "judge_cache", SILENT)
    scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", None)
    assert results(tmp_path / "score") == results(tmp_path / "calm_score")
    for name in ("alpaca_eval.jsonl", "arena_hard.jsonl"):
        assert (tmp_path / "judge" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    # Nothing that had been answered was asked again, but for what was under way when the process died.
    assert endpoint.good <= TOTAL + config.judge.concurrency


def test_too_many_failures_refuse_the_score(judged_by, answers, endpoint, tmp_path):
    endpoint.fault = lambda times, number: "400" if number % 5 == 0 else None
    stage.judge(
        judged_by(base_url=endpoint.address, max_failed_share=0.9),
        answers,
        tmp_path / "judge",
        tmp_path / "judge_cache",
        SILENT,
    )
    with pytest.raises(JudgeError, match=r"HTTP 400: .*made 400"):
        scoring.score(
            judged_by(base_url=endpoint.address), answers, tmp_path / "judge", tmp_path / "score", None
        )
    assert not (tmp_path / "score" / "scores.json").exists()


def test_a_judge_that_is_not_there_is_named(judged_by, answers, tmp_path):
    started = time.monotonic()
    with pytest.raises(JudgeError, match=r"http://127\.0\.0\.1:9/v1 cannot be reached"):
        stage.judge(
            judged_by(base_url="http://127.0.0.1:9/v1", max_retries=1),
            answers,
            tmp_path,
            tmp_path / "cache",
            SILENT,
        )
    assert time.monotonic() - started < 10


def test_a_judge_that_dies_on_the_way_is_given_up_and_its_verdicts_kept(
    judged_by, answers, endpoint, tmp_path
):
    endpoint.fault = lambda times, number: "reset" if endpoint.good >= 30 else None
    config = judged_by(base_url=endpoint.address, max_retries=0)
    with pytest.raises(JudgeError, match="cannot be reached"):
        stage.judge(config, answers, tmp_path, tmp_path / "cache", SILENT)
    endpoint.fault = lambda times, number: None
    stage.judge(config, answers, tmp_path, tmp_path / "cache", SILENT)
    assert endpoint.good == TOTAL


def test_calls_under_way_when_the_judge_is_given_up_are_waited_for_and_kept(
    judged_by, answers, endpoint, tmp_path
):
    calls = itertools.count()

    def refuse_one_and_answer_the_others_later(times: int, number: int) -> str | None:
        number_of_call = next(calls)
        if number_of_call == 1:  # the first is asked alone
            time.sleep(0.1)
            return "401"
        time.sleep(0.3 if number_of_call else 0)
        return None

    endpoint.fault = refuse_one_and_answer_the_others_later
    config = judged_by(base_url=endpoint.address)
    with pytest.raises(JudgeError, match="refuses access"):
        stage.judge(config, answers, tmp_path, tmp_path / "cache", SILENT)
    [segment] = (tmp_path / "cache").glob("*.segment")
    # The first, and all that were under way beside the refused one.
    assert len(read_jsonl(segment)) == endpoint.good == config.judge.concurrency


@pytest.mark.parametrize(
    ("fault", "said"), [("401", "refuses access"), ("404", "has no model 'lab-judge-1'")]
)
def test_a_wrong_key_or_model_stops_at_once(fault, said, judged_by, answers, endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "sk-secret")
    endpoint.fault = lambda times, number: fault
    with pytest.raises(JudgeError, match=said) as error:
        stage.judge(
            judged_by(base_url=endpoint.address, api_key_variable="MY_JUDGE_KEY"),
            answers,
            tmp_path,
            tmp_path / "cache",
            SILENT,
        )
    assert endpoint.headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(error.value)
    assert len(endpoint.seen) <= 8


def test_a_missing_key_names_its_variable(judged_by, answers, endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("MY_JUDGE_KEY", raising=False)
    with pytest.raises(JudgeError, match="MY_JUDGE_KEY"):
        stage.judge(
            judged_by(base_url=endpoint.address, api_key_variable="MY_JUDGE_KEY"),
            answers,
            tmp_path,
            tmp_path / "cache",
            SILENT,
        )


def test_a_proxy_for_the_outside_world_is_not_asked_for_a_local_judge(
    judged_by, answers, endpoint, tmp_path, monkeypatch
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    stage.judge(judged_by(base_url=endpoint.address), answers, tmp_path, tmp_path / "cache", SILENT)
    assert endpoint.good == TOTAL


def test_identical_answers_are_a_tie_in_alpaca_eval_and_need_no_judge(judged_by, answers, endpoint, tmp_path):
    config = judged_by(base_url=endpoint.address)
    references = {
        p.id: f"cat {n} ." for n, p in enumerate(stage.evaluation_prompts(config.prompts)["alpaca_eval"])
    }
    stage.judge(config, answers | {"alpaca_eval": references}, tmp_path, tmp_path / "cache", SILENT)
    assert {v["preference"] for v in read_jsonl(tmp_path / "alpaca_eval.jsonl")} == {0.5}
    assert endpoint.good == 60


def test_missing_answers_are_counted(judged_by, answers, endpoint, tmp_path):
    config = judged_by(base_url=endpoint.address)
    del answers["arena_hard"]["q3"]
    with pytest.raises(DataError, match=r"1 of 30 answers to arena_hard are missing, such as q3"):
        stage.judge(config, answers, tmp_path, tmp_path / "cache", SILENT)


def test_verdicts_on_other_answers_are_not_scored(judged_by, answers, endpoint, tmp_path):
    config = judged_by(base_url=endpoint.address)
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "judge_cache", SILENT)
    other = {name: {key: text + " ." for key, text in group.items()} for name, group in answers.items()}
    with pytest.raises(DataError, match="40 of 40"):
        scoring.score(config, other, tmp_path / "judge", tmp_path / "score", None)


def test_the_lab_judge_is_started_and_stopped_by_the_run(judged_by, answers, tmp_path):
    config = judged_by(serve=("python", "-m", "rlhf_eval.lab.judge_server", "--noise", "0"))
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "judge_cache", SILENT)
    scores = scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", None)
    assert scores["alpaca_eval"]["failed"] == scores["arena_hard"]["failed"] == 0
    labels = Counter(v["label"] for v in read_jsonl(tmp_path / "judge" / "arena_hard.jsonl"))
    assert set(labels) <= {"A>>B", "A>B", "A=B", "B>A", "B>>A"}
    assert len(labels) > 1
    assert json.dumps(scores)  # plain numbers only
