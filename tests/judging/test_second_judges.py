"""Several judges of the same answers: each asked once, scored apart, compared with the first."""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.files import read_json
from rlhf_eval.judging import scoring, stage

SILENT = lambda done, total: None  # noqa: E731


def test_a_second_judge_is_scored_beside_the_first(judged_by, answers, endpoint, tmp_path: Path) -> None:
    config = judged_by(base_url=endpoint.address)
    same = replace(config.judge, name="same")
    config = replace(config, second_judges={"same": same})
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "cache", SILENT)
    assert endpoint.good == 100  # the same model on the same texts: paid for once
    truncated = {"alpaca_eval": set(), "arena_hard": {"q1", "q2", "q3"}}
    scores = scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", None, truncated)
    second = scores["second_judges"]["same"]
    assert second["alpaca_eval"] == scores["alpaca_eval"]
    assert second["arena_hard"] == scores["arena_hard"]
    assert second["agreement"]["arena_hard"]["same"] == 100
    assert second["agreement"]["arena_hard"]["favour"] == 0
    assert second["family"] == "lab"
    consistency = scores["arena_hard"]["position_consistency"]
    assert consistency["n"] == 30
    assert 0 <= consistency["share"] <= 100
    assert scores["suspicious_answers"]["arena_hard"]["truncated"] == pytest.approx(10.0)
    assert read_json(tmp_path / "score" / "scores.json") == scores


def test_another_model_is_asked_for_itself(judged_by, answers, endpoint, tmp_path: Path) -> None:
    config = judged_by(base_url=endpoint.address)
    config = replace(config, second_judges={"warm": replace(config.judge, name="warm", temperature=0.5)})
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "cache", SILENT)
    assert endpoint.good == 200
    assert sorted(path.name for path in (tmp_path / "judge" / "warm").iterdir()) == [
        "alpaca_eval.jsonl",
        "arena_hard.jsonl",
        "spent.jsonl",
    ]
