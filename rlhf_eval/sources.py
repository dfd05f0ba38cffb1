"""Reading data named in a configuration: local files, files on the Hugging Face hub, the lab's files."""

import csv
import gzip
import io
import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rlhf_eval.config.compose import fingerprint
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import sha256_file, sha256_json

HUB = "hf://datasets/"
LAB = "lab:"
_Config = TypeVar("_Config")


def localise(config: _Config, lab: Path | None) -> _Config:
    """The same configuration with every `lab:` source and model replaced by its place in the built world.

    The frozen configuration keeps `lab:` and therefore names no path of one machine; only the copy that a
    run executes with is localised.
    """
    if isinstance(config, str) and config.startswith(LAB):
        if lab is None:
            raise ConfigError(
                f"'{config}' refers to the embedded lab, but the configuration has no `lab` section.",
                "Choose experiment=lab, or name a hub or local path instead.",
            )
        return str(lab / config.removeprefix(LAB))  # type: ignore[return-value]
    if isinstance(config, dict):
        return {key: localise(value, lab) for key, value in config.items()}  # type: ignore[return-value]
    if isinstance(config, tuple):
        return tuple(localise(value, lab) for value in config)  # type: ignore[return-value]
    if is_dataclass(config) and not isinstance(config, type):
        return replace(config, **{f.name: localise(getattr(config, f.name), lab) for f in fields(config)})
    return config


def local_hashes(config: Any, lab: Path | None) -> dict[str, str]:
    """SHA-256 of every local file or model folder that a configuration names, by the name in it."""
    found: dict[str, str] = {}
    for text in _strings(config if isinstance(config, (dict, str)) else fingerprint(config)):
        place = lab / text.removeprefix(LAB) if text.startswith(LAB) and lab else Path(text).expanduser()
        if place.is_file():
            found[text] = sha256_file(place)
        elif ("/" in text and place.is_dir()) or (text.startswith(LAB) and place.is_dir()):
            found[text] = sha256_json(
                {
                    str(file.relative_to(place)): sha256_file(file)
                    for file in sorted(place.rglob("*"))
                    if file.is_file()
                }
            )
    return found


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
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if suffixes[-1] == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(io.BytesIO(raw)).to_pylist()
    text = raw.decode("utf-8")
    if suffixes[-1] == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    if suffixes[-1] == ".jsonl":
        return [_object(line, source, n) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = _parse(text, source, "")
    if not isinstance(rows, list):
        raise DataError(f"'{source}' does not hold a JSON list.", "Give a list of objects, or a .jsonl file.")
    return rows


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    return [value] if isinstance(value, str) and value else []


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

    organisation, name, file = source.removeprefix(HUB).split("/", 2)
    name, _, revision = name.partition("@")
    repository = f"{organisation}/{name}"
    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision or None))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise DataError(
            f"'{file}' of the hub data set {repository}@{revision or 'main'} could not be had: {error}",
            "Check name, revision, network and HF_TOKEN, or give a local copy.",
        ) from None
