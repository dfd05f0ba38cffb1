"""Sets that nobody else has seen: what keeps them so.

Beside a private file stands `<file>.salt`, a secret of this machine. Whatever is stored about the set outside
its folder is an id, a number or a hash with that salt, from which no text can be guessed. A canary in every
row (`seal`) tells whether the file itself has got into something else.
"""

import gzip
import hashlib
import hmac
import html
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.config.inputs import nested
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import read_jsonl, sha256_json, write_jsonl
from rlhf_eval.sources import read_rows

CANARY = "rlhf_eval private data, do not train on it, canary "
SUFFIX = ".salt"
BLOCK = 1 << 22
LEAST_CHARACTERS = 32


def refuse_remote(benchmark: BenchmarkConfig, reward_model: RewardModelConfig) -> None:
    """Raises ConfigError if a private set would leave this machine and its configuration forbids it."""
    if not benchmark.private or benchmark.may_be_sent_to_remote_models:
        return
    for field, part in nested("reward_model", reward_model):
        if part.endpoint is not None:
            raise ConfigError(
                f"Benchmark '{benchmark.name}' is private, and {field} ('{part.name}') sends what it scores "
                f"to {part.endpoint.base_url or 'an address'}.",
                f"Choose a reward model that runs here, or set "
                f"benchmarks.{benchmark.name}.may_be_sent_to_remote_models=true.",
            )


def salted_key(benchmark: BenchmarkConfig) -> Callable[[Any], str]:
    """A hash of texts of a private set: HMAC-SHA256 with the salts of its files."""
    salt = b"".join(_salt(Path(source).expanduser()) for source in benchmark.data.values())

    def key(value: Any) -> str:
        return hmac.new(salt, sha256_json(value).encode(), hashlib.sha256).hexdigest()

    return key


def seal(file: Path) -> str:
    """Put a canary into every row of a JSON Lines file and make its salt; the canary is returned.

    A file that has one keeps it.

    Raises:
        DataError: the file is absent or malformed.
    """
    rows = _sealable(file)
    canary = next((row["canary"] for row in rows if "canary" in row), f"{CANARY}{secrets.token_hex(16)}")
    if any(row.get("canary") != canary for row in rows):
        before = os.umask(0o077)  # the file that takes its place is nobody else's from its first byte on
        try:
            write_jsonl(file, ({"canary": canary} | row for row in rows))
        finally:
            os.umask(before)
    _salt(file)
    return canary


def canaries(benchmark: BenchmarkConfig) -> list[str]:
    """The canaries in a private set's files."""
    rows = [row for source in benchmark.data.values() for row in read_rows(source)]
    return sorted({row["canary"] for row in rows if row.get("canary")})


def leaks(file: Path, places: Sequence[Path]) -> Iterator[Path]:
    """Files below `places` that hold the file's canary, or the text of one of its prompts or answers.

    Texts are looked for as they are, as JSON writes them and as HTML does; `.gz` and Parquet are unpacked.

    Raises:
        DataError: the file has no canary, or a place does not exist.
    """
    rows = _sealable(file)
    canary = next((row["canary"] for row in rows if "canary" in row), None)
    if canary is None:
        raise DataError(f"{file} has no canary.", f"Run `rlhf-eval private seal {file}` first.")
    if absent := [place for place in places if not place.exists()]:
        raise DataError(f"{absent[0]} does not exist, so nothing was looked for.", "Correct the place.")
    marks = {canary, *(text for row in rows for text in _texts(row))}
    needles = sorted({form.encode() for mark in marks for form in _forms(mark)})
    for place in places:
        for found in [place] if place.is_file() else sorted(place.rglob("*")):
            if found.is_file() and found.resolve() != file.resolve() and _holds(found, needles):
                yield found


def _sealable(file: Path) -> list[dict[str, Any]]:
    rows = read_jsonl(file)
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} holds lines that are no JSON objects.", "Give one object per line.")
    return rows


def _texts(row: dict[str, Any]) -> Iterator[str]:
    """Prompt and answers that are long enough to be nobody else's."""
    values = [value for name, value in row.items() if name in ("prompt", "chosen", "rejected")]
    values += [turn.get("content") for value in values if isinstance(value, list) for turn in value]
    yield from (value for value in values if isinstance(value, str) and len(value) >= LEAST_CHARACTERS)


def _forms(text: str) -> set[str]:
    return {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], html.escape(text)}


def _holds(file: Path, needles: Sequence[bytes]) -> bool:
    overlap = max(map(len, needles)) - 1
    before = b""
    for block in _blocks(file):
        if any(needle in before + block for needle in needles):
            return True
        before = (before + block)[-overlap:]
    return False


def _blocks(file: Path) -> Iterator[bytes]:
    """A file's bytes, unpacked; a Parquet file's rows as JSON."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches():
                yield json.dumps(batch.to_pylist(), ensure_ascii=False, default=str).encode()
        return
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def _salt(file: Path) -> bytes:
    """The salt beside a file; made on first use, readable by its owner only."""
    place = file.with_name(file.name + SUFFIX)
    if not place.exists():
        temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32) + "\n")
            with suppress(FileExistsError):  # another process was first: its salt holds
                os.link(temporary, place)
        except OSError as error:
            raise DataError(
                f"The salt of the private set {file} cannot be written beside it: {error}.",
                "Give the set a folder of its own that you may write to.",
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    return bytes.fromhex(place.read_text())
