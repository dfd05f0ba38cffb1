"""Where configurations stand: the shipped ones, and the user's own beside them.

A folder `conf` in the working directory (or the one that `RLHF_EVAL_CONF` names) joins the shipped groups:
`conf/reward_model/mine.yaml` is chosen by `reward_model=mine`. A shipped name always means what was shipped.
"""

import os
from pathlib import Path

from rlhf_eval.errors import ConfigError

VARIABLE = "RLHF_EVAL_CONF"


def conf_folder() -> Path:
    """The shipped YAML: top-level `conf/` in a checkout, `rlhf_eval/conf/` in an installed wheel."""
    package = Path(__file__).parents[1]
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").exists() else package / "conf"


def own_folder() -> Path | None:
    """The user's own YAML; None where there is none.

    Raises:
        ConfigError: the variable names no folder.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named or "conf").expanduser()
    if named and not folder.is_dir():
        raise ConfigError(f"{VARIABLE}={named} is no folder.", f"Correct it, or unset {VARIABLE}.")
    if not folder.is_dir() or folder.resolve() == conf_folder().resolve():
        return None
    return folder


def groups(conf: Path | None = None) -> dict[str, list[str]]:
    """The configuration groups and the choices in each, by name: shipped ones and the user's own.

    Args:
        conf: another folder in the place of both.

    Raises:
        ConfigError: a choice of the user's own has the name of a shipped one.
    """
    shipped = _choices(conf or conf_folder())
    own = None if conf else own_folder()
    if own is None:
        return shipped
    for group, names in _choices(own).items():
        if group not in shipped:  # a folder `conf` may belong to something else too
            continue
        if twice := sorted({*names} & {*shipped[group]}):
            raise ConfigError(
                f"{own / group / twice[0]}.yaml has the name of a shipped choice.",
                f"Rename it, so that {group}={twice[0]} means the same to everybody.",
            )
        shipped[group] = sorted([*shipped[group], *names])
    return shipped


def choice_file(group: str, choice: str, conf: Path | None = None) -> Path:
    """The file of a choice."""
    file = (conf or conf_folder()) / group / f"{choice}.yaml"
    own = None if conf else own_folder()
    return own / group / f"{choice}.yaml" if own and not file.exists() else file


def search_path() -> list[str]:
    """What Hydra has to be told so that it finds the user's own choices; empty where there are none."""
    own = own_folder()
    return [f"hydra.searchpath=['file://{own.absolute().as_posix()}']"] if own else []


def _choices(conf: Path) -> dict[str, list[str]]:
    folders = sorted(path for path in conf.iterdir() if path.is_dir() and any(path.glob("*.yaml")))
    return {folder.name: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
