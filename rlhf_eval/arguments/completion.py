"""What the shell is offered at TAB: commands, options and folders by argcomplete, and overrides from here."""

import argparse
from collections.abc import Iterator
from typing import Any

from rlhf_eval.config.folders import groups
from rlhf_eval.errors import RlhfEvalError


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process; nothing happens where no shell asks."""
    import argcomplete

    for command in _parsers(parser):
        for action in command._actions:
            if action.dest == "overrides":
                action.completer = overrides  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def overrides(prefix: str, **_: Any) -> list[str]:
    """The overrides that begin so: groups with their choices, several after commas, and fields."""
    key, mark, value = prefix.partition("=")
    try:
        known = groups()
    except RlhfEvalError:  # said by the command itself
        return []
    if not mark:
        offered = [*(f"{name}=" for name in known), *_fields(prefix)]
        found = [text for text in offered if text.startswith(prefix)]
        # A shell puts a space behind the only answer, unless more may follow.
        return _fields(found[0]) if len(found) == 1 and found[0].endswith(".") else found
    group = key.lstrip("+").partition("@")[0]
    before, comma, last = value.rpartition(",")
    taken = before.split(",")
    choices = [name for name in known.get(group, ()) if name.startswith(last) and name not in taken]
    return [f"{key}={before}{comma}{name}" for name in choices]


def _fields(prefix: str) -> list[str]:
    """Fields at the path that has been typed, such as `algorithm.steps=`; without a dot those of the run."""
    from rlhf_eval.config.overrides import field_names, has_fields
    from rlhf_eval.config.schema import RunConfig

    path = prefix.split(".")[:-1]
    stem = "".join(f"{part}." for part in path)
    names = field_names(RunConfig, path)
    return [f"{stem}{name}" + ("." if has_fields(RunConfig, [*path, name]) else "=") for name in names]


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _parsers(child)
