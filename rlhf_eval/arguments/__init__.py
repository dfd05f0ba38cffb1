"""The arguments of every command, with their help and examples."""

import argparse
from functools import partial
from pathlib import Path

from rlhf_eval import __version__
from rlhf_eval.arguments import (
    correlate,
    doctor,
    frontier,
    models,
    power,
    reproduction,
    start,
    sweeps,
    table,
)
from rlhf_eval.arguments.kit import (
    Parser,
    add_command,
    at_least,
    not_negative,
    offers_json,
    shown,
    takes_overrides,
    takes_ranking,
)


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and that of each command by name (`reward serve` for an action)."""
    parser = Parser(
        prog="rlhf-eval",
        description="Trains policies against reward models, scores the policies, ranks the reward models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=shown(
            "rlhf-eval demo",
            "rlhf-eval run experiment=lab reward_model=lab_clean seed=3",
            "rlhf-eval rank runs/lab",
        ),
    )
    parser.add_argument("--version", action="version", version=f"rlhf-eval {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    command = partial(add_command, subparsers)

    demo = command(
        "demo",
        "Train and rank eight reward models on the embedded lab; a second call does only what is missing.",
        "rlhf-eval demo",
        "rlhf-eval demo --lab-seed 1 --seeds 3",
    )
    demo.add_argument(
        "--lab-seed", type=at_least(0), default=0, metavar="N", help="seed of the lab's world (0)"
    )
    demo.add_argument("--seeds", type=at_least(1), default=2, metavar="N", help="training seeds (2)")
    demo.add_argument("--jobs", type=at_least(1), default=2, metavar="N", help="runs side by side (2)")
    demo.add_argument("--output", default="runs", metavar="DIR", help="folder of experiments (runs)")
    demo.add_argument("--experiment", metavar="NAME", help="folder in it (lab, or lab_N with --lab-seed N)")

    run = command(
        "run",
        "Execute one run; the same command continues after an interruption.",
        "rlhf-eval run experiment=lab reward_model=lab_clean seed=3",
        "rlhf-eval run reward_model=skywork_v2_llama_8b policy=tulu3_8b_sft algorithm.steps=200",
    )
    takes_overrides(run)
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="run directory (output/experiment/<name>)")
    run.add_argument(
        "-m", "--multirun", action="store_true", help="Hydra's multirun: several values, Hydra's launchers"
    )
    sweeps.takes_frozen(run)

    sweeps.sweep(command)

    rank = command(
        "rank",
        "Rank the reward models of an experiment, with intervals.",
        "rlhf-eval rank runs/lab",
        "rlhf-eval rank runs/lab --metric arena_hard.score --json",
    )
    takes_ranking(rank)
    offers_json(rank)

    plot = command(
        "plot",
        "Write the figures of an experiment (PNG, SVG, PDF, CSV).",
        "rlhf-eval plot runs/lab --output figures",
    )
    takes_ranking(plot)
    plot.add_argument("--output", type=Path, metavar="DIR", help="folder (EXPERIMENT_FOLDER/figures)")

    report = command(
        "report",
        "Write an experiment's report, one HTML page.",
        "rlhf-eval report runs/lab --output lab.html",
    )
    takes_ranking(report)
    report.add_argument("--output", type=Path, metavar="FILE", help="page (EXPERIMENT_FOLDER/report.html)")

    checkpoints = command(
        "checkpoints",
        "Compare the runs of an experiment where training ended, at their peak, and at equal KL.",
        "rlhf-eval checkpoints runs/lab",
        "rlhf-eval checkpoints runs/lab --kl 4 --json",
    )
    checkpoints.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    checkpoints.add_argument(
        "--kl",
        type=not_negative,
        metavar="NATS",
        help="KL divergence from the initial policy at which to compare (the largest that every trained run "
        "reaches, controls aside)",
    )
    offers_json(checkpoints)

    frontier.frontier(command)
    table.table(command)

    sweeps.status(command)
    sweeps.cancel(command)
    sweeps.logs(command)

    ls = command(
        "ls",
        "List experiments, or the choices that a configuration has.",
        "rlhf-eval ls",
        "rlhf-eval ls --configs",
        "rlhf-eval ls --configs reward_model --json",
    )
    ls.add_argument("output_folder", type=Path, nargs="?", default=Path("runs"), metavar="OUTPUT_FOLDER")
    ls.add_argument(
        "--configs", nargs="?", const="", metavar="GROUP", help="list configuration choices instead"
    )
    offers_json(ls)

    validate = command(
        "validate",
        "Check a run's configuration without running it, or load one reward model and check its scores.",
        "rlhf-eval validate experiment=lab reward_model=lab_clean",
        "rlhf-eval validate reward_model=lab_clean",
        "rlhf-eval validate experiment=lab reward_model=random algorithm.steps=10 --json",
    )
    takes_overrides(validate)
    offers_json(validate)

    correlate.correlate(command)
    models.reward(command)
    models.benchmark(command)
    models.audit(command)
    models.private(command)
    models.score(command)
    power.power(command)
    power.judge(command)
    reproduction.reproduce(command)
    reproduction.diff(command)
    reproduction.export(command)
    reproduction.import_(command)
    doctor.doctor(command)
    start.init(command)
    start.completion(command)
    commands = dict(subparsers.choices)
    for group in ("reward", "private", "score"):
        actions = next(a for a in commands[group]._actions if isinstance(a, argparse._SubParsersAction))
        commands |= {f"{group} {name}": subparser for name, subparser in actions.choices.items()}
    for subparser in commands.values():
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, commands
