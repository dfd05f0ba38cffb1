"""MkDocs hook: the pages of `reference/`, generated from the code when the site is built."""

import argparse
import dataclasses
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rlhf_eval.analysis.columns import COLUMNS
from rlhf_eval.arguments import build_parser
from rlhf_eval.config.cluster_schema import ClusterConfig
from rlhf_eval.config.compose import describe
from rlhf_eval.config.folders import groups
from rlhf_eval.config.plain import plain
from rlhf_eval.config.schema import RunConfig

README = Path(__file__).parent.parent / "README.md"
PLAIN_TYPES = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    NoneType: "null",
    Any: "anything",
}
LIMITS = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "with {} or more entries",
}
"""Words for the limits of `annotated_types`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    pages = {
        "configuration": configuration,
        "choices": choices,
        "cli": cli,
        "json": json_contract,
        "columns": columns,
    }
    for name, page in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def prose(text: str) -> str:
    """Text of a docstring or a help as Markdown: only `code` and *emphasis* are meant as such."""
    marks = {mark: f"\\{mark}" for mark in "*_[]"} | {"<": "&lt;"}
    return re.sub(
        r"`[^`]*`|\*\w+\*|[*_\[\]<]", lambda match: marks.get(match[0], match[0]), " ".join(text.split())
    )


def entry(anchor: str, term: str, text: str, facts: str = "") -> str:
    """One item of a definition list that can be linked to."""
    definition = " ".join(filter(None, (text, facts and f"<small>{facts}.</small>")))
    return f"`{term}`{{#{re.sub('[<>*]', '', anchor)}}}\n:   {definition or '…'}"


@dataclasses.dataclass(frozen=True)
class Section:
    """The fields of one dataclass of the schema, at the first path where it stands."""

    path: str
    schema: type
    fingerprint: bool

    @property
    def kind(self) -> str:
        """Where several dataclasses share a path: the `kind` that tells them apart."""
        hint = get_type_hints(self.schema).get("kind")
        return get_args(hint)[0] if get_origin(hint) is Literal else ""

    @property
    def anchor(self) -> str:
        return re.sub("[<>]", "", ".".join(filter(None, ("fields-of", self.path, self.kind))))

    def heading(self) -> str:
        kinds = (
            [self.kind]
            if self.kind
            else [Section("", sub, True).kind for sub in self.schema.__subclasses__()]
        )
        of_kind = f" of kind {alternatives(f'`{kind}`' for kind in kinds)}" if kinds else ""
        return f"{'###' if '.' in self.path else '##'} `{self.path}`{of_kind} {{#{self.anchor}}}"


def alternatives(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def configuration() -> str:
    """Every field of the schema, with what it takes, its default, and whether it enters `hash8`."""
    seen: set[type] = set()
    found = (*_sections(RunConfig, "", True, seen), *_sections(ClusterConfig, "cluster", False, seen))
    sections = {section.schema: section for section in found}
    text = [
        "# Configuration",
        "Every field of a run, by the path that an override on the command line takes "
        "(`algorithm.steps=200`), and those of the group `cluster`, which `rlhf-eval sweep` takes. "
        "A field without a default must be set by the chosen files of `conf/` or by an override; "
        "[the choices](choices.md) are in a list of their own. A field that enters `hash8` changes results: "
        "two runs that differ in it are two runs. The others say where or how fast a run executes.",
    ]
    for section in found:
        text += _section(section, sections)
    return "\n\n".join(text)


def _sections(schema: Any, path: str, fingerprint: bool, seen: set[type]) -> Iterator[Section]:
    """The dataclass and those of its fields, each once."""
    if schema in seen:
        return
    seen.add(schema)
    for base in schema.__bases__:
        if dataclasses.is_dataclass(base):
            yield from _sections(base, path, fingerprint, seen)
    yield Section(path, schema, fingerprint)
    for field in dataclasses.fields(schema):
        own = fingerprint and field.metadata.get("fingerprint", True)
        for place, inner in _schemas_in(get_type_hints(schema, include_extras=True)[field.name]):
            yield from _sections(inner, f"{_joined(path, field.name)}{place}", own, seen)


def _schemas_in(hint: Any) -> Iterator[tuple[str, type]]:
    """The dataclasses that a type holds, each with its path in it."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield "", hint
    key = ".<name>" if get_origin(hint) is dict else ""
    for inner in get_args(hint):
        yield from ((key + place, schema) for place, schema in _schemas_in(inner))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _section(section: Section, sections: dict[type, Section]) -> Iterator[str]:
    schema = section.schema
    yield section.heading() if section.path else "## A run"
    yield prose((schema.__doc__ or "").split("\n\n")[0])
    hints = get_type_hints(schema, include_extras=True)
    inherited = {
        field.name
        for base in schema.__bases__
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    }
    for field in dataclasses.fields(schema):
        if field.name in inherited:
            continue
        in_hash = section.fingerprint and field.metadata.get("fingerprint", True)
        facts = "; ".join(
            (
                _takes(hints[field.name], sections),
                _default(field),
                f"{'enters' if in_hash else 'does not enter'} `hash8`",
            )
        )
        path = _joined(section.path, field.name)
        description = schema.__pydantic_fields__[field.name].description  # type: ignore[attr-defined]
        yield entry(_joined(section.kind, path), path, prose(description), facts)


def _takes(hint: Any, sections: dict[type, Section]) -> str:
    """What a field takes, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [limit for limit in hint.__metadata__ if type(limit).__module__ == "annotated_types"]
        words = (
            LIMITS[name].format(value)
            for limit in limits
            for name, value in dataclasses.asdict(limit).items()
        )
        return " ".join((_takes(inner[0], sections), *words))
    if origin is Literal:
        return alternatives(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return alternatives(dict.fromkeys(_takes(one, sections) for one in inner))
    if origin is tuple:
        return f"list of {_takes(inner[0], sections)}"
    if origin is dict:
        return f"mapping from {_takes(inner[0], sections)} to {_takes(inner[1], sections)}"
    if dataclasses.is_dataclass(hint):
        section = sections[hint]  # type: ignore[index]
        return f"[fields of `{section.kind or section.path}`](#{section.anchor})"
    return PLAIN_TYPES[hint]


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
        if dataclasses.is_dataclass(value):
            return "default: those of its fields"
    elif field.default is dataclasses.MISSING:
        return "no default"
    else:
        value = field.default
    text = value if isinstance(value, str) else json.dumps(plain(value), ensure_ascii=False)
    return f"default `{text}`"


def choices() -> str:
    """Every file of `conf/`, by group."""
    text = [
        "# Choices",
        "The files of `conf/`, by group: `rlhf-eval run reward_model=lab_clean policy=lab` takes one of "
        "each. `rlhf-eval ls --configs` lists them too. What stands in one: [every field](configuration.md).",
    ]
    for group, names in groups().items():
        rows = (f"| `{name}` | {prose(describe(group, name)).replace('|', '&#124;')} |" for name in names)
        text.append("\n".join((f"## `{group}`\n", "| choice | what it is |", "|---|---|", *rows)))
    return "\n\n".join(text)


def cli() -> str:
    """Every command with its arguments and examples."""
    parser, commands = build_parser()
    text = [
        "# Command line",
        f"{parser.description} Exit codes: 0 done, 1 something failed, 2 usage or configuration, "
        "75 ended by SIGTERM and to be given again, 130 interrupted. What `--json` prints: [JSON](json.md).",
    ]
    order = [*commands]
    for name in sorted(commands, key=lambda name: order.index(name.split()[0])):
        text += _command(name, commands[name])
    return "\n\n".join(text)


def _command(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    path = name.replace(" ", "-")
    formatter = argparse.HelpFormatter(command.prog, width=84)
    yield f"{'###' if ' ' in name else '##'} `rlhf-eval {name}` {{#{path}}}"
    yield prose(command.description or "")
    formatter.add_usage(command.usage, command._actions, command._mutually_exclusive_groups, "")
    yield f"```text\n{formatter.format_help().strip()}\n```"
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield "\n".join(
                f"- [`{choice.dest}`](#{path}-{choice.dest}): {prose(choice.help or '')}"
                for choice in action._choices_actions
            )
        elif not isinstance(action, argparse._HelpAction):
            option = max(action.option_strings or [action.dest], key=len).lstrip("-")
            meaning = prose(formatter._expand_help(action)) if action.help else ""
            yield entry(f"{path}.{option}", formatter._format_action_invocation(action), meaning)
    if command.epilog:
        examples = textwrap.dedent(command.epilog.removeprefix("examples:\n"))
        yield f"```bash\n{examples}\n```"


def json_contract() -> str:
    """The README's section on JSON, which stands there and nowhere else."""
    section = README.read_text(encoding="utf-8").split("\n## JSON\n")[1].split("\n## ")[0]
    return f"# JSON\n{section}"


def columns() -> str:
    """The columns of the table of runs."""
    text = [
        "# Columns of the table",
        "What `rlhf-eval table` writes and `rlhf_eval.analysis.runs_table` returns: a row for each run and "
        "checkpoint. A column of a *run* stands in each of its rows, one of a *checkpoint* in that "
        "checkpoint's, one of the *result* in the run's last row only. What is missing is null. `*` stands "
        "for any name.",
    ]
    for column in COLUMNS:
        facts = "; ".join(filter(None, (f"of the {column.place}", column.dtype, prose(column.unit))))
        text.append(entry(column.name, column.name, prose(column.meaning), facts))
    return "\n\n".join(text)
