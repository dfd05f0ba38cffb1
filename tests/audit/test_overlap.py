"""Overlap: what is planted is found wherever it stands, what is not is not, in every kind of file."""

import gzip
import json
import random
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.audit import overlap
from rlhf_eval.audit.ngrams import NgramIndex, numbered, words_of
from rlhf_eval.audit.overlap import EXACT_BOTH, EXACT_PROMPT, SHARE, Overlap, find_overlap
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.progress import SilentProgress
from rlhf_eval.records import user_prompt

RANDOM = random.Random(0)
WORDS = [f"word{n}" for n in range(5000)]


def text(size: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=size))


def items(count: int = 40) -> list[Item]:
    return [
        Item(
            f"i{n}",
            user_prompt(f"i{n}", text(40, n)),
            (text(60, 1000 + n), text(60, 2000 + n)),
            (1.0, 0.0),
        )
        for n in range(count)
    ]


def search(source: Path, found_items: list[Item] | None = None, n: int = 13, **more: object) -> Overlap:
    sets = {"b": items() if found_items is None else found_items}
    return find_overlap(sets, [str(source)], SilentProgress(), n, **more)["b"]  # type: ignore[arg-type]


def corpus(path: Path, *texts: str) -> Path:
    write_jsonl(path, [{"text": one} for one in texts])
    return path


@pytest.mark.parametrize("where", ["start", "middle", "end"])
@pytest.mark.parametrize("part", ["prompt", "response 2"])
def test_thirteen_words_are_found_anywhere_and_twelve_are_not(tmp_path: Path, where: str, part: str) -> None:
    item = items()[7]
    source = (item.prompt.instruction if part == "prompt" else item.completions[1]).split()
    for size, expected in ((13, {"i7"}), (12, set())):
        planted = source[5 : 5 + size]
        filling = text(300, 99).split()
        at = {"start": 0, "middle": 150, "end": 300}[where]
        file = corpus(tmp_path / "c.jsonl", text(50, 90005), " ".join(filling[:at] + planted + filling[at:]))
        found = search(file)
        assert found.flagged["13-gram"] == expected
    found = search(corpus(tmp_path / "c.jsonl", "x", f"{text(9, 3)} {' '.join(source[5:18])}"))
    [match] = [match for match in found.matches if match.method == "13-gram"]
    assert (match.id, match.part, match.place) == ("i7", part, f"{tmp_path}/c.jsonl, row 2, text")
    assert match.text == " ".join(source[5:18])[:200]


def test_words_do_not_join_over_the_border_of_two_passages(tmp_path: Path) -> None:
    words = items()[0].prompt.instruction.split()
    write_jsonl(tmp_path / "c.jsonl", [{"a": " ".join(words[:12]), "b": " ".join(words[12:24])}])
    assert search(tmp_path / "c.jsonl").flagged["13-gram"] == set()


def test_borders_of_batches_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = [" ".join(item.completions[0].split()[:13]) for item in items()]
    file = corpus(tmp_path / "c.jsonl", *(f"{text(30, 50000 + n)} {one}" for n, one in enumerate(planted)))
    whole = search(file)
    monkeypatch.setattr(overlap, "BATCH_WORDS", 1)
    assert search(file).flagged == whole.flagged
    assert whole.flagged["13-gram"] == {item.id for item in items()}


def test_exact_matches_ignore_case_spacing_and_punctuation(tmp_path: Path) -> None:
    item = Item("q", user_prompt("q", "What is  2+2?"), ("It is 4.", "It is 5."), (1.0, 0.0))
    prompt_only = search(corpus(tmp_path / "a.jsonl", "what is 2 + 2"), [item])
    assert (prompt_only.flagged[EXACT_PROMPT], prompt_only.flagged[EXACT_BOTH]) == ({"q"}, set())
    write_jsonl(tmp_path / "b.jsonl", [{"prompt": "WHAT IS 2+2", "chosen": [{"content": "it is 4"}]}])
    assert search(tmp_path / "b.jsonl", [item]).flagged[EXACT_BOTH] == {"q"}
    apart = search(corpus(tmp_path / "c.jsonl", "What is 2+2?", "It is 4."), [item])
    assert apart.flagged[EXACT_BOTH] == set()  # in two documents
    longer = search(corpus(tmp_path / "d.jsonl", "So: what is 2+2?"), [item])
    assert longer.flagged[EXACT_PROMPT] == set()


def test_the_share_of_matched_words(tmp_path: Path) -> None:
    words = items()[3].completions[0].split()
    file = corpus(tmp_path / "c.jsonl", " ".join(words[:20]), " ".join(words[18:28]), " ".join(words[40:47]))
    found = search(file)
    assert found.shares["i3"] == (0, pytest.approx(28 / 60))  # the last seven words are no 8-gram
    assert found.flagged[SHARE] == set()
    assert search(corpus(tmp_path / "d.jsonl", " ".join(words[10:40]))).flagged[SHARE] == {"i3"}


def test_common_phrases_of_a_benchmark_flag_nobody(tmp_path: Path) -> None:
    phrase = "once you have your answer please duplicate that letter five times in a single string"
    common = [
        Item(f"i{n}", user_prompt(f"i{n}", f"{text(20, n)} {phrase}"), ("a", "b"), (1.0, 0.0))
        for n in range(40)
    ]
    found = search(corpus(tmp_path / "c.jsonl", f"{text(20, 77)} {phrase}"), common)
    assert found.flagged["13-gram"] == found.flagged[SHARE] == set()
    assert found.common == 3 + 8  # of fifteen words: three 13-grams, eight 8-grams


def test_every_kind_of_file_and_folders(tmp_path: Path) -> None:
    planted = items()[2].prompt.instruction
    rows = [{"n": 1, "messages": [{"role": "user", "content": planted}]}]
    write_jsonl(tmp_path / "a" / "one.jsonl", rows)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.json").write_text(json.dumps(rows))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "three.jsonl.gz").write_bytes(gzip.compress(json.dumps(rows[0]).encode()))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "four.csv").write_text(f'id,text\n1,"{planted}"\n')
    (tmp_path / "e").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "e" / "five.parquet")
    for folder in "abcde":
        found = search(tmp_path / folder)
        assert found.flagged[EXACT_PROMPT] == {"i2"}, folder
        assert found.documents == 1
    assert search(tmp_path).documents == 5
    place = next(match.place for match in search(tmp_path / "e").matches)
    assert place == f"{tmp_path}/e/five.parquet, row 1, messages[0].content"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", '{"text": "a"}\n{"text": \n', r"c\.jsonl, line 2 is malformed JSON"),
        ("c.txt", "words", "no known file type"),
    ],
)
def test_data_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        search(tmp_path / name)


def test_what_is_asked_for_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="7 to 13"):
        search(tmp_path, n=14)
    with pytest.raises(DataError, match=r"There is no .* file in"):
        search(tmp_path)
    with pytest.raises(DataError, match="No file 'nowhere"):
        find_overlap({"b": items()}, ["nowhere.jsonl"], SilentProgress())


def test_a_canary_is_found(tmp_path: Path) -> None:
    file = corpus(tmp_path / "c.jsonl", "nothing", "see canary 1f3a here")
    found = search(file, canaries={"b": ["canary 1f3a"]})
    assert found.canaries == [f"{file}, row 2, text"]


def test_a_file_is_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken line far behind is met only after the documents before it have been searched."""
    lines = [json.dumps({"text": text(100, 50000 + n)}) for n in range(50)]
    (tmp_path / "c.jsonl").write_text("\n".join([*lines, "{broken"]))
    monkeypatch.setattr(overlap, "BATCH_WORDS", 100)
    seen = []

    class Seen(SilentProgress):
        def advance(self, done: int, total: int, text: str = "") -> None:
            seen.append(done)

    with pytest.raises(DataError, match="line 51"):
        find_overlap({"b": items()}, [str(tmp_path / "c.jsonl")], Seen())
    assert len(seen) > 20


def naive(texts: list[list[str]], passage: list[str], n: int) -> set[int]:
    """Numbers of the texts that share n words in a row with a passage: sets of tuples, nothing else."""
    grams = {tuple(passage[i : i + n]) for i in range(len(passage) - n + 1)}
    return {
        number
        for number, words in enumerate(texts)
        if any(tuple(words[i : i + n]) in grams for i in range(len(words) - n + 1))
    }


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=6),
    st.lists(st.sampled_from("abcde"), max_size=40),
    st.integers(2, 5),
)
def test_the_index_finds_what_sets_of_tuples_find(texts: list[list[str]], passage: list[str], n: int) -> None:
    numbers: dict[str, int] = {}
    tokens = numbered(texts, numbers, grow=True)
    starts = [0]
    for words in texts:
        starts.append(starts[-1] + len(words) + 1)
    text_of = [number for number, words in enumerate(texts) for _ in range(len(words) + 1)]
    import numpy as np

    index = NgramIndex(tokens, n, np.array(text_of), most_groups=99)
    hits = index.search(numbered([passage], numbers, grow=False))
    assert {text_of[there] for there in hits.there} == naive(texts, passage, n)
    for here, there in zip(hits.here, hits.there, strict=True):
        number = text_of[there]
        start = int(there) - starts[number]
        assert passage[here : here + n] == texts[number][start : start + n]


def test_hashes_that_collide_make_no_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from rlhf_eval.audit import ngrams

    def worst(tokens: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        size = max(len(tokens) - n + 1, 0)
        whole = np.array([(tokens[i : i + n] > 0).all() for i in range(size)], dtype=bool)
        return np.full(size, 7, dtype=np.uint64), whole

    monkeypatch.setattr(ngrams, "_hashes", worst)
    numbers: dict[str, int] = {}
    tokens = numbered([["a", "b", "c"], ["c", "b", "a"]], numbers, grow=True)
    index = NgramIndex(tokens, 2, np.array([0] * 4 + [1] * 4), most_groups=99)
    hits = index.search(numbered([["x", "b", "c", "b"]], numbers, grow=False))
    assert sorted(zip(hits.here.tolist(), hits.there.tolist(), strict=True)) == [(1, 1), (2, 4)]


def test_words_of_several_scripts() -> None:
    assert words_of("Don't STOP, naïve Ünïcode_1!") == ["don", "t", "stop", "naïve", "ünïcode_1"]
    assert words_of("你好 world 世界") == ["你", "好", "world", "世", "界"]
    assert words_of(" … ?! ") == []
