import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlhf_eval.errors import DataError
from rlhf_eval.judging.style_control import RIDGE, Battles, style_controlled
from rlhf_eval.judging.style_features import difference, published_style, style
from rlhf_eval.judging.style_normalisation import (
    EQUAL,
    EQUAL_STYLE,
    Constants,
    Normalisation,
    pool_constants,
    read_normalisation,
    write_normalisation,
)


def made_up(models: int, questions: int, seed: int, strengths: np.ndarray | None = None) -> Battles:
    """Two games a question whose outcomes depend on strength and style; some questions are not scored."""
    rng = np.random.default_rng(seed)
    shape = (models, questions)
    standardised = rng.normal(size=(*shape, 4))
    beta = rng.normal(size=models) if strengths is None else strengths
    log_odds = beta[:, None] + standardised @ [0.6, 0.1, -0.2, 0.0]
    won = rng.random((2, *shape)) < 1 / (1 + np.exp(-log_odds))
    rows = rng.choice([1, 3], size=(2, *shape))
    scored = rng.random(shape) < 0.95
    return Battles(
        wins=np.where(scored, (rows * won).sum(axis=0), 0.0),
        rows=np.where(scored, rows.sum(axis=0), 0.0),
        differences=np.where(scored[..., None], standardised * np.array(EQUAL_STYLE.scale), 0.0),
    )


def fitted_by_rows(battles: Battles, constants: Constants, counts: np.ndarray | None = None) -> np.ndarray:
    """The same objective written out over single battle rows, minimised by scipy's trust region."""
    models, questions = battles.rows.shape
    styles = (battles.differences - constants.mean) / constants.scale
    design, outcomes = [], []
    for m in range(models):
        for q in range(questions):
            row = np.concatenate([np.eye(models)[m], styles[m, q]])
            times = 1 if counts is None else int(counts[q])
            won, all_rows = int(battles.wins[m, q]), int(battles.rows[m, q])
            design += [row] * all_rows * times
            outcomes += ([1.0] * won + [0.0] * (all_rows - won)) * times
    x, y = np.array(design), np.array(outcomes)

    def loss(theta: np.ndarray) -> float:
        return float((np.logaddexp(0, x @ theta) - y * (x @ theta)).sum() + RIDGE / 2 * theta @ theta)

    def gradient(theta: np.ndarray) -> np.ndarray:
        return x.T @ (1 / (1 + np.exp(-x @ theta)) - y) + RIDGE * theta

    def curvature(theta: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-x @ theta))
        return (x * (p * (1 - p))[:, None]).T @ x + RIDGE * np.eye(len(theta))

    start = np.zeros(models + 4)
    return minimize(loss, start, jac=gradient, hess=curvature, method="trust-exact", options={"gtol": 1e-9}).x


def rate(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(30, 80), st.integers(0, 10**6))
def test_the_fit_is_that_of_all_battle_rows(models, questions, seed):
    battles = made_up(models, questions, seed)
    fitted = style_controlled(battles, EQUAL_STYLE, bootstraps=2)
    expected = fitted_by_rows(battles, EQUAL_STYLE)
    assert fitted.scores == pytest.approx(rate(expected[:models]), abs=1e-6)
    assert fitted.coefficients == pytest.approx(expected[models:], abs=1e-4)


def test_every_bootstrap_is_a_full_refit():
    battles = made_up(3, 60, 5)
    draws = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 25)
    refits = np.array([rate(fitted_by_rows(battles, EQUAL_STYLE, counts)[:3]) for counts in draws])
    fitted = style_controlled(battles, EQUAL_STYLE, bootstraps=25)
    assert fitted.standard_errors == pytest.approx(refits.std(axis=0, ddof=1), abs=1e-7)


def test_the_standard_error_is_the_spread_over_new_questions():
    strengths = np.array([-0.8, 0.4])
    fits = [
        style_controlled(made_up(2, 150, seed, strengths), EQUAL_STYLE, bootstraps=100) for seed in range(120)
    ]
    spread = np.std([fit.scores for fit in fits], axis=0, ddof=1)
    assert np.mean([fit.standard_errors for fit in fits], axis=0) == pytest.approx(spread, rel=0.25)
    assert np.mean([fit.scores for fit in fits], axis=0) == pytest.approx(rate(strengths), abs=0.01)


def test_style_is_taken_out():
    """Two models of one strength, the second longer: plainly it wins, controlled for style both tie."""
    rng = np.random.default_rng(3)
    lengths = rng.normal(np.array([[0.0], [1.5]]), size=(2, 1000))
    won = rng.random((2, 2, 1000)) < rate(0.8 * lengths)
    differences = np.zeros((2, 1000, 4))
    differences[..., 0] = lengths * EQUAL_STYLE.scale[0]
    battles = Battles(won.sum(axis=0), np.full((2, 1000), 2.0), differences)
    assert battles.wins.mean(axis=1) / 2 == pytest.approx([0.5, 0.74], abs=0.03)
    assert style_controlled(battles, EQUAL_STYLE, bootstraps=2).scores == pytest.approx([0.5, 0.5], abs=0.05)


def test_only_the_mean_of_the_constants_moves_the_score():
    battles = made_up(3, 200, 1)
    scale = EQUAL_STYLE.scale
    fitted = style_controlled(battles, EQUAL_STYLE, bootstraps=10)
    rescaled = style_controlled(
        battles, Constants(EQUAL_STYLE.mean, tuple(3 * s for s in scale)), bootstraps=10
    )
    assert rescaled.scores == pytest.approx(fitted.scores, abs=1e-7)
    assert rescaled.standard_errors == pytest.approx(fitted.standard_errors, abs=1e-7)
    moved = style_controlled(battles, Constants(tuple(0.5 * s for s in scale), scale), bootstraps=10)
    shift = 0.5 * fitted.coefficients.sum()
    assert moved.scores == pytest.approx(rate(np.log(fitted.scores / (1 - fitted.scores)) + shift), abs=1e-7)


def test_the_values_average_to_the_score_and_spread_like_its_error():
    battles = made_up(3, 400, 2)
    fitted = style_controlled(battles, EQUAL_STYLE)
    assert fitted.values.mean(axis=1) == pytest.approx(fitted.scores, abs=1e-12)
    assert fitted.values.std(axis=1, ddof=1) / 20 == pytest.approx(fitted.standard_errors, rel=0.08)


@settings(max_examples=25)
@given(st.integers(2, 60), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]))
def test_what_has_no_maximum_still_ends(questions, seed, share):
    """A model that wins or loses all, fewer questions than parameters, features that never vary."""
    made = made_up(2, questions, seed)
    rows = made.rows + 1
    fitted = style_controlled(
        Battles(share * rows, rows, made.differences * [1, 0, 0, 0]), EQUAL_STYLE, bootstraps=20
    )
    assert ((fitted.scores >= 0) & (fitted.scores <= 1) & (fitted.standard_errors <= 0.5)).all()
    assert fitted.values.mean(axis=1) == pytest.approx(fitted.scores)
    assert fitted.coefficients[1:] == pytest.approx([0, 0, 0])
    if questions >= 30:
        assert fitted.scores == pytest.approx([share, share], abs=1e-3)
        assert fitted.standard_errors == pytest.approx([0, 0], abs=1e-3)


def test_the_same_call_gives_the_same_numbers():
    first, second = (style_controlled(made_up(2, 80, 9), EQUAL_STYLE, bootstraps=50) for _ in range(2))
    assert first.standard_errors.tobytes() == second.standard_errors.tobytes()


@pytest.mark.golden
def test_markdown_is_counted_as_published(golden):
    with gzip.open(golden / "arena_hard" / "answers-v2.0-o3-mini-2025-01-31.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    own = np.array([style(row["messages"][-1]["content"]["answer"]) for row in rows])
    published = np.array([published_style(row["metadata"]) for row in rows])
    assert len(rows) == 750
    assert (own[:, 1:] == published[:, 1:]).all()
    assert published[:, 1:].sum(axis=0).min() > 100
    assert np.corrcoef(own[:, 0], published[:, 0])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("# a\n## b\n####### c\n#d", [2, 0, 0]),
        ("1. a\n  22. b\n- c\n* d\n+ e\n-f", [0, 5, 0]),
        ("**a** __b__ **c\nd****", [0, 0, 2]),
        ("```\n# a\n- b\n**c**\n```\n# d", [1, 0, 0]),
        ("", [0, 0, 0]),
    ],
)
def test_what_counts_as_markdown(text, counts):
    assert style(text)[1:].tolist() == counts


def test_length_is_counted_in_bytes():
    assert style("abcd é")[0] == 7 / 4


styles = st.tuples(st.integers(0, 10**4), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))


@given(styles, styles)
def test_differences_are_relative_and_change_sign_with_the_sides(policy, baseline):
    first, second = np.array(policy, dtype=float), np.array(baseline, dtype=float)
    found = difference(first, second)
    assert found == pytest.approx(-difference(second, first))
    assert (np.abs(found) <= 1).all()
    assert difference(first, first).tolist() == [0, 0, 0, 0]


def test_a_difference_written_out():
    found = difference(np.array([300.0, 3, 0, 6]), np.array([100.0, 1, 2, 0]))
    densities = [(3 / 301, 1 / 101), (0, 2 / 101), (6 / 301, 0)]
    assert found == pytest.approx([0.5, *((p - b) / (p + b + 1) for p, b in densities)])


def test_a_pool_is_standardised_over_its_battle_rows(tmp_path):
    battles = made_up(4, 50, 7)
    constants = pool_constants(battles.differences, battles.rows)
    rows = np.repeat(battles.differences.reshape(-1, 4), battles.rows.astype(int).ravel(), axis=0)
    assert constants.mean == pytest.approx(rows.mean(axis=0))
    assert constants.scale == pytest.approx(rows.std(axis=0, ddof=1))
    frozen = Normalisation("four models", "words", {"hard_prompt": constants})
    write_normalisation(tmp_path / "style.json", frozen)
    assert read_normalisation(tmp_path / "style.json") == frozen
    assert frozen.constants("hard_prompt", "words") == constants
    for category, length in (("creative_writing", "words"), ("hard_prompt", "tokens")):
        with pytest.raises(DataError, match="'four models' are of the categories hard_prompt"):
            frozen.constants(category, length)
    assert EQUAL.constants("anything", "words") == EQUAL_STYLE


def test_bad_constants_are_refused(tmp_path):
    still = np.zeros((1, 3, 4))
    still[..., 0] = [[0.1, 0.2, 0.3]]
    with pytest.raises(DataError, match="alike in headers, lists, bold"):
        pool_constants(still, np.ones((1, 3)))
    three = {"name": "x", "length": "y", "categories": {"a": {"mean": [0] * 3, "scale": [1] * 4}}}
    for text in ("[]", "{}", json.dumps(three)):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="holds no style constants"):
            read_normalisation(tmp_path / "bad.json")
