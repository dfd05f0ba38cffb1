"""Reading data named in a configuration: local files, files on the Hugging Face hub, the lab's files."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import sha256_json, sha256_known

HUB = "hf://datasets/"
LAB = "lab:"
MODELS = ("model", "reference")
"""Fields that name a model: there a word without a slash may be a folder too."""
_Config = TypeVar("_Config")


def rewritten(config: _Config, change: Callable[[Any], Any]) -> _Config:
    """The same configuration with every value replaced by what `change` makes of it, the innermost first."""
    made: Any = config
    if isinstance(config, dict):
        made = {key: rewritten(value, change) for key, value in config.items()}
    elif isinstance(config, tuple):
        made = tuple(rewritten(value, change) for value in config)
    elif is_dataclass(config) and not isinstance(config, type):
        made = replace(config, **{f.name: rewritten(getattr(config, f.name), change) for f in fields(config)})
    return change(made)


def localise(config: _Config, lab: Path | None) -> _Config:
    """The same configuration with every `lab:` source and model replaced by its place in the built world.

    The frozen configuration keeps `lab:` and therefore names no path of one machine; only the copy that a
    run executes with is localised.
    """

    def place(value: Any) -> Any:
        if not isinstance(value, str) or not value.startswith(LAB):
            return value
        if lab is None:
            raise ConfigError(
                f"'{value}' refers to the embedded lab, but the configuration has no `lab` section.",
                "Choose experiment=lab, or name a hub or local path instead.",
            )
        return str(lab / value.removeprefix(LAB))

    return rewritten(config, place)


def local_places(config: Any, lab: Path | None) -> dict[str, Path]:
    """Every local file or model folder that a configuration names, by the name in it."""
    found: dict[str, Path] = {}
    for field, text in _texts(config if isinstance(config, (dict, str)) else fingerprint(config)):
        name = text.rpartition(":")[0] if field == "function" else text  # path/to/file.py:function
        place = lab / name.removeprefix(LAB) if name.startswith(LAB) and lab else Path(name).expanduser()
        folder = "/" in text or field in MODELS or text.startswith(LAB)
        if place.is_file() or (folder and place.is_dir()):
            found[text] = place
    return found


def local_hashes(config: Any, lab: Path | None) -> dict[str, str]:
    """SHA-256 of every local file or model folder that a configuration names, by the name in it."""
    return {text: _sha256(place) for text, place in local_places(config, lab).items()}


def resolve(source: str) -> Path:
    """The local file behind a source, downloaded from the hub if it stands there.

    Raises:
        DataError: there is no such file.
    """
    if source.startswith(HUB):
        return _download(source)
    path = Path(source).expanduser()
    if not path.is_file():
        raise DataError(
            f"No file '{source}' (looked in {Path.cwd()}).", "Check the path in the configuration."
        )
    return path


def read_rows(source: str) -> list[dict[str, Any]]:
    """All rows of a `.json` (a list), `.jsonl`, `.csv` or `.parquet` source, each also `.gz`.

    Raises:
        DataError: no such file, another file type, or a malformed line (named by its number).
    """
    path = resolve(source)
    suffixes = [suffix for suffix in path.suffixes if suffix in {".json", ".jsonl", ".csv", ".parquet"}]
    if not suffixes:
        raise DataError(
            f"'{source}' is of no known file type.", "Use .json, .jsonl, .csv or .parquet (or .gz)."
        )
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if suffixes[-1] == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(io.BytesIO(raw)).to_pylist()
        text = raw.decode("utf-8-sig")
        if suffixes[-1] == ".csv":
            csv.field_size_limit(sys.maxsize)
            return list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, EOFError, ValueError, zlib.error, csv.Error) as error:
        raise DataError(
            f"'{source}' is no {''.join(path.suffixes[-2:])} file: {error}.", "Mend or fetch the file again."
        ) from None
    if suffixes[-1] == ".jsonl":
        return [_object(line, source, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = _parse(text, source, "")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"'{source}' does not hold a JSON list of objects.", "Give a list of objects, or a .jsonl file."
        )
    return rows


def replaced(config: _Config, places: Mapping[str, str]) -> _Config:
    """The same configuration with other names for some files."""
    return rewritten(config, lambda value: places.get(value, value) if isinstance(value, str) else value)


def texts_in(value: Any) -> list[str]:
    """Every text in a configuration: what `local_hashes` may know a file by."""
    return [text for _, text in _texts(value)]


def _sha256(place: Path) -> str:
    """Of a file, or of a folder's files with their names."""
    if place.is_file():
        return sha256_known(place)
    files = (file for file in sorted(place.rglob("*")) if file.is_file())
    return sha256_json({str(file.relative_to(place)): sha256_known(file) for file in files})


def _texts(value: Any, field: str = "") -> list[tuple[str, str]]:
    """Every text in a configuration with the name of its field."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in _texts(item, name)]
    return [(field, value)] if isinstance(value, str) and value else []


def _object(line: str, source: str, number: int) -> dict[str, Any]:
    row = _parse(line, source, f", line {number}")
    if not isinstance(row, dict):
        raise DataError(f"'{source}', line {number} is no JSON object.", "Each line must be one object.")
    return row


def _parse(text: str, source: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"'{source}'{where} is malformed JSON: {error}.", "Mend or fetch the file again."
        ) from None


def _download(source: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    parts = source.removeprefix(HUB).split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise DataError(
            f"'{source}' names no file on the hub.", f"Write {HUB}<organisation>/<name>@<revision>/<file>."
        )
    organisation, name, file = parts
    name, _, revision = name.partition("@")
    repository = f"{organisation}/{name}"
    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise DataError(
            f"'{file}' of the hub data set {repository}@{revision or 'main'} could not be had: {error}",
            "Check name, revision, network and HF_TOKEN, or give a local copy.",
        ) from None
