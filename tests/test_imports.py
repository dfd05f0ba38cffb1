"""Arrows point down only; commands that do little load little; what is imported is declared."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rlhf_eval"
BASE = {
    "addresses",
    "errors",
    "keys",
    "learning",
    "interruption",
    "files",
    "records",
    "registry",
    "progress",
    "processes",
    "determinism",
    "config",
    "sources",
}
WORK = {"training", "generation", "judging", "rewards", "benchmarks", "audit", "lab"}
ALLOWED = {
    "addresses": set(),
    "keys": set(),
    "errors": {"keys"},
    "interruption": set(),
    "records": set(),
    "learning": set(),
    "progress": set(),
    "processes": set(),
    "determinism": set(),
    "preload": set(),
    "starter": set(),
    "registry": {"errors"},
    "files": {"errors"},
    "config": {"errors", "files", "keys", "records", "registry"},
    "sources": {"errors", "files", "records", "config"},
    **dict.fromkeys(WORK, BASE | WORK),
    "analysis": {"config", "records", "learning", "errors", "files"},
    "runs": BASE | WORK,
    "sweep": BASE | WORK | {"runs"},
    "doctor": BASE | WORK | {"runs"},
    "commands": BASE | WORK | {"runs", "sweep", "doctor", "analysis"},
    "arguments": {"errors", "config"},
    "cli": {"arguments", "errors", "interruption", "keys"},
    "__main__": {"cli"},
}
HEAVY = {
    "torch",
    "transformers",
    "trl",
    "pandas",
    "matplotlib",
    "pydantic",
    "hydra",
    "rich",
    "numpy",
    "openai",
}


def imported(file: Path) -> set[str]:
    """Every module that a file imports anywhere in it, dotted."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            assert node.module is not None
            found.add(node.module)
            if node.module == "rlhf_eval":
                found |= {f"rlhf_eval.{alias.name}" for alias in node.names}
    return found


def part(file: Path) -> str:
    """The part of the project that a file belongs to: its package, or its own name at the top."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def arrows() -> dict[str, set[str]]:
    """Part → parts that it imports."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        modules = {name.split(".")[1] for name in imported(file) if name.startswith("rlhf_eval.")}
        found.setdefault(part(file), set()).update(modules - {part(file), "__version__"})
    return found


def test_arrows_point_down_only() -> None:
    for name, targets in arrows().items():
        if name != "__init__":
            wrong = targets - ALLOWED[name]
            assert not wrong, f"{name} must not import {sorted(wrong)}"


def test_parts_of_one_layer_have_no_circle() -> None:
    TopologicalSorter(arrows()).prepare()


def test_analysis_never_imports_torch() -> None:
    for file in (PACKAGE / "analysis").rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(file)}
        assert not roots & {"torch", "transformers", "trl", "datasets"}, file


def loaded_by(arguments: list[str]) -> tuple[set[str], int]:
    """The modules that a command line loads, and its exit code."""
    program = (
        "import sys; from rlhf_eval.cli import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as end: code = end.code\n"
        "print('\\n' + ' '.join(sys.modules), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    *modules, code = done.stdout.splitlines()[-1].split()
    return set(modules), int(code)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"], ["rnk"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    modules, _ = loaded_by(arguments)
    assert not HEAVY & modules


def test_a_configuration_is_checked_without_loading_torch() -> None:
    modules, code = loaded_by(["validate", "experiment=lab", "reward_model=lab_clean", "--json"])
    assert code == 0
    assert not {"torch", "transformers", "trl", "pandas", "matplotlib"} & modules


def test_every_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [name for group in project["optional-dependencies"].values() for name in group]
    declared = {normal(re.split(r"[<>=\[; ]", name)[0]) for name in [*project["dependencies"], *extras]}
    distributions = packages_distributions()
    for file in PACKAGE.rglob("*.py"):
        for root in {name.split(".")[0] for name in imported(file)} - sys.stdlib_module_names - {"rlhf_eval"}:
            names = {normal(name) for name in distributions.get(root, [root])}
            assert names & declared, f"{file} imports {root}, which pyproject.toml does not declare"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
