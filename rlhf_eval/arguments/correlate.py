"""The arguments of `rlhf-eval correlate`."""

from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import offers_json, weighted


def correlate(command: Any) -> None:
    parser = command(
        "correlate",
        "Correlate a benchmark with a downstream score, of an experiment or of any table.",
        "rlhf-eval correlate runs/lab",
        "rlhf-eval correlate runs/lab --benchmark lab_public,lab_private --metric arena_hard.score",
        "rlhf-eval correlate --table results.csv --x rewardbench2 --y ppo_average --group base_model --json",
    )
    parser.add_argument("experiment_folders", type=Path, nargs="*", metavar="EXPERIMENT_FOLDER")
    parser.add_argument(
        "--benchmark", metavar="NAME[,NAME]", help="benchmark, or several to average (the experiment's first)"
    )
    parser.add_argument(
        "--metric",
        type=weighted,
        metavar="NAME[=WEIGHT],…",
        help="downstream score, as `rlhf-eval rank` has it (alpaca_eval.win_rate)",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="a CSV file instead of an experiment")
    parser.add_argument("--x", metavar="COLUMN", help="its column of benchmark results")
    parser.add_argument("--y", metavar="COLUMN", help="its column of downstream scores")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="its column of groups, such as lineage: without each, within, across",
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="its column of names (the first of distinct texts, or row numbers)"
    )
    offers_json(parser)
