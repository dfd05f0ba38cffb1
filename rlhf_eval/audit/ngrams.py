"""An index of the word n-grams of some texts, and a fast search of other texts for them.

Words are the runs of letters, digits and underscores in the lower-cased text; punctuation and spacing do not
count. A Chinese or Japanese character is a word by itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""An odd number whose powers mix the word numbers of an n-gram into 64 bits."""
BITS = 27


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(text.lower())


@dataclass(frozen=True, slots=True)
class Hits:
    """Where a searched stretch of words meets the index.

    Attributes:
        here: places in the searched words, shape (hits,).
        there: places in the index's words, shape (hits,).
    """

    here: np.ndarray
    there: np.ndarray


class NgramIndex:
    """The n-grams of `texts` for one n.

    Args:
        tokens: word numbers of all texts, one after the other with a 0 after each, shape (words,).
        n: words in an n-gram.
        groups: of every word, the number of the text's item, shape (words,).
        most_groups: n-grams of more items than this are common phrases of the benchmark and are left out.
    """

    def __init__(self, tokens: np.ndarray, n: int, groups: np.ndarray, most_groups: int) -> None:
        self.tokens = tokens
        self.n = n
        hashes, whole = _hashes(tokens, n)
        place = np.flatnonzero(whole)
        order = np.argsort(hashes[place], kind="stable")
        place = place[order]
        keys = hashes[place]
        common = _in_many_groups(keys, groups[place], most_groups)
        self.common = len(np.unique(keys[common]))
        self.places = place[~common]
        self.keys = keys[~common]
        self.bitmap = np.zeros(1 << BITS >> 3, dtype=np.uint8)
        slots = (self.keys >> np.uint64(64 - BITS)).astype(np.int64)
        np.bitwise_or.at(self.bitmap, slots >> 3, (1 << (slots & 7)).astype(np.uint8))

    def search(self, tokens: np.ndarray) -> Hits:
        """Every place where `tokens` have an n-gram of the index; compared word by word, so none is false."""
        hashes, whole = _hashes(tokens, self.n)
        slots = (hashes >> np.uint64(64 - BITS)).astype(np.int64)
        likely = np.flatnonzero(whole & ((self.bitmap[slots >> 3] >> (slots & 7).astype(np.uint8)) & 1 > 0))
        first = np.searchsorted(self.keys, hashes[likely], side="left")
        after = np.searchsorted(self.keys, hashes[likely], side="right")
        counts = after - first
        here = np.repeat(likely, counts)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        there = self.places[np.repeat(first, counts) + offsets]
        span = np.arange(self.n)
        same = (tokens[here[:, None] + span] == self.tokens[there[:, None] + span]).all(axis=1)
        return Hits(here[same], there[same])


def numbered(texts: Sequence[Sequence[str]], numbers: dict[str, int], grow: bool) -> np.ndarray:
    """Word numbers of all texts with a 0 after each, shape (words + texts,).

    Args:
        numbers: word → number from 1 on; a word that is not in it gets 0, or its own number if it may `grow`.
    """
    if grow:
        for text in texts:
            for word in text:
                numbers.setdefault(word, len(numbers) + 1)
    get = numbers.get
    flat = [get(word, 0) for text in texts for word in (*text, "")]
    return np.array(flat, dtype=np.int64)


def _hashes(tokens: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash of the n-gram at every place, and whether it has n known words; shape (words,) each."""
    size = len(tokens) - n + 1
    if size <= 0:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=bool)
    values = tokens.astype(np.uint64)
    hashes = np.zeros(size, dtype=np.uint64)
    for place in range(n):
        hashes = (hashes + values[place : place + size]) * FACTOR
        hashes ^= hashes >> np.uint64(29)
    unknown = np.concatenate([[0], np.cumsum(tokens == 0)])
    return hashes, unknown[n:] == unknown[:size]


def _in_many_groups(keys: np.ndarray, groups: np.ndarray, most: int) -> np.ndarray:
    """Whether a sorted key stands in more than `most` different groups, shape (keys,)."""
    if not len(keys):
        return np.zeros(0, dtype=bool)
    _, inverse = np.unique(keys, return_inverse=True)
    pairs = np.unique(np.column_stack([inverse, groups]), axis=0)
    return np.bincount(pairs[:, 0])[inverse] > most
