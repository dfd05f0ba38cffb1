"""The index: what sets of tuples find, whatever the hashes, the repetitions and the script."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.audit import ngrams
from rlhf_eval.audit.ngrams import NgramIndex, exact_form, numbered, words_of

Words = list[str]


def indexed(texts: list[Words], n: int, most_groups: int) -> tuple[NgramIndex, dict[str, int], list[int]]:
    """The index with every text a group, the numbers of its words, and where each text starts."""
    numbers: dict[str, int] = {}
    tokens = numbered(texts, numbers, grow=True)
    sizes = [len(words) + 1 for words in texts]
    groups = np.repeat(np.arange(len(texts)), sizes)
    starts = [sum(sizes[:number]) for number in range(len(texts))]
    return NgramIndex(tokens, n, groups, most_groups), numbers, starts


def found(texts: list[Words], passage: Words, n: int, most_groups: int) -> set[tuple[int, int, int]]:
    """Every meeting of a passage with the texts: place in the passage, text, place in the text."""
    index, numbers, starts = indexed(texts, n, most_groups)
    hits = index.search(numbered([passage], numbers, grow=False))
    assert len(set(hits.here.tolist())) == len(hits.here), "one n-gram stands at a place"
    places, which = index.places_of(hits.grams)
    text = np.searchsorted(starts, places, side="right") - 1
    return {
        (int(hits.here[hit]), int(t), int(place) - starts[t])
        for hit, t, place in zip(which, text, places, strict=True)
    }


def naive(texts: list[Words], passage: Words, n: int, most_groups: int) -> set[tuple[int, int, int]]:
    """The same by comparing everything with everything."""
    meetings = {
        (here, number, there)
        for here in range(len(passage) - n + 1)
        for number, words in enumerate(texts)
        for there in range(len(words) - n + 1)
        if passage[here : here + n] == words[there : there + n]
    }
    return {m for m in meetings if len({number for h, number, _ in meetings if h == m[0]}) <= most_groups}


CASES = given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=6),
    st.lists(st.sampled_from("abcde"), max_size=40),
    st.integers(2, 5),
    st.integers(1, 7),
)


@settings(max_examples=150)
@CASES
def test_the_index_finds_what_comparing_everything_finds(
    texts: list[Words], passage: Words, n: int, most_groups: int
) -> None:
    assert found(texts, passage, n, most_groups) == naive(texts, passage, n, most_groups)


@settings(max_examples=100)
@CASES
def test_colliding_hashes_change_nothing(
    texts: list[Words], passage: Words, n: int, most_groups: int
) -> None:
    """Every n-gram gets one of two hashes."""
    true_hashes = ngrams._hashes

    def few(tokens: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        hashes, whole = true_hashes(tokens, n)
        return hashes & np.uint64(1), whole

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_hashes", few)
        assert found(texts, passage, n, most_groups) == naive(texts, passage, n, most_groups)


def test_common_ngrams_are_counted_and_left_out() -> None:
    index, numbers, _ = indexed([["a", "b", "c"], ["a", "b"], ["b", "c", "b", "c"]], 2, most_groups=1)
    assert index.common == 2  # a b and b c stand in two texts each; c b in one, b c twice in the third
    assert index.search(numbered([["a", "b", "c", "b"]], numbers, grow=False)).here.tolist() == [2]


def test_repeated_words_do_not_multiply() -> None:
    """A response that degenerates meets one like it: 3,000 places against 3,000 are 3,000 hits."""
    index, numbers, _ = indexed([["0"] * 3000], 13, most_groups=5)
    hits = index.search(numbered([["0"] * 3000], numbers, grow=False))
    assert len(hits.here) == 3000 - 12
    assert set(hits.grams.tolist()) == {0}


def test_words_of_several_scripts() -> None:
    assert words_of("Don't STOP, naïve Ünïcode_1!") == ["don", "t", "stop", "naïve", "ünïcode_1"]
    assert words_of("你好 world 世界") == ["你", "好", "world", "世", "界"]
    assert words_of("한국어 문장") == ["한국어", "문장"]
    assert words_of(" … ?! ") == []


def test_one_text_in_two_forms_of_unicode_has_the_same_words() -> None:
    text = "el niño pequeño comió más ﬁsh"
    assert words_of(unicodedata.normalize("NFD", text)) == words_of(text)
    assert words_of("ＡＢＣ１２") == ["abc12"]


def test_the_exact_form_keeps_what_changes_the_meaning() -> None:
    assert exact_form("What is  2+2?") == exact_form("what is 2 + 2") == "what is 2 + 2"
    assert len({exact_form(text) for text in ("3+2", "3-2", "3*2", "32", "3.2")}) == 5
    assert exact_form("“Oh!”, he said…") == exact_form('"oh" he said')
