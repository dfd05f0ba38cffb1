"""Which items of benchmarks stand in training data: exact texts, shared n-grams, share of matched words.

The benchmarks' texts are indexed, the corpus is streamed past the index once, and every match is compared
word by word; memory depends on the benchmarks alone. Methods:

- *exact prompt*: the prompt's last turn equals a passage of the corpus, whatever case, spacing, punctuation;
- *exact prompt and response*: and one of the responses stands in the same document;
- *n-gram*: prompt or a response shares any n words in a row with a passage (n = 13 in Brown et al. 2020,
  arXiv:2005.14165, appendix C);
- *8-gram share*: at least half the words of the prompt, or of a response, lie in 8 words in a row that are
  matched (as a share of tokens in Touvron et al. 2023, arXiv:2307.09288, section A.6).

N-grams that stand in many items of a benchmark are its common phrases and no evidence; they are left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf_eval.audit.corpus import Document, corpus_files, documents
from rlhf_eval.audit.ngrams import NgramIndex, numbered, words_of
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.errors import ConfigError
from rlhf_eval.progress import Progress

EXACT_PROMPT, EXACT_BOTH, SHARE = "exact prompt", "exact prompt and response", "8-gram share"
SHARE_N = 8
SHARE_LIMIT = 0.5
LEAST_N, MOST_N = 7, 13
COMMON_SHARE, COMMON_LEAST = 0.01, 5
"""N-grams of more than this share of all items, and of more than this number, are common phrases."""
BATCH_WORDS = 400_000
MATCHES_KEPT = 3
"""Places kept for each text and method."""
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


@dataclass
class Overlap:
    """What a search found. Items are given by their ids.

    Attributes:
        flagged: method → ids; every method that was used is in it.
        shares: id → share of matched words of its prompt, and the highest of its responses'.
        matches: some places of each.
        common: number of n-grams left out as common phrases.
        canaries: places of the canaries that were looked for.
    """

    documents: int = 0
    words: int = 0
    flagged: dict[str, set[str]] = field(default_factory=dict)
    shares: dict[str, tuple[float, float]] = field(default_factory=dict)
    matches: list[Match] = field(default_factory=list)
    common: int = 0
    canaries: list[str] = field(default_factory=list)


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
    if not LEAST_N <= n <= MOST_N:
        raise ConfigError(f"{n} words make no n-gram here.", f"Choose {LEAST_N} to {MOST_N}.")
    searches = {name: _Search(items, n, (canaries or {}).get(name, ())) for name, items in sets.items()}
    files = [file for source in sources for file in corpus_files(source)]
    for number, file in enumerate(files):
        for batch, done in _batches(documents(file)):
            passages = [
                _Passage(place, f"{document.place}, {name}", text, words_of(text))
                for place, document in enumerate(batch)
                for name, text in document.passages
            ]
            for search in searches.values():
                search.read(len(batch), passages)
            progress.advance(int(1000 * (number + done)), 1000 * len(files))
    return {name: search.result() for name, search in searches.items()}


class _Search:
    """The index of a benchmark's texts, and what has been found so far."""

    def __init__(self, items: Sequence[Item], n: int, canaries: Sequence[str]) -> None:
        self.items = items
        self.canaries = canaries
        self.texts = [text for number, item in enumerate(items) for text in _texts(number, item)]
        counts = [1 + len(item.completions) for item in items]
        self.first_text = np.cumsum([0, *counts[:-1]]).tolist()
        self.numbers: dict[str, int] = {}
        tokens = numbered([text.words for text in self.texts], self.numbers, grow=True)
        sizes = np.array([len(text.words) + 1 for text in self.texts])
        self.starts = np.cumsum(sizes) - sizes
        self.text_of = np.repeat(np.arange(len(self.texts)), sizes)
        groups = np.array([text.item for text in self.texts])[self.text_of]
        most = max(COMMON_LEAST, int(COMMON_SHARE * len(items)))
        self.any, self.share = NgramIndex(tokens, n, groups, most), NgramIndex(tokens, SHARE_N, groups, most)
        self.covered = np.zeros(len(tokens), dtype=bool)
        self.exact: dict[str, list[int]] = {}
        for number, text in enumerate(self.texts):
            self.exact.setdefault(" ".join(text.words), []).append(number)
        for number, item in enumerate(items):
            instruction = " ".join(words_of(item.prompt.instruction))
            places = self.exact.setdefault(instruction, [])
            if self.first_text[number] not in places:
                places.append(self.first_text[number])
        self.exact.pop("", None)
        self.any_name = f"{n}-gram"
        self.kept: dict[tuple[int, str], int] = {}
        self.found = Overlap(
            flagged={name: set() for name in (EXACT_PROMPT, EXACT_BOTH, self.any_name, SHARE)},
            common=self.any.common + self.share.common,
        )

    def read(self, documents: int, passages: Sequence[_Passage]) -> None:
        """Search the passages of some documents."""
        self.found.documents += documents
        self.found.words += sum(len(passage.words) for passage in passages)
        for canary in self.canaries:
            self.found.canaries += [passage.place for passage in passages if canary in passage.text]
        self._exact(passages)
        tokens = numbered([passage.words for passage in passages], self.numbers, grow=False)
        ends = np.cumsum([len(passage.words) + 1 for passage in passages])
        for index, method in ((self.any, self.any_name), (self.share, SHARE)):
            hits = index.search(tokens)
            if index is self.share:
                for step in range(SHARE_N):
                    self.covered[hits.there + step] = True
            texts, first = np.unique(self.text_of[hits.there], return_index=True)
            for number, here in zip(texts.tolist(), hits.here[first].tolist(), strict=True):
                if index is self.any:
                    self.found.flagged[method].add(self._id(number))
                at = int(np.searchsorted(ends, here, side="right"))
                words = passages[at].words
                start = here - (int(ends[at]) - len(words) - 1)
                self._keep(number, method, passages[at].place, words[start : start + index.n])

    def result(self) -> Overlap:
        """Everything, when the corpus has been read."""
        shares = [
            float(self.covered[start : start + len(text.words)].mean()) if text.words else 0.0
            for start, text in zip(self.starts, self.texts, strict=True)
        ]
        for number, item in enumerate(self.items):
            places = self._texts_of(number)
            prompt = shares[places[0]]
            response = max(shares[place] for place in places[1:])
            if max(prompt, response) > 0:
                self.found.shares[item.id] = (prompt, response)
            if max(prompt, response) >= SHARE_LIMIT:
                self.found.flagged[SHARE].add(item.id)
        self.found.matches = [
            match
            for match in self.found.matches
            if match.method != SHARE or match.id in self.found.flagged[SHARE]
        ]
        return self.found

    def _exact(self, passages: Sequence[_Passage]) -> None:
        parts: dict[tuple[int, int], set[str]] = {}
        for passage in passages:
            for number in self.exact.get(" ".join(passage.words), ()):
                text = self.texts[number]
                parts.setdefault((passage.document, text.item), set()).add(text.part.split()[0])
                if text.part == "prompt":
                    self.found.flagged[EXACT_PROMPT].add(self._id(number))
                    self._keep(number, EXACT_PROMPT, passage.place, passage.words)
        both = (item for (_, item), found in parts.items() if len(found) == 2)
        self.found.flagged[EXACT_BOTH].update(self.items[item].id for item in both)

    def _keep(self, number: int, method: str, place: str, words: Sequence[str]) -> None:
        kept = self.kept.get((number, method), 0)
        if kept < MATCHES_KEPT:
            self.kept[number, method] = kept + 1
            text = " ".join(words)[:EXCERPT]
            self.found.matches.append(Match(self._id(number), method, self.texts[number].part, place, text))

    def _id(self, number: int) -> str:
        return self.items[self.texts[number].item].id

    def _texts_of(self, item: int) -> range:
        """Numbers of an item's texts: its prompt, then its responses."""
        first = self.first_text[item]
        return range(first, first + 1 + len(self.items[item].completions))


def _texts(number: int, item: Item) -> Iterator[Text]:
    prompt = [word for message in item.prompt.messages for word in words_of(message.content)]
    yield Text(number, "prompt", prompt)
    for place, completion in enumerate(item.completions, 1):
        yield Text(number, f"response {place}", words_of(completion))


def _batches(stream: Iterable[Document]) -> Iterator[tuple[list[Document], float]]:
    """Documents by about `BATCH_WORDS` words (counted as six characters each), with the share read."""
    batch: list[Document] = []
    size = 0
    done = 0.0
    for document in stream:
        batch.append(document)
        size += sum(len(text) for _, text in document.passages) // 6
        done = document.done
        if size >= BATCH_WORDS:
            yield batch, done
            batch, size = [], 0
    if batch:
        yield batch, done
