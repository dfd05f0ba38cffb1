import csv
import gzip

import numpy as np
import pytest

from rlhf_eval.judging.length_control import LengthControlled, Regulariser, length_controlled


def fitted(*columns, regulariser: Regulariser | None = None) -> LengthControlled:
    result = length_controlled(*columns, regulariser=regulariser)
    assert result is not None
    return result


@pytest.fixture(scope="module")
def published(golden):
    """Model → its rows and its leaderboard row; and the regulariser of the published fit."""
    folder = golden / "alpaca_eval"
    with (folder / "instruction_difficulty.csv").open() as stream:
        difficulty = {row["index"]: float(row["instruction_difficulty"]) for row in csv.DictReader(stream)}
    rows: dict[str, list[tuple[float, int, float]]] = {}
    with gzip.open(folder / "annotations.csv.gz", "rt") as stream:
        for row in csv.DictReader(stream):
            rows.setdefault(row["model"], []).append(
                (
                    float(row["preference"]) - 1,
                    int(row["output_1_chars"]) - int(row["output_2_chars"]),
                    difficulty[row["prompt_index"]],
                )
            )
    with (folder / "expected_leaderboard.csv").open() as stream:
        expected = {row["model"]: row for row in csv.DictReader(stream)}
    with (folder / "df_gamed.csv").open() as stream:
        gamed = list(csv.DictReader(stream))
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    regulariser = Regulariser(*(np.array([float(row[column]) for row in gamed]) for column in columns))
    return rows, expected, regulariser


@pytest.mark.golden
def test_equals_the_leaderboard_for_every_published_model(published):
    rows, expected, regulariser = published
    assert len(rows) == 12
    for model, triples in rows.items():
        result = fitted(*zip(*triples, strict=True), regulariser=regulariser)
        assert result.fit == "with regulariser, with difficulty"
        published_rate = float(expected[model]["length_controlled_winrate"])
        assert 100 * result.win_rate == pytest.approx(published_rate, abs=0.16), model
        again = fitted(*zip(*triples, strict=True), regulariser=regulariser)
        assert again.win_rate == pytest.approx(result.win_rate, abs=1e-11)
        assert result.values.mean() == pytest.approx(result.win_rate, abs=1e-12)


@pytest.mark.golden
def test_the_standard_error_is_that_of_refitting_on_resampled_prompts(published):
    rows, _, regulariser = published
    columns = [np.array(column) for column in zip(*rows["claude-2.1"], strict=True)]
    random = np.random.default_rng(0)
    refitted = []
    for _ in range(40):
        draw = np.sort(random.integers(0, 805, 805))
        refitted.append(fitted(*(column[draw] for column in columns), regulariser=regulariser).win_rate)
    found = fitted(*columns, regulariser=regulariser).standard_error
    assert found == pytest.approx(np.std(refitted), rel=0.25)


def test_length_alone_is_controlled_away():
    """A judge that only sees length: the policy wins because it is longer, and keeps nothing of it."""
    random = np.random.default_rng(1)
    difference = random.normal(-300, 300, 600).astype(int)
    preference = 1 / (1 + np.exp(2 * np.tanh(difference / difference.std(ddof=1))))
    result = fitted(preference, difference)
    assert preference.mean() > 0.65
    assert result.win_rate == pytest.approx(0.5, abs=0.02)
    assert result.fit == "without regulariser, without difficulty"


@pytest.mark.parametrize(
    ("least", "most"), [(-300, -100), (-1000, -800), (-1500, -500), (-1500, -1), (-600, -600), (5, 900)]
)
def test_where_every_answer_is_longer_or_shorter_nothing_is_known_of_equal_length(least, most):
    random = np.random.default_rng(2)
    difference = random.integers(least, most + 1, 300)
    result = fitted(random.beta(2, 8, 300), difference)
    assert result.standard_error == pytest.approx(0.5, abs=0.01)
    assert result.values.mean() == pytest.approx(result.win_rate, abs=1e-9)


def test_an_estimate_that_the_penalty_holds_at_one_half_is_not_exact():
    """The judge sees little but length, so the fit may drop the constant: a rate of 50, but not ± 0."""
    random = np.random.default_rng(3)
    difference = random.normal(-30, 20, 300).astype(int)
    length = np.tanh(difference / difference.std(ddof=1))
    result = fitted(np.clip(random.normal(1 / (1 + np.exp(-length)), 0.3), 0, 1), difference)
    assert result.win_rate == pytest.approx(0.5, abs=0.1)
    assert 0.02 < result.standard_error < 0.2


@pytest.mark.parametrize("preference", [0.0, 0.5, 1.0])
def test_constant_input_gives_a_finite_rate(preference):
    result = fitted([preference] * 50, [0] * 50)
    assert np.isfinite(result.values).all()
    assert result.win_rate == pytest.approx(preference, abs=0.05)


def test_too_few_prompts_are_not_fitted():
    assert length_controlled([1.0, 0.0], [3, 4]) is None
