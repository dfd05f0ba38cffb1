"""Checking Hydra overrides by the schema: group, choice and field names, before anything is composed."""

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.keys import without_secrets


def checked_overrides(
    overrides: Sequence[str], known: dict[str, list[str]], root: type, sweep: bool = False
) -> Iterator[str]:
    """The overrides after a check of their names; `field=value` may also set what YAML leaves out.

    Args:
        known: the choices of every configuration group.
        root: the dataclass that is composed.
        sweep: whether an override may give several values.

    Raises:
        ConfigError: a malformed override, an unknown group, choice or field, or several values for one run.
    """
    for text in overrides:
        override = parse_override(text)
        key, several = override.key_or_group, override.is_sweep_override()
        if several and not sweep:
            raise ConfigError(
                f"{key}: '{text}' gives several values.",
                "A run takes one: start one per value, or give them to `rlhf-eval sweep`.",
            )
        if key.split("/")[0] == "hydra" or key.startswith("hydra."):
            yield text
        elif key in known:
            for choice in values(override, known[key]):
                if not override.is_delete() and choice not in known[key]:
                    raise ConfigError(f"{key}: there is no '{choice}'.", did_you_mean(choice, known[key]))
            yield text
        else:
            _check_path(key, known, root)
            yield f"++{text}" if override.type is not None and override.type.name == "CHANGE" else text


def parse_override(text: str) -> Any:
    """Hydra's `Override`; ConfigError if the text is none."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ConfigError(
            f"'{without_secrets(text)}' is no override.",
            "Write group=choice or field.path=value; quote values with special signs: 'field=\"a b\"'.",
        ) from error


def values(override: Any, known: Sequence[str] = ()) -> list[str]:
    """The values of an override as a command line gives them; one unless it sweeps.

    Args:
        known: the choices of its group, which `glob(...)` selects from.

    Raises:
        ConfigError: a sweep that names no values.
    """
    from hydra.core.override_parser.types import Glob

    value = override.value()
    if not override.is_sweep_override():
        return [str(value)]
    found = value.filter(list(known)) if isinstance(value, Glob) else []
    if override.is_discrete_sweep() and not isinstance(value, Glob):
        found = list(override.sweep_string_iterator())
    if not found:
        raise ConfigError(
            f"{override.key_or_group}: '{override.input_line}' names no values.",
            "Name them one by one, as a,b,c; as range(0,5); or those of a group as glob(skywork_*).",
        )
    return found


def field_names(root: type, path: Sequence[str]) -> list[str]:
    """Names of the fields at a path of the schema; of all members where that is a union."""
    kinds = (kind for kind in _types_at(root, path) if dataclasses.is_dataclass(kind))
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def has_fields(root: type, path: Sequence[str]) -> bool:
    """Whether there is more below a path of the schema."""
    return bool(_types_at(root, path))


def _check_path(path: str, known: dict[str, list[str]], root: type) -> None:
    """Raises ConfigError unless the schema has a field of that dotted path."""
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not _types_at(root, parts[:depth]):
            raise ConfigError(
                f"{path}: {'.'.join(parts[:depth])} has no fields.", "Leave out what follows its name."
            )
        names = field_names(root, parts[:depth])
        if names and part not in names:
            siblings = [*names, *known] if depth == 0 else names
            raise ConfigError(f"{path}: there is no such field.", did_you_mean(part, set(siblings)))


def _types_at(root: type, path: Sequence[str]) -> list[Any]:
    """The dataclasses or the dictionary type at a path of the schema; none where there is a plain value."""
    kinds: list[Any] = [root]
    for part in path:
        nested = [_member(kind, part) for kind in kinds]
        kinds = [option for kind in nested for option in _options(kind)]
    return kinds


def _member(kind: Any, name: str) -> Any:
    if typing.get_origin(kind) is dict:
        return typing.get_args(kind)[1]
    return typing.get_type_hints(kind, include_extras=False).get(name)


def _options(kind: Any) -> list[Any]:
    """The types with fields among the members of a union."""
    members = [kind, *typing.get_args(kind)]
    if typing.get_origin(kind) is dict:
        return [kind]
    return [member for member in members if dataclasses.is_dataclass(member)]
