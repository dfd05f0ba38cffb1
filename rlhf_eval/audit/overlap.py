"""Which items of benchmarks stand in training data: exact texts, shared n-grams, share of matched words.

The benchmarks' texts are indexed, the corpus is streamed past the index once, and every match is compared
word by word; memory depends on the benchmarks alone. Methods:

- *exact prompt*: a document has the prompt as a passage, or each of its user turns as one, whatever case,
  spacing and sentence punctuation (`ngrams.exact_form`);
- *exact prompt and response*: and one of the responses as well;
- *n-gram*: prompt or a response shares any n words in a row with a passage (n = 13 in Brown et al. 2020,
  arXiv:2005.14165, appendix C);
- *8-gram share*: at least half the words of the prompt, or of a response, lie in 8 words in a row that are
  matched (8-grams as in Chowdhery et al. 2022, arXiv:2204.02311, section 8; the share of an item's tokens as
  in Touvron et al. 2023, arXiv:2307.09288, section A.6).

A text of fewer than n words has no n-gram and is compared as a whole only. A response by itself is never an
exact match: "Yes." stands everywhere, and a long one is told by its share.

N-grams that stand under many prompts of a benchmark are common phrases and no evidence; they are left out.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np

from rlhf_eval.audit.corpus import batches, corpus_files, documents
from rlhf_eval.audit.ngrams import NgramIndex, exact_form, numbered, words_of
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.statistics import prompts_of
from rlhf_eval.errors import ConfigError
from rlhf_eval.progress import Progress

PROMPT = "prompt"
EXACT_PROMPT, EXACT_BOTH, SHARE = "exact prompt", "exact prompt and response", "8-gram share"
SHARE_N = 8
SHARE_LIMIT = 0.5
LEAST_N, MOST_N = 7, 13
COMMON_SHARE, COMMON_LEAST = 0.01, 5
"""N-grams under more than this share of all prompts, and under more than this number, are common phrases."""
MATCHES_KEPT = 3
"""Places kept for each text and method."""
CANARIES_KEPT = 100
"""Places kept of canaries: a corpus may hold one in every row."""
EXCERPT = 200


@dataclass(frozen=True, slots=True)
class Text:
    """One text of an item.

    Attributes:
        part: "prompt" or "response 1", "response 2", …
    """

    item: int
    part: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class _Passage:
    """One text of a document of the batch at hand."""

    document: int
    place: str
    text: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class Match:
    """A passage of the corpus that an item was found in.

    Attributes:
        method: see the module.
        part: the text of the item.
        place: "file, row N, field".
        text: the words in common, at most `EXCERPT` characters.
    """

    id: str
    method: str
    part: str
    place: str
    text: str


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a search found. Items are given by their ids.

    Attributes:
        documents, passages, words: how many were read.
        flagged: method → ids; every method that was used is in it.
        shares: id → share of matched words of its prompt, and the highest of its responses'.
        matches: some places of each.
        common: number of n-grams left out as common phrases.
        canaries: places of the canaries that were looked for, at most `CANARIES_KEPT`.
    """

    documents: int
    passages: int
    words: int
    flagged: dict[str, set[str]]
    shares: dict[str, tuple[float, float]]
    matches: list[Match]
    common: int
    canaries: list[str]


def find_overlap(
    sets: Mapping[str, Sequence[Item]],
    sources: Sequence[str],
    progress: Progress,
    n: int = MOST_N,
    canaries: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Overlap]:
    """Search training data for the items of benchmarks; the data are read once for all.

    Args:
        sets: items by benchmark.
        sources: files or folders (JSON Lines, JSON, CSV, Parquet, each also .gz) or files on the hub.
        n: words in a row of the method *n-gram*, 7 to 13.
        canaries: strings that must not be in the data, by benchmark.

    Raises:
        ConfigError: `n` is out of range.
        DataError: a source is absent or malformed.
    """
    check_words(n)
    numbers: dict[str, int] = {}
    searches = {
        name: _Search(items, n, numbers, (canaries or {}).get(name, ())) for name, items in sets.items()
    }
    files = [file for source in sources for file in corpus_files(source)]
    sizes = [max(file.stat().st_size, 1) for file in files]
    for number, file in enumerate(files):
        for batch, done in batches(documents(file)):
            passages = [
                _Passage(place, f"{document.place}, {name}", text, words_of(text))
                for place, document in enumerate(batch)
                for name, text in document.passages
            ]
            tokens = numbered([passage.words for passage in passages], numbers, grow=False)
            for search in searches.values():
                search.read(len(batch), passages, tokens)
            read = sum(sizes[:number]) + done * sizes[number]
            progress.advance(int(1000 * read / sum(sizes)), 1000)
    return {name: search.result() for name, search in searches.items()}


@dataclass(frozen=True, slots=True)
class _Exact:
    """What the exact methods compare of an item, as `exact_form` gives it.

    Attributes:
        whole: all turns of the prompt.
        turns: those of the user.
        keys: words of which a document has at least one, if it has the prompt.
    """

    whole: str
    turns: tuple[str, ...]
    responses: frozenset[str]
    keys: frozenset[str]

    @classmethod
    def of(cls, item: Item) -> "_Exact":
        everything = " ".join(message.content for message in item.prompt.messages)
        asked = [message.content for message in item.prompt.messages if message.role == "user"]
        # The longest turn, since short ones ("Go on.") are in many items and documents.
        keys = {" ".join(words_of(text)) for text in (everything, max(asked, key=len, default=""))}
        turns = tuple(turn for turn in map(exact_form, asked) if turn)
        responses = frozenset(map(exact_form, item.completions)) - {""}
        return cls(exact_form(everything), turns, responses, frozenset(keys - {""}))

    def prompt_in(self, found: Mapping[str, _Passage]) -> _Passage | None:
        """A passage of the prompt, if a document with these passages has it all."""
        if self.whole in found:
            return found[self.whole]
        has_all = bool(self.turns) and all(turn in found for turn in self.turns)
        return found[max(self.turns, key=len)] if has_all else None


def check_words(n: int) -> None:
    """Raises ConfigError unless `n` is a number of words that the method *n-gram* takes."""
    if not LEAST_N <= n <= MOST_N:
        raise ConfigError(f"{n} words make no n-gram here.", f"Choose {LEAST_N} to {MOST_N}.")


class _Search:
    """The index of a benchmark's texts, and what has been found so far."""

    def __init__(
        self, items: Sequence[Item], n: int, numbers: dict[str, int], canaries: Sequence[str]
    ) -> None:
        self.items = items
        self.canaries = canaries
        self.texts = [text for number, item in enumerate(items) for text in _texts(number, item)]
        tokens = numbered([text.words for text in self.texts], numbers, grow=True)
        sizes = np.array([len(text.words) + 1 for text in self.texts])
        self.starts = np.cumsum(sizes) - sizes
        self.text_of = np.repeat(np.arange(len(self.texts)), sizes)
        # By prompt: what stands in all items of one prompt is that prompt, and no common phrase.
        prompts: dict[Hashable, int] = {}
        prompt_of = [prompts.setdefault(prompt, len(prompts)) for prompt in prompts_of(items)]
        groups = np.array([prompt_of[text.item] for text in self.texts])[self.text_of]
        most = max(COMMON_LEAST, int(COMMON_SHARE * len(prompts)))
        self.any, self.share = NgramIndex(tokens, n, groups, most), NgramIndex(tokens, SHARE_N, groups, most)
        self.shared = np.zeros(len(self.share.samples), dtype=bool)
        self.exact = [_Exact.of(item) for item in items]
        self.by_key: dict[str, list[int]] = {}
        for number, exact in enumerate(self.exact):
            for key in exact.keys:
                self.by_key.setdefault(key, []).append(number)
        self.any_name = f"{n}-gram"
        self.documents = self.passages = self.words = 0
        methods = (EXACT_PROMPT, EXACT_BOTH, self.any_name, SHARE)
        self.flagged: dict[str, set[str]] = {method: set() for method in methods}
        self.kept: dict[tuple[str, str, str], list[Match]] = {}
        self.canary_places: list[str] = []

    def read(self, documents: int, passages: Sequence[_Passage], tokens: np.ndarray) -> None:
        """Search the passages of some documents; `tokens` are their words as `numbered` gives them."""
        self.documents += documents
        self.passages += len(passages)
        self.words += len(tokens) - len(passages)
        for canary in self.canaries:
            places = (passage.place for passage in passages if canary in passage.text)
            self.canary_places += islice(places, CANARIES_KEPT - len(self.canary_places))
        for _, group in groupby(passages, key=lambda passage: passage.document):
            self._exact(list(group))
        ends = np.cumsum([len(passage.words) + 1 for passage in passages])
        for index, method in ((self.any, self.any_name), (self.share, SHARE)):
            hits = index.search(tokens)
            grams, first = np.unique(hits.grams, return_index=True)
            if index is self.share:
                self.shared[grams] = True
            places, which = index.places_of(grams)
            texts, at = np.unique(self.text_of[places], return_index=True)
            for number, here in zip(texts.tolist(), hits.here[first[which[at]]].tolist(), strict=True):
                text = self.texts[number]
                if index is self.any:
                    self.flagged[method].add(self.items[text.item].id)
                at_passage = int(np.searchsorted(ends, here, side="right"))
                passage = passages[at_passage]
                start = here - (int(ends[at_passage]) - len(passage.words) - 1)
                words = passage.words[start : start + index.n]
                self._keep(text.item, method, text.part, passage.place, words)

    def result(self) -> Overlap:
        """Everything, when the corpus has been read."""
        covered = np.zeros(len(self.text_of), dtype=bool)
        places, _ = self.share.places_of(np.flatnonzero(self.shared))
        for step in range(SHARE_N):
            covered[places + step] = True
        shares: dict[str, tuple[float, float]] = {}
        for text, start in zip(self.texts, self.starts.tolist(), strict=True):
            share = float(covered[start : start + len(text.words)].mean()) if text.words else 0.0
            id = self.items[text.item].id
            prompt, response = shares.get(id, (0.0, 0.0))
            shares[id] = (share, 0.0) if text.part == PROMPT else (prompt, max(response, share))
        self.flagged[SHARE] = {id for id, both in shares.items() if max(both) >= SHARE_LIMIT}
        matches = [match for kept in self.kept.values() for match in kept]
        return Overlap(
            documents=self.documents,
            passages=self.passages,
            words=self.words,
            flagged=self.flagged,
            shares={id: both for id, both in shares.items() if max(both) > 0},
            matches=[match for match in matches if match.id in self.flagged[match.method]],
            common=self.any.common + self.share.common,
            canaries=self.canary_places,
        )

    def _exact(self, document: Sequence[_Passage]) -> None:
        keys = [" ".join(passage.words) for passage in document]
        likely = {number for key in keys for number in self.by_key.get(key, ())}
        if not likely:
            return
        found = {exact_form(passage.text): passage for passage in document}
        for number in sorted(likely):
            exact = self.exact[number]
            if passage := exact.prompt_in(found):
                self.flagged[EXACT_PROMPT].add(self.items[number].id)
                self._keep(number, EXACT_PROMPT, PROMPT, passage.place, passage.words)
                if exact.responses & found.keys():
                    self.flagged[EXACT_BOTH].add(self.items[number].id)

    def _keep(self, item: int, method: str, part: str, place: str, words: Sequence[str]) -> None:
        id = self.items[item].id
        kept = self.kept.setdefault((id, method, part), [])
        if len(kept) < MATCHES_KEPT:
            kept.append(Match(id, method, part, place, " ".join(words)[:EXCERPT]))


def _texts(number: int, item: Item) -> Iterator[Text]:
    prompt = [word for message in item.prompt.messages for word in words_of(message.content)]
    yield Text(number, PROMPT, prompt)
    for place, completion in enumerate(item.completions, 1):
        yield Text(number, f"response {place}", words_of(completion))
