"""From command line and YAML to a checked `RunConfig`, and from there to a file, a fingerprint and a name.

Hydra composes `conf/`; the schema's dataclasses check the result. Whatever a user can get wrong is a
`ConfigError` that names the field with its full dotted path, and it is raised before anything is loaded.
"""

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rlhf_eval.config.checks import check, check_training
from rlhf_eval.config.cluster_schema import ClusterConfig
from rlhf_eval.config.fields import STRICT
from rlhf_eval.config.folders import choice_file, conf_folder, groups, search_path
from rlhf_eval.config.overrides import checked_overrides, field_names, parse_override
from rlhf_eval.config.plain import fingerprint, plain
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, did_you_mean
from rlhf_eval.files import sha256_json

HEADER = (
    "# The frozen configuration of one run, every value resolved. The run directory's name ends with a hash\n"
    "# of the fields that change results. Without the next line this is a configuration of your own.\n"
)
CHECKSUM = "# sha256 of what follows: "
RUN_CONFIG = TypeAdapter(RunConfig)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class _Sweep:
    """Root of `conf/sweep.yaml`."""

    cluster: ClusterConfig


SWEEP = TypeAdapter(_Sweep)


def describe(group: str, choice: str, conf: Path | None = None) -> str:
    """The first comment line of a choice's file, which says what it is."""
    lines = choice_file(group, choice, conf).read_text(encoding="utf-8").splitlines()
    comments = [line[1:].strip() for line in lines if line.startswith("#")]
    return next((comment for comment in comments if not comment.startswith("@")), "")


def compose(overrides: Sequence[str], conf: Path | None = None, trains: bool = True) -> RunConfig:
    """The run that `conf/config.yaml` and Hydra overrides (`group=choice`, `field.path=value`) describe.

    Args:
        trains: False for commands that ask the reward model and train nothing, whatever the experiment's
            runs do.

    Raises:
        ConfigError: an unknown name, a wrong type, a missing value or a malformed override.
    """
    config = from_plain(_composed("config", overrides, RunConfig, conf), "the configuration")
    return check_training(config) if trains else config


def from_plain(value: Any, origin: str) -> RunConfig:
    """The checked configuration of plain values, such as those that Hydra composed.

    Args:
        origin: what a message calls the place where a mistake is to be mended.

    Raises:
        ConfigError: the values do not fit the schema, or each other.
    """
    return check(_validated(value, RUN_CONFIG, RunConfig, origin))


def compose_cluster(overrides: Sequence[str], conf: Path | None = None) -> ClusterConfig:
    """What `conf/sweep.yaml` and overrides (`cluster=choice`, `cluster.field=value`) describe.

    Raises:
        ConfigError: as `compose`.
    """
    value = _composed("sweep", overrides, _Sweep, conf)
    return _validated(value, SWEEP, _Sweep, "the configuration").cluster


def freeze(config: RunConfig) -> str:
    """The configuration as YAML text, as `config.yaml` in the run directory holds it."""
    body = dump(plain(config))
    return f"{HEADER}{CHECKSUM}{sha256(body.encode()).hexdigest()}\n{body}"


def dump(value: Any) -> str:
    """Plain values as YAML text."""
    import yaml

    return yaml.dump(
        value,
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        width=110,
    )


def is_edited(text: str) -> bool:
    """Whether the text of a frozen configuration is no longer what `freeze` wrote."""
    _, mark, rest = text.partition(CHECKSUM)
    checksum, _, body = rest.partition("\n")
    return bool(mark) and sha256(body.encode()).hexdigest() != checksum


def load(path: Path) -> RunConfig:
    """The configuration that `freeze` wrote to a file.

    Raises:
        ConfigError: the file is absent, not YAML, edited since, or does not fit the schema.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.", "Check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not YAML: {' '.join(str(error).split())}", "Restore the file."
        ) from error
    if is_edited(text):
        raise ConfigError(
            f"{path} was edited after it was frozen: it no longer says what its run was started with.",
            "Restore the file; to change a value, give the command that makes the run with the new one.",
        )
    return from_plain(value, str(path))


def changed(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The configuration with fields set by overrides (`field.path=value`); groups cannot be chosen any more.

    Raises:
        ConfigError: as `compose`.
    """
    value = plain(config)
    for text in checked_overrides(overrides, {}, RunConfig):
        override = parse_override(text)
        *path, name = override.key_or_group.split(".")
        place = value
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict):
            raise ConfigError(
                f"{override.key_or_group}: there is no {'.'.join(path)} in this configuration.",
                "Give a field that it has; `config.yaml` of the run has them all.",
            )
        place[name] = override.value()
    return from_plain(value, "the configuration")


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


def _composed(name: str, overrides: Sequence[str], root: type, conf: Path | None) -> Any:
    """What Hydra makes of `conf/<name>.yaml` and overrides, as plain values."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    known = {
        group: names for group, names in groups(conf).items() if (group == "cluster") == (name == "sweep")
    }
    checked = [*([] if conf else search_path()), *checked_overrides(overrides, known, root)]
    conf = (conf or conf_folder()).absolute()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            composed = hydra_compose(name, checked)
        if missing := sorted(OmegaConf.missing_keys(composed)):
            raise ConfigError(f"{missing[0]} is missing.", f"Give it a value: {missing[0]}=<value>.")
        return OmegaConf.to_container(composed, resolve=True)
    except HydraException as error:
        raise _composition_error(error, known) from error
    except OmegaConfBaseException as error:
        what = str(error).splitlines()[0].rstrip(".")
        field = error.full_key or "the configuration"
        raise ConfigError(f"{field}: {what}.", "Mend the value on the command line or in conf/.") from error
    except YAMLError as error:
        raise ConfigError(
            f"A file in {conf} is not YAML: {' '.join(str(error).split())}", "Mend it."
        ) from error


def _validated(value: Any, adapter: TypeAdapter[Any], root: type, origin: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _schema_error(error, root, origin) from error


def _schema_error(error: ValidationError, root: type, origin: str) -> ConfigError:
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
        if first["type"] == "unexpected_keyword_argument" and place[-1] in field_names(root, ["algorithm"]):
            path = ".".join(place)
            return ConfigError(
                f"{path}: an algorithm of kind {kind} has no such option.", f"Leave {path} out of {origin}."
            )
    path = ".".join(place) or origin
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return ConfigError(
            f"{path}: there is no such field.", did_you_mean(place[-1], field_names(root, place[:-1]))
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
