"""What is called evidence, and Holm's correction against values worked out by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.audit.findings import findings, holm
from rlhf_eval.audit.openness import openness_card
from rlhf_eval.config.reward_schema import ModelCard, RewardModelConfig


def test_holm_by_hand() -> None:
    # Sorted .01, .02, .03, .04 times 4, 3, 2, 1 is .04, .06, .06, .04; made monotone: .04, .06, .06, .06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    for plain, adjusted in zip(p_values, holm(p_values), strict=True):
        assert plain <= adjusted <= 1
        assert adjusted <= max(1.0 if len(p_values) * p > 1 else len(p_values) * p for p in p_values)
    assert min(holm(p_values)) == pytest.approx(min(1.0, len(p_values) * min(p_values)))


def audit(**sections: Any) -> dict[str, Any]:
    nothing = {"gaps": [], "overlap": [], "overlap_note": "training data closed", "ablation": []}
    return nothing | {"perturbation": []} | sections


def change(name: str, difference: float, p: float) -> dict[str, Any]:
    bounds = {"difference_low": difference - 1, "difference_high": difference + 1, "difference_p": p}
    return {"name": name, "description": name, "n": 9, "drop": 3.0, "p": p, "difference": difference} | bounds


def test_closed_data_are_told_as_what_cannot_be_tested() -> None:
    [finding] = findings(audit())
    assert finding == {"kind": "not testable", "text": "Overlap: training data closed."}


def test_evidence_is_what_lies_beyond_the_panel() -> None:
    arms = [change("removed", 5.0, 0.01)]
    found = findings(audit(ablation=[{"benchmark": "jb", "arms": arms}]))
    assert found[0]["kind"] == "evidence"
    assert "beyond the panel +5.0 points (95 %: +4.0 to +6.0)" in found[0]["text"]
    found = findings(audit(ablation=[{"benchmark": "jb", "arms": [change("removed", 0.5, 0.4)]}]))
    assert found[0]["kind"] == "clear"


def test_one_small_p_among_many_rewrites_is_no_evidence() -> None:
    rows = [change(f"r{n}", 2.0, 0.5) for n in range(9)]
    found = findings(audit(perturbation=[{"benchmark": "b", "rewrites": [*rows, change("x", 4.0, 0.02)]}]))
    assert found[0]["kind"] == "clear"
    found = findings(audit(perturbation=[{"benchmark": "b", "rewrites": [*rows, change("x", 4.0, 0.001)]}]))
    assert found[0]["kind"] == "evidence"
    assert "x (4.0 points)" in found[0]["text"]
    # What helps more than it helps the panel is nothing against a reward model.
    found = findings(audit(perturbation=[{"benchmark": "b", "rewrites": [change("x", -4.0, 0.001)]}]))
    assert found[0]["kind"] == "clear"


def overlap(flagged: int, share: float, canaries: list[str]) -> dict[str, Any]:
    method = {"method": "13-gram", "flagged": flagged, "share": share, "accuracy": 90.0}
    return {"benchmark": "b", "methods": [method | {"accuracy_without": 70.0}], "canaries": canaries}


def test_a_few_items_in_a_corpus_are_no_evidence_and_many_or_a_canary_are() -> None:
    assert findings(audit(overlap=[overlap(3, 1.0, [])]))[0]["kind"] == "clear"
    found = findings(audit(overlap=[overlap(30, 10.0, [])]))[0]
    assert found["kind"] == "evidence"
    assert "30 items of b (10 %)" in found["text"]
    assert "70.0 % without them" in found["text"]
    assert findings(audit(overlap=[overlap(0, 0.0, ["c.jsonl, row 1"])]))[0]["kind"] == "evidence"


@pytest.mark.parametrize(
    ("card", "consequence"),
    [
        (ModelCard(open_data=False), "training data closed: overlap cannot be tested"),
        (ModelCard(open_data=True), "can be tested once card.training_sources names the files"),
        (ModelCard(open_data=True, training_sources=("x.jsonl",)), "can be tested"),
        (ModelCard(training_data=("A", "B")), r"not known \(A, B\)"),
    ],
)
def test_the_card_says_what_can_be_tested(card: ModelCard, consequence: str) -> None:
    facts = {fact.what: fact for fact in openness_card(RewardModelConfig("x", "random", card=card))}
    assert list(facts) == ["weights", "training data", "training code", "recipe", "licence", "base model"]
    import re

    assert re.search(consequence, facts["training data"].consequence)
