"""Arguments of the commands that reproduce a run, compare two, and pack one for somebody else."""

from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import offers_json


def reproduce(command: Any) -> None:
    reproduce = command(
        "reproduce",
        "Execute a run's frozen configuration again, and say stage by stage whether the same came out.",
        "rlhf-eval reproduce runs/lab/<run>",
        "rlhf-eval reproduce run.tar.gz --strict",
        "rlhf-eval reproduce runs/lab/<run> --stage judge",
        "rlhf-eval reproduce runs/lab/<run> seed=4",
    )
    reproduce.add_argument(
        "source", type=Path, metavar="RUN", help="run directory, its config.yaml, or an exported archive"
    )
    reproduce.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="field.path=value of the frozen configuration"
    )
    reproduce.add_argument(
        "--run-dir", type=Path, metavar="DIR", help="directory (output/<experiment>-reproduced/<run name>)"
    )
    reproduce.add_argument(
        "--strict",
        action="store_true",
        help="refuse where configuration, environment, revisions or data differ",
    )
    reproduce.add_argument(
        "--trust",
        action="store_true",
        help="execute the programs and ask the servers that an archive's configuration names",
    )
    reproduce.add_argument(
        "--stage",
        choices=("judge",),
        help="judge: take the stored answers, judge and score them again",
    )
    offers_json(reproduce)


def diff(command: Any) -> None:
    diff = command(
        "diff",
        "Compare two runs: configuration, environment, data, every stage's results.",
        "rlhf-eval diff runs/lab/<run> runs/lab-reproduced/<run>",
    )
    diff.add_argument("first", type=Path, metavar="RUN_A")
    diff.add_argument("second", type=Path, metavar="RUN_B")
    offers_json(diff)


def export(command: Any) -> None:
    export = command(
        "export",
        "Pack what reproduces a run into one archive, without weights, secrets or private prompts.",
        "rlhf-eval export runs/lab/<run> --output run.tar.gz",
    )
    export.add_argument("run", type=Path, metavar="RUN")
    export.add_argument("--output", type=Path, metavar="FILE", help="archive (<run name>.tar.gz)")


def import_(command: Any) -> None:
    unpack = command(
        "import",
        "Unpack an exported run, every file checked against its hash.",
        "rlhf-eval import run.tar.gz",
    )
    unpack.add_argument("archive", type=Path, metavar="FILE")
    unpack.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="folder (runs)")
