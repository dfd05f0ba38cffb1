"""From command line and YAML to a checked `RunConfig`, and from there to a file, a fingerprint and a name.

Hydra composes `conf/`; the schema's dataclasses check the result. Whatever a user can get wrong is a
`ConfigError` that names the field with its full dotted path, and it is raised before anything is loaded.
"""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlhf_eval.config.checks import check
from rlhf_eval.config.plain import fingerprint, plain
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.files import sha256_json

HEADER = (
    "# The frozen configuration of one run, every value resolved. The run directory's name ends with a hash\n"
    "# of the fields that change results.\n"
)
RUN_CONFIG = TypeAdapter(RunConfig)


def conf_folder() -> Path:
    """The shipped YAML: top-level `conf/` in a checkout, `rlhf_eval/conf/` in an installed wheel."""
    package = Path(__file__).parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").exists() else package / "conf"


def groups(conf: Path | None = None) -> dict[str, list[str]]:
    """The configuration groups and the choices in each, by name."""
    conf = conf or conf_folder()
    folders = sorted(path for path in conf.iterdir() if path.is_dir() and any(path.glob("*.yaml")))
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}


def describe(group: str, choice: str, conf: Path | None = None) -> str:
    """The first comment line of a choice's file, which says what it is."""
    lines = ((conf or conf_folder()) / group / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    return next((comment for comment in comments if not comment.startswith("@")), "")


def compose(overrides: list[str], conf: Path | None = None) -> RunConfig:
    """The run that `conf/config.yaml` and Hydra overrides (`group=choice`, `field.path=value`) describe.

    Raises:
        ConfigError: an unknown name, a wrong type, a missing value or a malformed override.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    conf = (conf or conf_folder()).absolute()
    checked = list(_checked_overrides(overrides, groups(conf)))
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = hydra_compose("config", checked)
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise ConfigError(f"{missing[0]} is missing.", f"Give it a value: {missing[0]}=<value>.")
        return _validated(OmegaConf.to_container(composed, resolve=True), "the configuration")
    except HydraException as error:
        raise _composition_error(error, groups(conf)) from error
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0].rstrip(".")
        field = error.full_key or "the configuration"
        raise ConfigError(f"{field}: {what}.", "Mend the value on the command line or in conf/.") from error
    except YAMLError as error:
        raise ConfigError(
            f"A file in {conf} is not YAML: {' '.join(str(error).split())}", "Mend it."
        ) from error


def freeze(config: RunConfig) -> str:
    """The configuration as YAML text, as `config.yaml` in the run directory holds it."""
    import yaml

    return HEADER + yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=110)


def load(path: Path) -> RunConfig:
    """The configuration that `freeze` wrote to a file.

    Raises:
        ConfigError: the file is absent, not YAML, or does not fit the schema.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "Restore the file."
        ) from error
    return _validated(value, str(path))


def hash8(config: RunConfig) -> str:
    """First 8 hexadecimal digits of the fingerprint's SHA-256."""
    return sha256_json(fingerprint(config))[:8]


def run_name(config: RunConfig) -> str:
    """Name of the run's directory."""
    names = (config.reward_model.name, config.policy.name, config.algorithm.name)
    return "--".join((*names, f"s{config.seed}", hash8(config)))


def run_path(config: RunConfig) -> Path:
    """Where the run stands: `<output>/<experiment>/<run name>`."""
    return Path(config.output) / config.experiment / run_name(config)


def _validated(value: Any, origin: str) -> RunConfig:
    try:
        config = RUN_CONFIG.validate_python(value)
    except ValidationError as error:
        raise _schema_error(error, origin) from error
    return check(config)


def _schema_error(error: ValidationError, origin: str) -> ConfigError:
    """The first finding of the schema in our words."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "union_tag_invalid":
        told: dict[str, Any] = first.get("ctx", {})
        return ConfigError(
            f"{'.'.join(place)}.kind: {told['tag']!r} is none of {told['expected_tags']}.",
            f"Mend it in {origin}.",
        )
    if place[:1] == ["algorithm"] and len(place) > 1:
        kind = place.pop(1)  # pydantic names the member of the union here
        if first["type"] == "unexpected_keyword_argument" and place[-1] in _field_names("algorithm"):
            path = ".".join(place)
            return ConfigError(
                f"{path}: an algorithm of kind {kind} has no such option.", f"Leave {path} out of {origin}."
            )
    path = ".".join(place) or origin
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return ConfigError(
            f"{path}: there is no such field.", did_you_mean(place[-1], _field_names(*place[:-1]))
        )
    if first["type"] in ("missing", "missing_argument", "union_tag_not_found"):
        path = f"{path}.kind" if first["type"] == "union_tag_not_found" else path
        return ConfigError(f"{path} is missing.", f"Give it a value: {path}=<value>.")
    message = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"{path}: {first['input']!r} does not fit: {message}.", f"Mend {path} in {origin}.")


def _composition_error(error: Exception, known: dict[str, list[str]]) -> ConfigError:
    """Hydra's refusal in our words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if missing := re.match(r"You must specify '([^']+)'", lines[0]):
        group = missing[1]
        return ConfigError(
            f"{group} is missing.", f"Add {group}=<name>. Known: {', '.join(known.get(group, []))}."
        )
    return ConfigError(
        lines[0].rstrip(".") + ".", " ".join(lines[1:]) or "Mend the override or the file in conf/."
    )


def _checked_overrides(overrides: list[str], known: dict[str, list[str]]) -> Iterator[str]:
    """The overrides after a check of their names; `field=value` may also set what YAML leaves out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(
                f"'{text}' is no override.",
                "Write group=choice or field.path=value; quote values with special signs: 'field=\"a b\"'.",
            ) from error
        key, choice = override.key_or_group, override.value()
        if override.is_sweep_override():
            raise ConfigError(
                f"{key}: '{text}' gives several values.", "A run takes one; start one per value."
            )
        if key.split("/")[0] == "hydra" or key.startswith("hydra."):
            yield text
        elif key in known:
            if not override.is_delete() and choice not in known[key]:
                raise ConfigError(f"{key}: there is no '{choice}'.", did_you_mean(str(choice), known[key]))
            yield text
        else:
            _check_path(key, known)
            yield f"++{text}" if override.type is not None and override.type.name == "CHANGE" else text


def _check_path(path: str, known: dict[str, list[str]]) -> None:
    """Raises ConfigError unless the schema has a field of that dotted path."""
    parts = path.split(".")
    for depth, part in enumerate(parts):
        kinds = _types_at(parts[:depth])
        if not kinds:
            raise ConfigError(
                f"{path}: {'.'.join(parts[:depth])} has no fields.", "Leave out what follows its name."
            )
        names = _field_names(*parts[:depth])
        if names and part not in names:
            siblings = [*names, *known] if depth == 0 else names
            raise ConfigError(f"{path}: there is no such field.", did_you_mean(part, set(siblings)))


def _field_names(*path: str) -> list[str]:
    """Names of the fields at a path of the schema; of all members where that is a union."""
    kinds = (kind for kind in _types_at(path) if dataclasses.is_dataclass(kind))
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def _types_at(path: typing.Sequence[str]) -> list[Any]:
    """The dataclasses or the dictionary type at a path of the schema; none where there is a plain value."""
    kinds: list[Any] = [RunConfig]
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
