"""Python and packages: against what rlhf_eval asks for, and against a lock."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

from rlhf_eval import __version__
from rlhf_eval.doctor.checks import Finding, failure, passed, probe, skipped, warning
from rlhf_eval.errors import ConfigError
from rlhf_eval.runs.environment import ROOT, checkout, installed

SHOWN = 6
"""Differing packages in a line; the command of the cure names all."""
LIBRARIES = {
    "trl": "import trl.trainer.grpo_trainer, trl.trainer.rloo_trainer",
    "alpaca_eval": "import alpaca_eval",
}
"""What is imported late in a run, and what of it."""


def versions() -> Iterator[Finding]:
    """rlhf_eval itself and Python."""
    yield passed("rlhf-eval", own_version())
    from packaging.specifiers import SpecifierSet

    python, wanted = platform.python_version(), _metadata()["Requires-Python"] or ""
    if SpecifierSet(wanted).contains(python, prereleases=True):
        yield passed("Python", f"{python} (asked for: {wanted})")
    else:
        yield failure(
            "Python", f"{python}, asked for: {wanted}", f"Make the environment with a Python {wanted}."
        )


def requirements() -> Iterator[Finding]:
    """Whether every package that rlhf_eval asks for is there in a version that it takes."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    _metadata()
    here = installed()
    wanted = [Requirement(text) for text in requires(ROOT) or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    unmet = []
    for one in wanted:
        version = here.get(canonicalize_name(one.name))
        if version is None or not one.specifier.contains(version, prereleases=True):
            unmet.append((f"{one.name}{one.specifier}", version or "not installed"))
    if not unmet:
        yield passed("requirements", f"all {len(wanted)} met")
        return
    yield failure(
        "requirements",
        _shown([f"{text} is {version}" for text, version in unmet]),
        f"pip install {' '.join(repr(text) for text, _ in unmet)}",
    )


def lock(file: Path | None) -> Iterator[Finding]:
    """Whether the installed packages have the versions of a lock; without one, of that which comes with
    rlhf_eval."""
    chosen = file or shipped_lock()
    if chosen is None:
        yield skipped("lock", "no constraints.txt comes with this copy of rlhf_eval; --lock names another")
        return
    here = installed()
    pinned = {name: version for name, version in read_lock(chosen).items() if name != ROOT}
    present = {name: version for name, version in pinned.items() if name in here}
    differing = [name for name, version in present.items() if not _same(here[name], version)]
    absent = f", {len(pinned) - len(present)} of them not installed" if len(pinned) > len(present) else ""
    if not differing:
        yield passed("lock", f"as the {len(pinned)} of {chosen}{absent}")
        return
    yield warning(
        "lock",
        _shown([f"{name} {here[name]} instead of {pinned[name]}" for name in differing])
        + f" ({chosen}: {len(pinned)} packages{absent})",
        f"pip install {' '.join(f'{name}=={pinned[name]}' for name in differing)}",
    )


def library(name: str) -> Iterator[Finding]:
    """Whether a library can be imported."""
    probe(f"{LIBRARIES[name]}; print(1)")
    yield passed(name, f"{installed().get(name.replace('_', '-'))}, can be imported")


def own_version() -> str:
    """Version of rlhf_eval, and commit of the checkout that it runs from, if it does."""
    commit, diff = checkout()
    return f"{__version__} at {commit[:12]}{' and changes' if diff else ''}" if commit else __version__


def shipped_lock() -> Path | None:
    """The constraints that come with rlhf_eval: beside the package in a checkout, in it in a wheel."""
    package = Path(__file__).parents[1]
    places = (package.parent / "constraints.txt", package / "constraints.txt")
    return next((place for place in places if place.is_file()), None)


def read_lock(file: Path) -> dict[str, str]:
    """Version by package of the lines `name==version`, as `pip freeze`, pip's constraints and a run's
    requirements.txt have them; others (options, hashes, addresses) are passed over.

    Raises:
        ConfigError: the file is absent, or a line is no requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    if not file.is_file():
        raise ConfigError(f"There is no file {file}.", "Check the path after --lock.")
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.partition("#")[0].partition(" --")[0].rstrip("\\ ").strip()
        if not text or text.startswith("-"):
            continue
        try:
            one = Requirement(text)
        except InvalidRequirement:
            raise ConfigError(
                f"{file}, line {number} is no requirement: {text}.", "Write name==version, one a line."
            ) from None
        exact = [part.version for part in one.specifier if part.operator in ("==", "===")]
        if exact and (one.marker is None or one.marker.evaluate()):
            found[canonicalize_name(one.name)] = exact[0]
    return found


def _same(version: str, pinned: str) -> bool:
    """As pip compares: 2.13.0 in the lock takes 2.13.0+cpu, 2.13.0+cpu takes itself only."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(f"=={pinned}").contains(version, prereleases=True)


def _metadata() -> dict[str, str]:
    try:
        found = metadata(ROOT)
    except PackageNotFoundError:
        raise ConfigError(f"{ROOT} is not installed here.", "pip install -e . in its checkout.") from None
    return {"Requires-Python": found["Requires-Python"]}


def _shown(items: list[str]) -> str:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return "; ".join(items[:SHOWN]) + more
