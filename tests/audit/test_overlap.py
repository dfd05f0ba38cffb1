"""Overlap: what is planted is found wherever it stands, what is not is not, in every kind of file."""

import csv
import gzip
import json
import random
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_eval.audit import corpus as reading
from rlhf_eval.audit.corpus import documents
from rlhf_eval.audit.overlap import CANARIES_KEPT, EXACT_BOTH, EXACT_PROMPT, SHARE, Overlap, find_overlap
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import write_jsonl
from rlhf_eval.progress import SilentProgress
from rlhf_eval.records import Message, Prompt, user_prompt

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
    monkeypatch.setattr(reading, "BATCH_WORDS", 1)
    assert search(file).flagged == whole.flagged
    assert whole.flagged["13-gram"] == {item.id for item in items()}


def test_exact_matches_tell_signs_apart(tmp_path: Path) -> None:
    """Only sentence punctuation is ignored: another sum is another question."""
    item = Item("q", user_prompt("q", "What is 3-2?"), ("1", "5"), (1.0, 0.0))
    assert search(corpus(tmp_path / "a.jsonl", "What is 3+2?"), [item]).flagged[EXACT_PROMPT] == set()
    assert search(corpus(tmp_path / "b.jsonl", "what is 3 - 2"), [item]).flagged[EXACT_PROMPT] == {"q"}


def test_of_a_conversation_every_turn_of_the_user_must_be_there(tmp_path: Path) -> None:
    turns = (Message("user", "Tell me of Oslo."), Message("assistant", "A city."), Message("user", "Yes."))
    item = Item("m", Prompt("m", turns), ("It lies in Norway.", "It lies in Peru."), (1.0, 0.0))
    last = search(corpus(tmp_path / "a.jsonl", "yes"), [item])
    assert last.flagged[EXACT_PROMPT] == set()
    write_jsonl(tmp_path / "b.jsonl", [{"messages": ["tell me of oslo", "Oh?", "yes", "it lies in peru"]}])
    assert search(tmp_path / "b.jsonl", [item]).flagged[EXACT_BOTH] == {"m"}
    whole = search(corpus(tmp_path / "c.jsonl", "Tell me of Oslo. A city. Yes."), [item])
    assert (whole.flagged[EXACT_PROMPT], whole.flagged[EXACT_BOTH]) == ({"m"}, set())


def test_a_response_by_itself_is_no_exact_match(tmp_path: Path) -> None:
    found = search(
        corpus(tmp_path / "a.jsonl", "A", "B"),
        [Item("q", user_prompt("q", text(9, 1)), ("A", "B"), (1.0, 0.0))],
    )
    assert all(ids == set() for ids in found.flagged.values())
    assert (found.documents, found.passages, found.words) == (2, 2, 2)


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


def test_a_prompt_of_many_items_is_no_common_phrase(tmp_path: Path) -> None:
    """Best-of-N and style benchmarks ask one prompt in many items."""
    same = [
        Item(f"i{n}", user_prompt("p", text(40, 7)), (text(60, 1000 + n), text(60, 2000 + n)), (1.0, 0.0))
        for n in range(10)
    ]
    found = search(corpus(tmp_path / "c.jsonl", f"so {text(40, 7)}"), same)
    assert found.flagged["13-gram"] == found.flagged[SHARE] == {item.id for item in same}
    assert found.common == 0


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


def test_what_published_files_have_in_them(tmp_path: Path) -> None:
    """JSON Lines named .json; maps in Parquet, and Parquet packed; a byte order mark, long fields in CSV."""
    prompts = [item.prompt.instruction for item in items()]
    (tmp_path / "lines.json").write_text("\n".join(json.dumps({"t": one}) for one in prompts))
    assert len(search(tmp_path / "lines.json").flagged[EXACT_PROMPT]) == 40
    maps = pyarrow.array([[("role", "user"), ("content", prompts[3])]], pyarrow.map_(*[pyarrow.string()] * 2))
    pyarrow.parquet.write_table(pyarrow.table({"turn": maps}), tmp_path / "map.parquet")
    assert search(tmp_path / "map.parquet").flagged[EXACT_PROMPT] == {"i3"}
    packed = gzip.compress((tmp_path / "map.parquet").read_bytes())
    (tmp_path / "packed.parquet.gz").write_bytes(packed)
    assert search(tmp_path / "packed.parquet.gz").flagged[EXACT_PROMPT] == {"i3"}
    (tmp_path / "long.csv").write_text(f'\ufeffa,b\n"{"x " * 100_000}\nand","{prompts[4]}"\n')
    [match] = [match for match in search(tmp_path / "long.csv").matches if match.method == EXACT_PROMPT]
    assert (match.id, match.place) == ("i4", f"{tmp_path}/long.csv, row 1, b")
    [row] = documents(tmp_path / "long.csv")
    assert [name for name, _ in row.passages] == ["a", "b"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(st.lists(VALUES, max_size=6), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_json_is_read_piece_by_piece_as_if_whole(
    rows: list[object], chunk: int, indent: int | None, lines: bool
) -> None:
    whole = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows, indent=indent)
    if lines and rows and isinstance(rows[0], list):
        return  # a file that starts with a list is that list
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "JSON_CHUNK", chunk)
        (Path(folder) / "c.json").write_text(whole)
        read = [document.passages for document in documents(Path(folder) / "c.json")]
    assert read == [tuple(reading.texts(row)) for row in rows]


def rows_of_a_file(path: Path, count: int) -> None:
    rows = [{"text": text(60, n)} for n in range(count)]
    if ".parquet" in path.suffixes:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)
    elif path.suffix == ".csv":
        with path.open("w") as stream:
            writer = csv.DictWriter(stream, ["text"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        whole = json.dumps(rows) if path.suffix == ".json" else "\n".join(map(json.dumps, rows))
        path.write_bytes(gzip.compress(whole.encode()) if path.suffix == ".gz" else whole.encode())


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.json", "c.csv", "c.parquet"])
def test_a_file_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(reading, "JSON_CHUNK", 10_000)
    monkeypatch.setattr(reading, "PARQUET_ROWS", 50)
    rows_of_a_file(tmp_path / name, 4000)
    held = sum(len(one) for document in documents(tmp_path / name) for _, one in document.passages)
    tracemalloc.start()
    assert sum(1 for _ in documents(tmp_path / name)) == 4000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held > 2_000_000
    assert peak < held / 4


PACKED = gzip.compress(("\n".join(json.dumps({"t": text(90, n)}) for n in range(99))).encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b'{"text": "a"}\n{"text": \n', r"c\.jsonl, line 2 is malformed JSON"),
        ("c.jsonl", b'{"text": "a"}\n\n{"text": "\xff"}\n', r"c\.jsonl, line 3 is malformed JSON"),
        ("c.json", b'[{"text": "a"},\n{"text": b}]', r"c\.json, line 2 is malformed JSON"),
        ("c.json", b'[{"text": "a"},\n{"text": "b"}\n', r"c\.json, line 3 is malformed JSON"),
        ("c.csv", b"text\na\ncaf\xe9\n", r"c\.csv cannot be read beyond row 0"),
        ("c.jsonl.gz", PACKED[: len(PACKED) // 2], r"gz cannot be read beyond row \d+: .*ended before"),
        ("c.jsonl.gz", b'{"text": "a"}', "gz cannot be read beyond row 0: Not a gzipped file"),
        ("c.parquet", b"nothing of this kind", "parquet cannot be read beyond row 0"),
        ("c.txt", b"words", "no known file type"),
    ],
)
def test_data_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
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
    often = search(corpus(tmp_path / "d.jsonl", *["canary 1f3a"] * 500), canaries={"b": ["canary 1f3a"]})
    assert len(often.canaries) == CANARIES_KEPT


def test_progress_counts_bytes_of_all_files(tmp_path: Path) -> None:
    corpus(tmp_path / "a.jsonl", "x" * 900)
    corpus(tmp_path / "b.jsonl", "x" * 90)
    told = []

    class Told(SilentProgress):
        def advance(self, done: int, total: int, text: str = "") -> None:
            told.append(done / total)

    find_overlap({"b": items()}, [str(tmp_path)], Told())
    sizes = [(tmp_path / name).stat().st_size for name in ("a.jsonl", "b.jsonl")]
    assert told == [pytest.approx(sizes[0] / sum(sizes), abs=0.001), 1]


@pytest.mark.parametrize(("name", "start", "between"), [("c.jsonl", "", "\n"), ("c.json", "[", ",\n")])
def test_a_file_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, start: str, between: str
) -> None:
    """A broken line far behind is met only after the documents before it have been searched."""
    lines = [json.dumps({"text": text(100, 50000 + n)}) for n in range(50)]
    (tmp_path / name).write_text(start + between.join([*lines, "{broken"]))
    monkeypatch.setattr(reading, "BATCH_WORDS", 100)
    monkeypatch.setattr(reading, "JSON_CHUNK", 1000)
    seen = []

    class Seen(SilentProgress):
        def advance(self, done: int, total: int, text: str = "") -> None:
            seen.append(done)

    with pytest.raises(DataError, match="line 51"):
        find_overlap({"b": items()}, [str(tmp_path / name)], Seen())
    assert len(seen) > 20
    assert seen[0] < 200, "of a thousand"


def grams(words: list[str], n: int) -> Iterator[tuple[int, tuple[str, ...]]]:
    yield from ((place, tuple(words[place : place + n])) for place in range(len(words) - n + 1))


def shares_by_sets(words: list[str], seen: set[tuple[str, ...]]) -> float:
    covered = {place + step for place, gram in grams(words, 8) if gram in seen for step in range(8)}
    return len(covered) / len(words) if words else 0.0


WORD_LISTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=16)


@settings(max_examples=100)
@given(
    st.lists(st.tuples(WORD_LISTS, WORD_LISTS, WORD_LISTS), min_size=1, max_size=5),
    st.lists(st.lists(WORD_LISTS, max_size=3), min_size=1, max_size=4),
    st.integers(7, 13),
    st.sampled_from([1, 10, 400_000]),
)
def test_a_search_finds_what_sets_of_tuples_find(
    made: list[tuple[list[str], list[str], list[str]]], rows: list[list[list[str]]], n: int, batch: int
) -> None:
    """Five prompts at most, so that no phrase is common."""
    the_items = [
        Item(str(number), user_prompt(str(number), " ".join(prompt)), (" ".join(a), " ".join(b)), (1.0, 0.0))
        for number, (prompt, a, b) in enumerate(made)
    ]
    passages = [passage for row in rows for passage in row]
    seen = {size: {gram for passage in passages for _, gram in grams(passage, size)} for size in (8, n)}
    expected: dict[str, set[str]] = {EXACT_PROMPT: set(), EXACT_BOTH: set(), f"{n}-gram": set(), SHARE: set()}
    shares = {}
    for item, (prompt, *responses) in zip(the_items, made, strict=True):
        with_prompt = [row for row in rows if prompt and prompt in row]
        if with_prompt:
            expected[EXACT_PROMPT].add(item.id)
        if any(response and response in row for row in with_prompt for response in responses):
            expected[EXACT_BOTH].add(item.id)
        if any(gram in seen[n] for words in (prompt, *responses) for _, gram in grams(words, n)):
            expected[f"{n}-gram"].add(item.id)
        both = (shares_by_sets(prompt, seen[8]), max(shares_by_sets(one, seen[8]) for one in responses))
        if max(both) > 0:
            shares[item.id] = pytest.approx(both)
        if max(both) >= 0.5:
            expected[SHARE].add(item.id)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BATCH_WORDS", batch)
        write_jsonl(Path(folder) / "c.jsonl", [{"t": [" ".join(one) for one in row]} for row in rows])
        found = search(Path(folder) / "c.jsonl", the_items, n)
    assert found.flagged == expected
    assert found.shares == shares
    assert found.documents == len(rows)
    assert found.words == sum(map(len, passages))
    for match in found.matches:
        row, field = match.place.split(", row ")[1].split(", ")
        assert match.text in " ".join(rows[int(row) - 1][int(field[2:-1])])
