import html
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.analysis.hostile import plot_label, script_hash, script_json, visible

ANY_TEXT = st.text(st.characters(codec=None))  # halves of surrogate pairs among them


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=8))
def test_data_of_a_script_come_back_as_they_were_and_cannot_leave_their_element(value: object) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError):
        script_json({"score": float("nan")})


@given(ANY_TEXT)
def test_what_is_shown_holds_nothing_unseen_that_a_browser_acts_on(text: str) -> None:
    shown = visible(text)
    shown.encode("utf-8")  # no half of a surrogate pair
    assert not {c for c in shown if unicodedata.category(c) in ("Cc", "Zl", "Zp")} - {"\t", "\n"}
    assert not {
        c for c in shown if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI")
    }
    assert visible(shown) == shown


def test_ordinary_text_is_shown_as_it_is() -> None:
    text = "def f():\n\treturn 'é 日本語 العربية 👩‍💻'"
    assert visible(text) == text


@given(ANY_TEXT)
def test_a_label_is_one_short_line_without_markup(name: str) -> None:
    label = plot_label(name)
    assert not set("<>\n\t") & set(label)
    assert len(html.unescape(label)) <= 34
    if name.isprintable() and len(name) <= 34:
        assert html.unescape(label) == " ".join(name.split())


def test_long_names_that_differ_at_their_ends_stay_apart() -> None:
    names = {plot_label(f"Skywork/Skywork-Reward-V2-Llama-3.1-8B-40M-seed-{i}") for i in range(100)}
    assert len(names) == 100


def test_a_hash_is_that_of_the_content_security_policy() -> None:
    # The example of the specification.
    expected = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
    assert script_hash("alert('Hello, world.');") == expected
