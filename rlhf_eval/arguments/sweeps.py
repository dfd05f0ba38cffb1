"""Arguments of the commands for many runs."""

import argparse
from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import at_least, offers_json, takes_overrides

STAGES = ("benchmark", "train", "generate", "judge", "score")
STATES = ("pending", "queued", "running", "interrupted", "cancelled", "failed", "done", "damaged")


def sweep(command: Any) -> None:
    sweep = command(
        "sweep",
        "Submit every combination of values to SLURM and return; what is finished or queued is left alone.",
        "rlhf-eval sweep experiment=lab reward_model=lab_clean,random seed=0,1,2 cluster=slurm --dry-run",
        "rlhf-eval sweep 'reward_model=glob(skywork_v2_*)' policy=tulu3_8b_sft accelerate=zero3 "
        "cluster.jobs.train.partition=h100",
        "rlhf-eval sweep --resume runs/lab",
        "rlhf-eval sweep experiment=lab reward_model=lab_clean,random seed=0,1 --local 2",
    )
    takes_overrides(sweep)
    sweep.add_argument(
        "--resume",
        type=Path,
        metavar="EXPERIMENT_FOLDER",
        help="the runs of a folder as they are frozen there, instead of overrides: only what is missing",
    )
    sweep.add_argument(
        "--dry-run", action="store_true", help="show runs, jobs, scripts and costs; submit nothing"
    )
    sweep.add_argument(
        "--local", type=at_least(1), metavar="N", help="execute the same jobs on this machine, N at a time"
    )
    offers_json(sweep)


def takes_frozen(run: argparse.ArgumentParser) -> None:
    """What a sweep's jobs call `rlhf-eval run` with."""
    run.add_argument(
        "--frozen",
        type=Path,
        metavar="RUN_DIRECTORY",
        help="execute the run as it is frozen there; overrides may then only set what changes no results",
    )
    run.add_argument(
        "--stages",
        type=_stages,
        metavar="NAMES",
        help=f"only these, of {','.join(STAGES)}; what they need must be done",
    )
    run.add_argument(
        "--address",
        type=_address,
        action="append",
        default=[],
        metavar="FIELD=FILE",
        help="of --frozen: take a field such as judge.base_url from a file, waiting until it is there",
    )
    run.add_argument(
        "--max-attempts",
        type=at_least(1),
        metavar="N",
        help="of --frozen: give up where SLURM restarts it more often",
    )


def status(command: Any) -> None:
    status = command(
        "status",
        "Show where every run of an experiment is, in its folder and in SLURM's queue.",
        "rlhf-eval status runs/lab",
        "rlhf-eval status runs/lab --state failed",
        "rlhf-eval status runs/lab --watch",
        "rlhf-eval status runs/lab --json",
    )
    status.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    status.add_argument("--state", choices=STATES, help="only runs in this state")
    status.add_argument(
        "--watch",
        type=at_least(1),
        nargs="?",
        const=30,
        metavar="SECONDS",
        help="show it anew every so many seconds (30) until all have ended",
    )
    offers_json(status)


def cancel(command: Any) -> None:
    cancel = command(
        "cancel",
        "Take an experiment's jobs, or those of single runs, out of SLURM's queue; runs save and stop.",
        "rlhf-eval cancel runs/lab",
        "rlhf-eval cancel runs/lab lab_clean--lab--grpo_lab--s0--25e1f0f4",
    )
    cancel.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    cancel.add_argument("runs", nargs="*", metavar="RUN", help="names of runs (all)")


def logs(command: Any) -> None:
    logs = command(
        "logs",
        "Print the logs of a run: those of its newest job and of its newest attempt.",
        "rlhf-eval logs runs/lab/lab_clean--lab--grpo_lab--s0--25e1f0f4",
        "rlhf-eval logs runs/lab/lab_clean--lab--grpo_lab--s0--25e1f0f4 -f",
    )
    logs.add_argument("run", type=Path, metavar="RUN_DIRECTORY")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until the run has ended")


def _address(text: str) -> tuple[str, Path]:
    field, mark, file = text.partition("=")
    if not mark:
        raise argparse.ArgumentTypeError(f"'{text}' is not FIELD=FILE")
    return field, Path(file)


def _stages(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in STAGES]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no stage ({', '.join(STAGES)})")
    return names
