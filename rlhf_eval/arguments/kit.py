"""What the arguments of several commands have in common."""

import argparse
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from rlhf_eval.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Shows usage errors as every other error is shown."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].upper()}{message[1:]}.", f"See `{self.prog} --help`.")


def add_command(subparsers: Any, name: str, summary: str, *examples: str) -> Any:
    """A command, or an action of one, with its summary and examples in its help."""
    return subparsers.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=shown(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def shown(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def takes_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="group=choice or field.path=value; `rlhf-eval ls --configs` lists groups and choices",
    )
    parser.add_argument("--experiment", metavar="NAME", help="folder below output (the experiment's own)")


def takes_ranking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "experiment_folders",
        type=Path,
        nargs="+",
        metavar="EXPERIMENT_FOLDER",
        help="several: one for each policy base and algorithm, averaged",
    )
    parser.add_argument(
        "--metric",
        type=weighted,
        default={"alpaca_eval.win_rate": 1.0},
        metavar="NAME[=WEIGHT],…",
        help="alpaca_eval.win_rate (default), alpaca_eval.length_controlled_win_rate, arena_hard.score, "
        "arena_hard.style_controlled_score; several are averaged",
    )
    parser.add_argument("--benchmark", metavar="NAME", help="benchmark beside it (the experiment's first)")


def offers_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {minimum} on")
        return int(text)

    return number


def not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < inf:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 on")
    return number


def weighted(text: str) -> dict[str, float]:
    """`a,b=2` as names with weights; 1 where none is given."""
    found = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        found[name.strip()] = not_negative(weight or "1")
        if not found[name.strip()]:
            raise argparse.ArgumentTypeError(f"'{part}' has no weight above 0")
    return found


def share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no share from 0 to 1")
    return number
