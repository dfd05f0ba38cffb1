"""Published annotations and assets: bad input, who gets the regulariser, what is joined to what."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.judging import alpaca_eval_files
from rlhf_eval.judging.alpaca_eval_files import (
    read_annotations,
    read_regulariser,
    regulariser_for,
    score_annotations,
)
from rlhf_eval.judging.length_control import length_controlled

N = 60
DIFFICULTY = np.random.default_rng(5).normal(size=N)


def rows(n: int = N, **changes: object) -> list[dict]:
    """Annotations of a small set in its order; length, difficulty and a constant all matter to the judge."""
    draws = np.random.default_rng(1)
    lengths = draws.integers(10, 90, (N, 2))
    odds = 2 * DIFFICULTY - 1.5 + 2 * np.tanh((lengths[:, 1] - lengths[:, 0]) / 30) + draws.normal(size=N)
    return [
        {
            "instruction": f"do {index}",
            "output_1": "b" * lengths[index, 0],
            "output_2": "p" * lengths[index, 1],
            "preference": float(1 + 1 / (1 + np.exp(-odds[index]))),
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "generator_1": "gpt4_1106_preview",
            "generator_2": "policy",
        }
        | changes
        for index in range(n)
    ]


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def write_table(path: Path, table: list[dict]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


def gamed() -> list[dict]:
    draws = random.Random(2)
    return [
        {
            "preference": draws.random(),
            "index": index,
            "std_delta_len": draws.gauss(0, 2),
            "instruction_difficulty": DIFFICULTY[index],
            "not_gamed_baseline": False,
            "model": model,
        }
        for model in ("verbose", "concise")
        for index in range(N)
    ]


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """The assets of a small set."""
    folder = tmp_path / "assets"
    folder.mkdir()
    prompts = [{"instruction": f"do {n}", "output": "o", "generator": "gpt4_1106_preview"} for n in range(N)]
    write(folder / "alpaca_eval_gpt4_baseline.json", prompts)
    write_table(
        folder / "instruction_difficulty.csv",
        [{"index": n, "instruction_difficulty": DIFFICULTY[n]} for n in range(N)],
    )
    write_table(folder / "df_gamed.csv", gamed())
    return folder


def by_hand(annotations: list[dict], regularised: bool) -> float:
    """The length-controlled win rate of rows in set order."""
    columns = gamed()
    regulariser = alpaca_eval_files.Regulariser(
        *(
            np.array([row[name] for row in columns])
            for name in ("preference", "std_delta_len", "instruction_difficulty")
        )
    )
    found = length_controlled(
        [row["preference"] - 1 for row in annotations],
        [len(row["output_1"]) - len(row["output_2"]) for row in annotations],
        [DIFFICULTY[int(row["instruction"].split()[1])] for row in annotations],
        regulariser if regularised else None,
    )
    assert found is not None
    return found.win_rate


@pytest.mark.parametrize(
    ("changes", "regularised"),
    [
        ({}, True),
        ({"annotator": "weighted_alpaca_eval_gpt-4o-mini-2024-07-18"}, False),
        ({"annotator": None}, False),
        ({"generator_1": "text_davinci_003"}, False),
    ],
)
def test_the_regulariser_joins_for_the_judge_and_baseline_it_was_fitted_to(
    assets, tmp_path, changes, regularised
):
    annotations = rows(**changes)
    found = score_annotations(write(tmp_path / "a.json", annotations), assets, 0.02)
    assert found.regularised is regularised
    controlled = found.scores.length_controlled
    assert controlled is not None
    assert controlled.win_rate == pytest.approx(by_hand(annotations, regularised), abs=1e-12)
    assert controlled.fit == f"{'with' if regularised else 'without'} regulariser, with difficulty"
    other = by_hand(annotations, not regularised)
    assert controlled.win_rate != pytest.approx(other, abs=1e-4)


def test_missing_and_null_rows_give_the_scores_of_the_others(assets, tmp_path):
    annotations = rows()
    kept = [row for n, row in enumerate(annotations) if n not in (7, 31)]
    with_null = [row | ({"preference": None} if n == 7 else {}) for n, row in enumerate(annotations)]
    del with_null[31]
    random.Random(3).shuffle(with_null)
    found = score_annotations(write(tmp_path / "a.json", with_null), assets, 0.04)
    assert (found.failed, len(found.scores.prompt_ids)) == (2, N - 2)
    assert found.scores.win_rate == pytest.approx(np.mean([row["preference"] - 1 for row in kept]), abs=1e-12)
    assert found.scores.length_controlled is not None
    assert found.scores.length_controlled.win_rate == pytest.approx(by_hand(kept, True), abs=1e-12)
    with pytest.raises(
        JudgeError, match=r"2 of 60 prompts \(3.3%, allowed are 2.0%\): 1 are null, 1 have no"
    ):
        score_annotations(str(tmp_path / "a.json"), assets, 0.02)


def test_prompts_of_another_set_are_named_and_counted(assets, tmp_path):
    annotations = rows(N - 3) + [row | {"instruction": f"else {n}"} for n, row in enumerate(rows(2))]
    with pytest.raises(
        DataError, match=r'2 instructions are strange to them, such as "else 0".*3 are missing'
    ):
        score_annotations(write(tmp_path / "a.json", annotations), assets, 0.5)


def test_no_preference_at_all_is_refused_at_any_limit(assets, tmp_path):
    with pytest.raises(JudgeError, match="60 of 60"):
        score_annotations(write(tmp_path / "a.json", rows(preference=None)), assets, 1.0)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("with_assets", [True, False])
def test_the_order_of_the_rows_changes_nothing(assets, tmp_path, order, with_assets):
    annotations = rows()
    folder = assets if with_assets else None
    first = score_annotations(write(tmp_path / "a.json", annotations), folder, 0.02)
    shuffled = random.Random(order).sample(annotations, N)
    second = score_annotations(write(tmp_path / "b.json", shuffled), folder, 0.02)
    assert first.as_json() == second.as_json()


def test_without_assets_the_fit_says_what_it_lacks(tmp_path):
    found = score_annotations(write(tmp_path / "a.json", rows()), None, 0.02).as_json()
    assert found["length_control"] == "without regulariser, without difficulty"
    assert found["regularised"] is False
    few = score_annotations(write(tmp_path / "b.json", rows(3)), None, 0.02).as_json()
    assert few["length_controlled_win_rate"] is None
    assert few["length_control"] == "not fitted: too few prompts"


@pytest.mark.parametrize(
    ("absent", "named"),
    [
        (["df_gamed.csv"], "df_gamed.csv"),
        (["alpaca_eval_gpt4_baseline.json"], "alpaca_eval_gpt4_baseline.json"),
    ],
)
def test_a_missing_asset_is_named(assets, tmp_path, absent, named):
    for name in absent:
        (assets / name).unlink()
    with pytest.raises(DataError, match=rf"(?s)There is no {named} in.*hf download .*{named}"):
        score_annotations(write(tmp_path / "a.json", rows()), assets, 0.02)


def test_the_gamed_table_brings_the_difficulties_too(assets, tmp_path):
    source = write(tmp_path / "a.json", rows())
    whole = score_annotations(source, assets, 0.02)
    (assets / "instruction_difficulty.csv").unlink()
    assert score_annotations(source, assets, 0.02).as_json() == whole.as_json()
    (assets / "df_gamed.csv").unlink()
    other_judge = write(tmp_path / "b.json", rows(annotator="mine"))
    with pytest.raises(DataError, match=r"There is no instruction_difficulty\.csv"):
        score_annotations(other_judge, assets, 0.02)


def test_another_judge_needs_no_gamed_table(assets, tmp_path):
    (assets / "df_gamed.csv").unlink()
    found = score_annotations(write(tmp_path / "a.json", rows(annotator="mine")), assets, 0.02)
    assert found.as_json()["length_control"] == "without regulariser, with difficulty"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preference": 2.5}, "Row 4 of .*2.5 is no number from 1"),
        ({"preference": 0}, "Row 4 of .*0 is no number from 1"),
        ({"preference": -1}, "-1 is no number from 1"),
        ({"preference": float("nan")}, "nan is no number from 1"),
        ({"preference": True}, "True is no number from 1"),
        ({"preference": "1.5"}, "'1.5' is no number from 1"),
        ({"output_2": None}, "Row 4 of .* has no texts"),
        ({"instruction": "do 1"}, '1 instructions stand more than once in .*"do 1"'),
        ({"annotator": "another"}, "mixes 2 values of `annotator`"),
        ({"generator_2": "another"}, "mixes 2 values of `generator_2`"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, said):
    annotations = rows(8)
    annotations[4] |= change
    with pytest.raises(DataError, match=said):
        read_annotations(write(tmp_path / "a.json", annotations))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "malformed JSON"),
        ("{}", "does not hold a JSON list"),
        ("[]", "holds no annotations"),
        ("[1]", "does not hold a JSON list of objects"),
        ("[{}]", "Row 0 of .* has no texts"),
        ('[{"instruction": "a", "output_1": "", "output_2": ""}]', "Row 0 of .* has no `preference`"),
    ],
)
def test_a_file_that_holds_no_annotations_is_refused(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read_annotations(str(tmp_path / "a.json"))


def test_zero_is_an_old_draw_of_equal_texts(tmp_path):
    same = rows(1, output_1="same", output_2="same", preference=0)
    assert read_annotations(write(tmp_path / "a.json", same)).rows[0].preference == 0.5


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "instruction": st.text() | st.none(),
                "output_1": st.text() | st.integers(),
                "output_2": st.text(),
                "preference": st.floats() | st.none() | st.text() | st.booleans(),
                "annotator": st.text() | st.integers(),
            },
        )
        | st.integers()
        | st.none(),
        max_size=4,
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("any") / "a.json"
    try:
        found = read_annotations(write(path, value))
    except DataError:
        return
    assert len(found.rows) == len(value)
    assert all(row.preference is None or 0 <= row.preference <= 1 for row in found.rows)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table[:-1], "not complete"),
        (lambda table: table[1:N] + table[N + 1 :], "not complete"),
        (lambda table: [row | {"preference": "high"} for row in table], "no table of gamed answers"),
        (lambda table: [row | {"std_delta_len": "NaN"} for row in table], "no table of gamed answers"),
        (lambda table: [{"index": row["index"]} for row in table], "no table of gamed answers"),
    ],
)
def test_a_damaged_gamed_table_is_refused(tmp_path, spoil, said):
    path = write_table(tmp_path / "df_gamed.csv", spoil(gamed()))
    with pytest.raises(DataError, match=said):
        read_regulariser(str(path))


def test_a_run_gets_the_regulariser_only_under_the_judge_it_was_fitted_to(assets):
    source = str(assets / "df_gamed.csv")
    config = AlpacaEvalConfig("set.json", regulariser=source)
    fitted = JudgeConfig("old", "gpt-4-1106-preview")
    found = regulariser_for(config, fitted, "gpt4_1106_preview")
    assert found is not None
    assert len(found.preference) == 2 * N
    assert regulariser_for(config, JudgeConfig("new", "gpt-4.1"), "gpt4_1106_preview") is None
    assert regulariser_for(config, fitted, "lab_policy") is None
    assert regulariser_for(AlpacaEvalConfig("set.json"), fitted, "gpt4_1106_preview") is None
    clf = AlpacaEvalConfig("set.json", regulariser=source, annotator="alpaca_eval_clf_gpt4_turbo")
    assert regulariser_for(clf, fitted, "gpt4_1106_preview") is None
