"""The arguments of every command, with their help and examples."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rlhf_eval import __version__
from rlhf_eval.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """Shows usage errors as every other error is shown."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[0].upper()}{message[1:]}.", f"See `{self.prog} --help`.")


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and that of each command by name (`reward serve` for an action)."""
    parser = Parser(
        prog="rlhf-eval",
        description="Trains policies against reward models, scores the policies, ranks the reward models.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_examples(
            "rlhf-eval demo",
            "rlhf-eval run experiment=lab reward_model=lab_clean seed=3",
            "rlhf-eval rank runs/lab",
        ),
    )
    parser.add_argument("--version", action="version", version=f"rlhf-eval {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, summary: str, *examples: str) -> Any:
        return subparsers.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=_examples(*examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    demo = command(
        "demo",
        "Train and rank nine reward models on the embedded lab; a second call does only what is missing.",
        "rlhf-eval demo",
        "rlhf-eval demo --lab-seed 1 --seeds 3",
    )
    demo.add_argument(
        "--lab-seed", type=_at_least(0), default=0, metavar="N", help="seed of the lab's world (0)"
    )
    demo.add_argument("--seeds", type=_at_least(1), default=2, metavar="N", help="training seeds (2)")
    demo.add_argument("--jobs", type=_at_least(1), default=2, metavar="N", help="runs side by side (2)")
    demo.add_argument("--output", default="runs", metavar="DIR", help="folder of experiments (runs)")
    demo.add_argument("--experiment", metavar="NAME", help="folder in it (lab, or lab_N with --lab-seed N)")

    run = command(
        "run",
        "Execute one run; the same command continues after an interruption.",
        "rlhf-eval run experiment=lab reward_model=lab_clean seed=3",
        "rlhf-eval run reward_model=skywork_v2_llama_8b policy=tulu3_8b_sft algorithm.steps=200",
    )
    _takes_overrides(run)
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="run directory (output/experiment/<name>)")

    rank = command(
        "rank",
        "Rank the reward models of an experiment, with intervals.",
        "rlhf-eval rank runs/lab",
        "rlhf-eval rank runs/lab --metric arena_hard.score --json",
    )
    _takes_ranking(rank)
    _offers_json(rank)

    plot = command(
        "plot",
        "Write the figures of an experiment (PNG, SVG, CSV).",
        "rlhf-eval plot runs/lab --output figures",
    )
    _takes_ranking(plot)
    plot.add_argument("--output", type=Path, metavar="DIR", help="folder (EXPERIMENT_FOLDER/figures)")

    report = command(
        "report",
        "Write an experiment's report, one HTML page.",
        "rlhf-eval report runs/lab --output lab.html",
    )
    _takes_ranking(report)
    report.add_argument("--output", type=Path, metavar="FILE", help="page (EXPERIMENT_FOLDER/report.html)")

    status = command(
        "status",
        "Show where every run of an experiment is.",
        "rlhf-eval status runs/lab",
        "rlhf-eval status runs/lab --json",
    )
    status.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    _offers_json(status)

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
    _offers_json(ls)

    validate = command(
        "validate",
        "Check a run's configuration without running it, or load one reward model and check its scores.",
        "rlhf-eval validate experiment=lab reward_model=lab_clean",
        "rlhf-eval validate reward_model=lab_clean",
        "rlhf-eval validate experiment=lab reward_model=random algorithm.steps=10 --json",
    )
    _takes_overrides(validate)
    _offers_json(validate)

    _reward(command)
    _benchmark(command)
    _audit(command)
    _private(command)
    commands = dict(subparsers.choices)
    for group in ("reward", "private"):
        actions = next(a for a in commands[group]._actions if isinstance(a, argparse._SubParsersAction))
        commands |= {f"{group} {name}": subparser for name, subparser in actions.choices.items()}
    for subparser in commands.values():
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, commands


def _reward(command: Any) -> None:
    """`rlhf-eval reward serve|score`."""
    reward = command(
        "reward",
        "Serve a reward model to training jobs, or score a file with it.",
        "rlhf-eval reward serve reward_model=skywork_v2_llama_8b --port 8700",
        "rlhf-eval reward score reward_model=lab_clean --input conversations.jsonl --output scores.jsonl",
    )
    actions = reward.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)

    def action(name: str, summary: str, *examples: str) -> Any:
        added = actions.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip("."),
            description=summary,
            epilog=_examples(*examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.add_argument(
            "overrides", nargs="*", metavar="OVERRIDE", help="reward_model=NAME or field=value"
        )
        return added

    serve = action(
        "serve",
        "Serve a reward model over HTTP until it is told to stop (SIGTERM, Ctrl-C).",
        "rlhf-eval reward serve reward_model=skywork_v2_llama_8b --port 8700",
        "RLHF_EVAL_REWARD_TOKEN=… rlhf-eval reward serve reward_model=lab_clean --host 0.0.0.0",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=_at_least(0), default=8700, help="port (8700); 0 takes a free one")
    score = action(
        "score",
        "Score every conversation of a file; the same command continues after an interruption.",
        "rlhf-eval reward score reward_model=lab_clean --input conversations.jsonl --output scores.jsonl",
    )
    score.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="rows with messages, with prompt and completion, or with prompt and completions",
    )
    score.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="rows with id, score, valid"
    )


def _benchmark(command: Any) -> None:
    benchmark = command(
        "benchmark",
        "Measure the accuracy of a reward model, or of scores in a file, on benchmarks.",
        "rlhf-eval benchmark reward_model=skywork_v2_llama_8b benchmark=judgebench,rm_bench",
        "rlhf-eval benchmark benchmark=judgebench --data gpt.jsonl --scores scores.csv --json",
    )
    _takes_overrides(benchmark)
    benchmark.add_argument(
        "--scores", metavar="FILE", help="CSV or JSON Lines with an id and scores, instead of a reward model"
    )
    benchmark.add_argument(
        "--data", type=Path, metavar="PATH", help="local copy of the published data, instead of the hub"
    )
    _offers_json(benchmark)


def _audit(command: Any) -> None:
    audit = command(
        "audit",
        "Collect the evidence on how far a reward model's benchmark numbers can be believed.",
        "rlhf-eval audit reward_model=skywork_v2_llama_8b benchmark=judgebench --panel skywork_v02_llama_8b",
        "rlhf-eval audit experiment=lab reward_model=lab_contaminated --panel lab_clean,lab_noisy",
    )
    _takes_overrides(audit)
    audit.add_argument(
        "--panel", default="", metavar="NAMES", help="reward models with open data to compare with: a,b,c"
    )
    audit.add_argument(
        "--data", type=Path, metavar="PATH", help="local copy of the published data, instead of the hub"
    )
    audit.add_argument(
        "--training-data",
        action="append",
        default=[],
        metavar="SOURCE",
        help="file, folder or hub source to search, beside card.training_sources; may be repeated",
    )
    audit.add_argument(
        "--ngram", type=_at_least(7), default=13, metavar="N", help="words in a row that flag an item (13)"
    )
    audit.add_argument("--pattern", metavar="REGEX", help="artifact to take out, instead of the shipped ones")
    audit.add_argument("--replacement", default="", metavar="TEXT", help="what takes its place (nothing)")
    audit.add_argument("--where", default="both", metavar="PLACE", help="prompt, responses or both (default)")
    audit.add_argument(
        "--output", type=Path, metavar="DIR", help="folder (runs/EXPERIMENT/audit/REWARD_MODEL)"
    )
    _offers_json(audit)


def _private(command: Any) -> None:
    """`rlhf-eval private seal|find`."""
    private = command(
        "private",
        "Seal a private benchmark with a canary, or look where it has leaked to.",
        "rlhf-eval private seal secret/pairs.jsonl",
        "rlhf-eval private find secret/pairs.jsonl runs corpora/train.jsonl",
    )
    actions = private.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    seal = actions.add_parser(
        "seal", help="put a canary into every row, make the salt, and print the canary", allow_abbrev=False
    )
    find = actions.add_parser(
        "find",
        help="print files that hold the canary or a text of the set; exit code 1 if any",
        allow_abbrev=False,
    )
    for action in (seal, find):
        action.add_argument("file", type=Path, metavar="FILE", help="rows of id, prompt, chosen, rejected")
    find.add_argument("places", type=Path, nargs="+", metavar="PLACE", help="files and folders to look in")


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _takes_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="group=choice or field.path=value; `rlhf-eval ls --configs` lists groups and choices",
    )
    parser.add_argument("--experiment", metavar="NAME", help="folder below output (the experiment's own)")


def _takes_ranking(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    parser.add_argument(
        "--metric",
        default="alpaca_eval.win_rate",
        metavar="NAME",
        help="alpaca_eval.win_rate (default), alpaca_eval.length_controlled_win_rate or arena_hard.score",
    )
    parser.add_argument("--benchmark", metavar="NAME", help="benchmark beside it (the experiment's first)")


def _offers_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {minimum} on")
        return int(text)

    return number
