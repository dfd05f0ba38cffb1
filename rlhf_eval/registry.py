"""Names that stand for code, looked up only when needed.

A registry maps a *kind* that a configuration names to `"module:attribute"`; the module is imported by
`get`, so listing and checking names costs nothing.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from rlhf_eval.errors import ConfigError, did_you_mean


class Registry:
    """Kinds of one thing.

    Args:
        thing: what the kinds are kinds of, as messages name it ("reward model kind").
        targets: kind → `"module:attribute"`.
    """

    def __init__(self, thing: str, targets: Mapping[str, str]) -> None:
        self.thing = thing
        self.targets = dict(targets)

    def names(self) -> list[str]:
        """All kinds, sorted."""
        return sorted(self.targets)

    def check(self, kind: str, where: str) -> None:
        """Raises ConfigError unless `kind` exists; `where` is the dotted path of the field that names it."""
        if kind not in self.targets:
            raise ConfigError(
                f"{where}: there is no {self.thing} '{kind}'.", did_you_mean(kind, self.targets)
            )

    def get(self, kind: str) -> Any:
        """The attribute that `kind` stands for; imports its module.

        Raises:
            ConfigError: the kind does not exist.
        """
        self.check(kind, "kind")
        module, attribute = self.targets[kind].split(":")
        return getattr(import_module(module), attribute)
