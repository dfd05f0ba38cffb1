"""A configuration as plain values: what is written, compared and hashed."""

import dataclasses
from collections.abc import Callable
from typing import Any

Keep = Callable[["dataclasses.Field[Any]", Any], bool]
"""Whether a field with this value is kept."""


def fingerprint(config: Any) -> dict[str, Any]:
    """What decides whether two runs are the same: the fields that change results, as plain values.

    A field that was added after a release (`fields.added`) is left out while it has its default, so that the
    fingerprints of earlier runs stay what they were.
    """
    return plain(config, lambda field, value: _changes_results(field) and not _as_before(field, value))


def result_fields(config: Any) -> dict[str, Any]:
    """All fields that change results, as plain values."""
    return plain(config, lambda field, _: _changes_results(field))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: dotted path → leaf value."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        path: leaf
        for key, child in value.items()
        for path, leaf in flat(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def plain(value: Any, keep: Keep = lambda field, value: True) -> Any:
    """Dataclasses as dictionaries of the fields that are kept, tuples as lists."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(child, keep)
            for field in dataclasses.fields(value)
            if keep(field, child := getattr(value, field.name))
        }
    if isinstance(value, dict):
        return {key: plain(child, keep) for key, child in value.items()}
    if isinstance(value, tuple | list):
        return [plain(child, keep) for child in value]
    return value


def _changes_results(field: "dataclasses.Field[Any]") -> bool:
    return field.metadata.get("fingerprint", True)


def _as_before(field: "dataclasses.Field[Any]", value: Any) -> bool:
    return field.metadata.get("added", False) and value == field.default
