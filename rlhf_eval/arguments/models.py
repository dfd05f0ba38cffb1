"""Arguments of the commands that look at reward models, benchmarks and verdicts apart from runs."""

from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import Parser, add_command, at_least, offers_json, share, takes_overrides


def reward(command: Any) -> None:
    """`rlhf-eval reward serve|score`."""
    reward = command(
        "reward",
        "Serve a reward model to training jobs, or score a file with it.",
        "rlhf-eval reward serve reward_model=skywork_v2_llama_8b --port 8700",
        "rlhf-eval reward score reward_model=lab_clean --input conversations.jsonl --output scores.jsonl",
    )
    actions = reward.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)

    def action(name: str, summary: str, *examples: str) -> Any:
        added = add_command(actions, name, summary, *examples)
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
    serve.add_argument("--port", type=at_least(0), default=8700, help="port (8700); 0 takes a free one")
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


def benchmark(command: Any) -> None:
    benchmark = command(
        "benchmark",
        "Measure the accuracy of a reward model, or of scores in a file, on benchmarks.",
        "rlhf-eval benchmark reward_model=skywork_v2_llama_8b benchmark=judgebench,rm_bench",
        "rlhf-eval benchmark benchmark=judgebench --data gpt.jsonl --scores scores.csv --json",
    )
    takes_overrides(benchmark)
    benchmark.add_argument(
        "--scores", metavar="FILE", help="CSV or JSON Lines with an id and scores, instead of a reward model"
    )
    benchmark.add_argument(
        "--data", type=Path, metavar="PATH", help="local copy of the published data, instead of the hub"
    )
    offers_json(benchmark)


def audit(command: Any) -> None:
    audit = command(
        "audit",
        "Collect the evidence on how far a reward model's benchmark numbers can be believed.",
        "rlhf-eval audit reward_model=skywork_v2_llama_8b benchmark=judgebench --panel skywork_v02_llama_8b",
        "rlhf-eval audit experiment=lab reward_model=lab_contaminated --panel lab_clean,lab_noisy",
    )
    takes_overrides(audit)
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
        "--ngram", type=at_least(7), default=13, metavar="N", help="words in a row that flag an item (13)"
    )
    audit.add_argument("--pattern", metavar="REGEX", help="artifact to take out, instead of the shipped ones")
    audit.add_argument("--replacement", default="", metavar="TEXT", help="what takes its place (nothing)")
    audit.add_argument("--where", default="both", metavar="PLACE", help="prompt, responses or both (default)")
    audit.add_argument(
        "--output", type=Path, metavar="DIR", help="folder (runs/EXPERIMENT/audit/REWARD_MODEL--BENCHMARKS)"
    )
    offers_json(audit)


def private(command: Any) -> None:
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


def score(command: Any) -> None:
    """`rlhf-eval score alpaca-eval|arena-hard`."""
    score = command(
        "score",
        "Score verdicts that were published, or made elsewhere, in the benchmarks' own formats; no network.",
        "rlhf-eval score alpaca-eval --annotations annotations.json --assets assets",
        "rlhf-eval score arena-hard --judgments judgments.jsonl --assets assets --json",
    )
    actions = score.add_subparsers(dest="action", required=True, metavar="BENCHMARK", parser_class=Parser)
    alpaca_eval = actions.add_parser(
        "alpaca-eval", help="win rate and length-controlled win rate of annotations", allow_abbrev=False
    )
    alpaca_eval.add_argument(
        "--annotations", required=True, metavar="FILE", help="AlpacaEval's annotations of one model"
    )
    alpaca_eval.add_argument(
        "--assets",
        type=Path,
        metavar="DIR",
        help="folder with alpaca_eval_gpt4_baseline.json, instruction_difficulty.csv and df_gamed.csv; "
        "without it the length-controlled fit has neither difficulty nor regulariser",
    )
    arena_hard = actions.add_parser(
        "arena-hard", help="plain and style-controlled scores of judgments", allow_abbrev=False
    )
    arena_hard.add_argument(
        "--judgments", required=True, metavar="FILE", help="Arena-Hard's judgments of one model"
    )
    arena_hard.add_argument(
        "--assets",
        type=Path,
        metavar="DIR",
        help="folder with question.jsonl and model_answer/; without it scores are not style-controlled",
    )
    for action in (alpaca_eval, arena_hard):
        action.add_argument(
            "--max-failed-share",
            type=share,
            default=0.02,
            metavar="SHARE",
            help="above this share of failed verdicts the score is refused (0.02)",
        )
        offers_json(action)
