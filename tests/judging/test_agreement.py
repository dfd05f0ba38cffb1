"""Agreement of judges: by hand, and Cohen's κ against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.judging.agreement import agreement, family, favour, position_consistency
from rlhf_eval.records import Verdict


def verdicts(*preferences: float | None, game: int = 0) -> list[Verdict]:
    return [
        Verdict("arena_hard", f"q{n}", game, game == 1, f"k{n}", p, None, None if p is not None else "x", "")
        for n, p in enumerate(preferences)
    ]


def test_position_consistency_by_hand() -> None:
    games = verdicts(1.0, 1.0, 0.5, 0.0, None) + verdicts(1.0, 0.0, 0.5, 0.0, 1.0, game=1)
    assert position_consistency(games) == (4, 75.0)
    always_first = verdicts(0.0, 0.0) + verdicts(1.0, 1.0, game=1)
    assert position_consistency(always_first) == (2, 0.0)


def test_agreement_by_hand() -> None:
    one, other = verdicts(1.0, 1.0, 0.0, 0.5, None), verdicts(0.9, 0.2, 0.1, 0.5, 1.0)
    found = agreement(one, other)
    assert (found.n, found.same) == (4, 75.0)
    # Winners + + − 0 and + − − 0: by chance ¼·½ + ½·¼ + ¼·¼ = 5/16.
    assert found.kappa == pytest.approx((0.75 - 5 / 16) / (1 - 5 / 16))
    assert found.correlation == pytest.approx(np.corrcoef([1, 1, 0, 0.5], [0.9, 0.2, 0.1, 0.5])[0, 1])
    assert np.isnan(agreement(one, []).same)
    assert np.isnan(agreement(verdicts(1.0, 1.0), verdicts(1.0, 1.0)).kappa)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])), min_size=2))
def test_kappa_is_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*pairs, strict=True)
    if len({*first, *second}) > 1:
        expected = cohen_kappa_score([int(2 * x) for x in first], [int(2 * x) for x in second])
        assert agreement(verdicts(*first), verdicts(*second)).kappa == pytest.approx(expected, nan_ok=True)


def test_a_judge_that_favours_its_kin_is_seen() -> None:
    groups = {"kin": verdicts(0.9, 0.8, 0.7), "b": verdicts(0.5, 0.5, 0.5), "c": verdicts(0.6, 0.4, None)}
    # On the two that all decided: .85 against the mean of .5, .5, .6, .4.
    assert favour(groups, "kin") == pytest.approx(35.0)
    assert np.isnan(favour({"alone": verdicts(1.0)}, "alone"))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4.1-2025-04-14", "openai"),
        ("o3-mini-2025-01-31", "openai"),
        ("claude-3-5-sonnet-20240620", "anthropic"),
        ("gemini-2.0-flash-001", "google"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta"),
        ("allenai/Llama-3.1-Tulu-3-8B-SFT", "meta"),
        ("Qwen/Qwen3-8B", "alibaba"),
        ("lab-judge-1", "lab"),
        ("deepseek-v3", "deepseek"),
        ("something-else", None),
    ],
)
def test_families_by_name(model: str, expected: str | None) -> None:
    assert family(model) == expected
