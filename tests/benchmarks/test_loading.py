"""Local copies of published data: one file, a folder as on the hub, a flat folder, several repositories."""

from pathlib import Path

import pytest

from rlhf_eval.benchmarks.kinds import KINDS
from rlhf_eval.benchmarks.loading import local_copy
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.errors import DataError

ONE = BenchmarkConfig("one", {"all": "hf://datasets/org/name@abc/data/test.parquet"})
TWO = BenchmarkConfig(
    "two", {"a": "hf://datasets/org/name@abc/data/a.parquet", "b": "hf://datasets/org/other@main/b.json"}
)
SAME_NAME = BenchmarkConfig(
    "same", {part: f"hf://datasets/org/{part}@main/data/train.parquet" for part in ("math", "code")}
)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder; `touch` makes files in it."""
    return tmp_path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(config: BenchmarkConfig, path: Path) -> dict[str, str]:
    return {
        part: str(Path(place).relative_to(path)) for part, place in local_copy(config, path)[0].data.items()
    }


def test_the_only_file_may_have_any_name(there: Path) -> None:
    touch(there, "mine.jsonl")
    assert local_copy(ONE, there / "mine.jsonl")[0].data == {"all": str(there / "mine.jsonl")}


def test_a_folder_as_on_the_hub_or_flat(there: Path) -> None:
    touch(
        there, "hub/data/a.parquet", "hub/b.json", "flat/a.parquet", "flat/b.json", "each/name/data/a.parquet"
    )
    touch(there, "each/other/b.json")
    assert found(TWO, there / "hub") == {"a": "data/a.parquet", "b": "b.json"}
    assert found(TWO, there / "flat") == {"a": "a.parquet", "b": "b.json"}
    assert found(TWO, there / "each") == {"a": "name/data/a.parquet", "b": "other/b.json"}


def test_a_part_that_is_not_there_is_noted(there: Path) -> None:
    touch(there, "b.json")
    for path in (there, there / "b.json"):
        config, [note] = local_copy(TWO, path)
        assert config.data == {"b": str(there / "b.json")}
        assert "has no part 'a' (data/a.parquet)" in note


def test_files_of_one_name_are_told_apart_by_their_repository(there: Path) -> None:
    touch(there, "math/data/train.parquet", "code/data/train.parquet", "data/train.parquet")
    assert found(SAME_NAME, there) == {"math": "math/data/train.parquet", "code": "code/data/train.parquet"}
    with pytest.raises(DataError, match="is nothing of benchmark 'same'"):
        local_copy(SAME_NAME, there / "data" / "train.parquet")


def test_a_folder_that_only_its_reader_understands(there: Path) -> None:
    assert local_copy(ONE, there)[0].data == {"all": str(there)}


def test_nothing_there(there: Path) -> None:
    with pytest.raises(DataError, match="is nothing of benchmark") as refused:
        local_copy(TWO, there / "nowhere")
    assert "name/data/a.parquet, other/b.json" in refused.value.cure


@pytest.mark.parametrize("kind", KINDS.names())
def test_every_kind_stands_for_a_benchmark(kind: str) -> None:
    assert callable(KINDS.get(kind).load)
    assert callable(KINDS.get(kind).summarise)
