"""A configuration as plain values: what is written, compared and hashed."""

import dataclasses
from typing import Any


def fingerprint(config: Any) -> dict[str, Any]:
    """The fields that change results, as plain values: what decides whether two runs are the same."""
    return plain(config, fingerprint_only=True)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: dotted path → leaf value."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        path: leaf
        for key, child in value.items()
        for path, leaf in flat(child, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def plain(value: Any, fingerprint_only: bool = False) -> Any:
    """Dataclasses as dictionaries, tuples as lists; if asked, without what does not change results."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name), fingerprint_only)
            for field in dataclasses.fields(value)
            if field.metadata.get("fingerprint", True) or not fingerprint_only
        }
    if isinstance(value, dict):
        return {key: plain(child, fingerprint_only) for key, child in value.items()}
    if isinstance(value, tuple | list):
        return [plain(child, fingerprint_only) for child in value]
    return value
