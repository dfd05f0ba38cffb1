"""What the readers of all published formats share: complete rows, unique ids, a hash of the content."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_eval.benchmarks.items import Item, Version
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import sha256_json
from rlhf_eval.records import Conversation, as_json, as_messages
from rlhf_eval.sources import HUB, read_rows


def rows_of(source: str, fields: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a source with its place for messages (`'file', row 3`).

    Raises:
        DataError: a row lacks one of `fields`, or the source cannot be read.
    """
    for number, row in enumerate(read_rows(source), 1):
        where = f"'{source}', row {number}"
        if missing := [field for field in fields if row.get(field) is None]:
            raise DataError(
                f"{where} lacks {', '.join(missing)}.",
                "Complete the row, or check that this is the benchmark's published format.",
            )
        yield where, row


def unique(items: Iterable[tuple[str, Item]]) -> list[Item]:
    """The items, each given with its place.

    Raises:
        DataError: two have the same id, one has fewer than two completions, no prompt or something that is no
            text, or there are none.
    """
    found: dict[str, Item] = {}
    for where, item in items:
        if item.id in found:
            raise DataError(f"{where} repeats the id '{item.id}'.", "Make ids unique.")
        if len(item.completions) < 2 or not item.prompt.messages:
            raise DataError(
                f"{where} ('{item.id}') has no prompt with two completions or more.", "Mend the row."
            )
        texts = [*(message.content for message in item.prompt.messages), *item.completions, item.subset]
        if not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{where} ('{item.id}') has a prompt, an answer or a subset that is no text.",
                "Give the prompt as text or turns, and every answer as text.",
            )
        found[item.id] = item
    if not found:
        raise DataError("The benchmark's data hold no rows.", "Check the files.")
    return list(found.values())


def turns(content: Any, where: str) -> Conversation:
    """A prompt given as text, or as a list of `{"role", "content"}`.

    Raises:
        DataError: it is neither.
    """
    try:
        return as_messages(content)
    except (TypeError, KeyError):
        raise DataError(
            f"{where}: the prompt is neither text nor a list of turns.",
            'Give text, or turns with "role" and "content".',
        ) from None


def content_hash(items: Sequence[Item]) -> str:
    """SHA-256 over ids, texts and labels, whatever the file type and the order of rows."""
    return sha256_json(
        sorted(
            [item.id, as_json(item.prompt.messages), list(item.completions), list(item.labels)]
            for item in items
        )
    )


def local_copy(config: BenchmarkConfig, path: Path) -> tuple[BenchmarkConfig, list[str]]:
    """The benchmark read from a local copy: one of its files, or a folder laid out as on the hub.

    Of a benchmark in several repositories the folder holds one folder for each, by the repository's name.

    Returns:
        Its configuration, and a note for every part that is not there.

    Raises:
        DataError: nothing of the benchmark is there, or a file of another name is given for one with several.
    """
    files = {part: _on_hub(source) for part, source in config.data.items()}
    found = {}
    for part, (repository, file) in files.items():
        places = _places(path, repository, file, [other for _, other in files.values()])
        if place := next((place for place in places if place.exists()), None):
            found[part] = str(place)
    if not found:
        wanted = ", ".join(str(Path(repository, file)) for repository, file in files.values())
        raise DataError(
            f"{path} is nothing of benchmark '{config.name}'.",
            f"Give one of these files, or a folder of them: {wanted}.",
        )
    absent = [f"'{part}' ({file})" for part, (_, file) in files.items() if part not in found]
    return replace(config, data=found), [f"{path} has no part {part}" for part in absent]


def _on_hub(source: str) -> tuple[str, Path]:
    """Name of the repository, empty for one that is not on the hub, and the path in it."""
    if not source.startswith(HUB):
        return "", Path(source)
    _, repository, file = source.removeprefix(HUB).split("/", 2)
    return repository.partition("@")[0], Path(file)


def _places(path: Path, repository: str, file: Path, files: Sequence[Path]) -> list[Path]:
    """Where a file of the benchmark may be in a local copy, the likeliest first."""
    own_name = [other.name for other in files].count(file.name) == 1
    if path.is_file():
        return [path] if len(files) == 1 or (own_name and path.name == file.name) else []
    flat = [path / file, path / file.name] if own_name else []
    return [path / repository / file, *flat, *([path] if len(files) == 1 else [])]


def unpinned_note(config: BenchmarkConfig) -> str | None:
    """That the hub may serve other data tomorrow; None if every source names a commit."""
    loose = [s for s in config.data.values() if s.startswith(HUB) and not re.search(r"@[0-9a-f]{40}/", s)]
    return f"not pinned to a commit: {', '.join(loose)}" if loose else None


def version_warning(items: Sequence[Item], versions: Sequence[Version]) -> str | None:
    """Why these items are none of the known versions; None if they are one, or if none is known."""
    if not versions:
        return None
    rows: dict[str, int] = {}
    for item in items:
        rows[item.subset] = rows.get(item.subset, 0) + 1
    same_size = [version for version in versions if dict(version.rows) == rows]
    if not same_size:
        known = "; ".join(f"{version.name}: {sum(version.rows.values())}" for version in versions)
        difference = _difference(rows, versions)
        return f"these {len(items)} items are no published version ({known}){difference}"
    if any(version.sha256 in (None, content_hash(items)) for version in same_size):
        return None
    return f"as many items as {same_size[0].name}, but their texts, labels or ids are others"


def _difference(rows: Mapping[str, int], versions: Sequence[Version]) -> str:
    """The first subset in which they differ from the version nearest in size."""
    nearest = min(versions, key=lambda v: abs(sum(v.rows.values()) - sum(rows.values())))
    for subset in [*nearest.rows, *rows]:
        if nearest.rows.get(subset, 0) != rows.get(subset, 0):
            return f"; '{subset}' has {rows.get(subset, 0)} and not {nearest.rows.get(subset, 0)}"
    return ""
