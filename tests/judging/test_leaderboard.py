import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.judging.leaderboard import Entry, position, published_annotator

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
BASELINE = "gpt4_1106_preview"


def test_a_published_model_stands_where_the_leaderboard_has_it():
    found = position({"length_controlled_win_rate": 25.251943886133027}, JUDGE, BASELINE, "claude-2.1")
    assert found is not None
    assert (found.metric, found.of) == ("length_controlled_win_rate", 223)
    assert [entry.model for entry in found.above] == ["dbrx-instruct", "FuseChat-Llama-3.2-1B-Instruct"]
    assert found.below[0].model == "Nanbeige2-8B-Chat"
    assert "claude-2.1" not in {entry.model for entry in [*found.above, *found.below]}
    unnamed = position({"length_controlled_win_rate": 25.251943886133027}, JUDGE, BASELINE)
    assert unnamed is not None
    assert unnamed.of == 224
    assert Entry("claude-2.1", 25.251943886133027) in [*unnamed.above, *unnamed.below]


def test_the_win_rate_decides_where_there_is_no_length_controlled_one():
    by_win_rate = position({"win_rate": 99.0, "length_controlled_win_rate": None}, JUDGE, BASELINE)
    assert by_win_rate is not None
    assert (by_win_rate.metric, by_win_rate.rank, by_win_rate.above) == ("win_rate", 1, [])
    # This leaderboard has no length-controlled column.
    old = position(
        {"win_rate": 20.0, "length_controlled_win_rate": 30.0}, "alpaca_eval_cot_gpt4_turbo_fn", BASELINE
    )
    assert old is not None
    assert (old.metric, old.rank, old.of) == ("win_rate", 3, 13)
    assert [entry.model for entry in old.below] == ["gpt4", "Mixtral-8x7B-Instruct-v0.1"]


def test_the_first_alpaca_eval_has_its_own_leaderboard():
    found = position({"win_rate": 0.0}, "alpaca_eval_gpt4", "text_davinci_003")
    assert found is not None
    assert found.rank == found.of
    assert found.below == []


@pytest.mark.parametrize(
    ("annotator", "baseline"),
    [
        (JUDGE, "text_davinci_003"),
        (JUDGE, "my_baseline"),
        (None, BASELINE),
        ("gpt4", BASELINE),
        (JUDGE, None),
    ],
)
def test_another_judge_or_baseline_has_no_position(annotator, baseline):
    assert position({"win_rate": 50.0}, annotator, baseline) is None


@given(st.floats(0, 100))
@settings(max_examples=40)
def test_rank_and_neighbours_agree(score):
    found = position({"win_rate": score}, JUDGE, BASELINE)
    assert found is not None
    assert all(entry.score > score for entry in found.above)
    assert all(entry.score <= score for entry in found.below)
    assert len(found.above) == min(2, found.rank - 1)
    assert len(found.below) == min(2, found.of - found.rank)
    listed = [entry.score for entry in [*found.above, *found.below]]
    assert listed == sorted(listed, reverse=True)


def test_a_run_has_published_neighbours_only_under_the_same_judge_on_the_whole_set():
    whole = AlpacaEvalConfig("set.json")
    same = JudgeConfig("old", "gpt-4-1106-preview")
    assert published_annotator(whole, same) == JUDGE
    assert published_annotator(whole, JudgeConfig("new", "gpt-4.1-2025-04-14")) is None
    assert published_annotator(AlpacaEvalConfig("set.json", limit=100), same) is None
