"""Arguments of `rlhf-eval table`."""

from pathlib import Path
from typing import Any


def table(command: Any) -> None:
    table = command(
        "table",
        "Write all runs as one table, a row per run and checkpoint.",
        "rlhf-eval table runs/lab > lab.csv",
        "rlhf-eval table runs --format parquet --output runs.parquet",
        "rlhf-eval table runs/lab --columns --format md",
    )
    table.add_argument(
        "experiment_folder",
        type=Path,
        metavar="EXPERIMENT_FOLDER",
        help="or a folder of experiments, or one run's directory",
    )
    table.add_argument(
        "--format",
        choices=("csv", "parquet", "json", "md"),
        default="csv",
        help="csv (default), parquet, json (a list of rows) or md (Markdown)",
    )
    table.add_argument("--output", type=Path, metavar="FILE", help="file (standard output)")
    table.add_argument(
        "--columns", action="store_true", help="write type, unit and meaning of its columns instead"
    )
