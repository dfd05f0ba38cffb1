"""An index of the word n-grams of some texts, and a fast search of other texts for them.

Words are the runs of letters, digits and underscores in the lower-cased text, in Unicode's normal form NFKC;
punctuation and spacing do not count. A Chinese or Japanese character is a word by itself. Other scripts
without spaces (Thai, Khmer) are split at their combining marks, the same way in every text.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
EXACT = re.compile(WORD.pattern + r"|[^\w\s.,;:!?'\"`’‘“”…。，、]")
FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""An odd number whose powers mix the word numbers of an n-gram into 64 bits."""
BITS = 27


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return WORD.findall(_normal(text))


def exact_form(text: str) -> str:
    """What two texts have in common that are the same but for case, spacing and sentence punctuation.

    Other signs count, unlike in words: `3 + 2` is not `3 - 2`.
    """
    return " ".join(EXACT.findall(_normal(text)))


@dataclass(frozen=True, slots=True)
class Hits:
    """Where a searched stretch of words meets the index.

    Attributes:
        here: places in the searched words, each at most once but for colliding hashes; shape (hits,).
        grams: numbers of the n-grams that stand there, shape (hits,).
    """

    here: np.ndarray
    grams: np.ndarray


class NgramIndex:
    """The different n-grams of some texts for one n, numbered from 0 on.

    Args:
        tokens: word numbers of all texts, one after the other with a 0 after each, shape (words,).
        n: words in an n-gram.
        groups: of every word, the number of the group its text belongs to, shape (words,).
        most_groups: n-grams of more groups than this are common phrases and are left out.
    """

    def __init__(self, tokens: np.ndarray, n: int, groups: np.ndarray, most_groups: int) -> None:
        self.tokens = tokens
        self.n = n
        hashes, whole = _hashes(tokens, n)
        places = np.flatnonzero(whole)
        places = places[np.argsort(hashes[places], kind="stable")]
        first = self._first_alike(hashes[places], places)
        samples, gram = np.unique(first, return_inverse=True)
        count = groups.max(initial=0) + 1
        pairs = np.unique(gram * count + groups[places])
        common = np.bincount(pairs // count, minlength=len(samples)) > most_groups
        self.common = int(common.sum())
        self.samples = places[samples[~common]]
        self.keys = hashes[self.samples]
        kept = ~common[gram]
        gram = (np.cumsum(~common) - 1)[gram[kept]]
        order = np.argsort(gram, kind="stable")
        self.places = places[kept][order]
        self.starts = np.searchsorted(gram[order], np.arange(len(self.samples) + 1))
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
        which, grams = _spread(first, after)
        here = likely[which]
        same = _alike(tokens, here, self.tokens, self.samples[grams], self.n)
        return Hits(here[same], grams[same])

    def places_of(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All places of some n-grams in the index's words, and which of `grams` each is; shape (places,)."""
        which, slots = _spread(self.starts[grams], self.starts[grams + 1])
        return self.places[slots], which

    def _first_alike(self, keys: np.ndarray, places: np.ndarray) -> np.ndarray:
        """For every place, by sorted hash, the first one that has the same words; shape (places,)."""
        first = np.zeros(len(places), dtype=np.int64)
        left = np.arange(len(places))
        while len(left):  # a second time only where hashes collide
            heads = left[np.searchsorted(keys[left], keys[left], side="left")]
            same = _alike(self.tokens, places[left], self.tokens, places[heads], self.n)
            first[left[same]] = heads[same]
            left = left[~same]
        return first


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


def _normal(text: str) -> str:
    return (text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def _hashes(tokens: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hash of the n-gram at every place, and whether it has n known words; shape (words - n + 1,) each."""
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


def _alike(a: np.ndarray, at_a: np.ndarray, b: np.ndarray, at_b: np.ndarray, n: int) -> np.ndarray:
    """Whether n words from `at_a` on are those from `at_b` on, shape (places,)."""
    same = np.ones(len(at_a), dtype=bool)
    for step in range(n):
        same &= a[at_a + step] == b[at_b + step]
    return same


def _spread(first: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of the ranges [first, after), one range after the other, and the range each is of."""
    counts = after - first
    which = np.repeat(np.arange(len(first)), counts)
    return which, np.arange(len(which)) + (first - np.cumsum(counts) + counts)[which]
