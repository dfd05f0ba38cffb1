"""Arguments of the commands that say how much to measure, and stop when it is enough."""

import argparse
from math import inf
from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import at_least, not_negative, offers_json


def power(command: Any) -> None:
    power = command(
        "power",
        "Say how many seeds, prompts and reward models separate a difference, and the cheapest way to it.",
        "rlhf-eval power --difference 5 --reward-models 10",
        "rlhf-eval power runs/lab --difference 3 --compare best --run-cost 16 --prompt-cost 0.01",
        "rlhf-eval power --seed-sd 1 --prompt-sd 15 --residual-sd 25 --prompts 500 --json",
    )
    power.add_argument(
        "experiment_folder",
        type=Path,
        nargs="?",
        metavar="EXPERIMENT_FOLDER",
        help="a pilot, from whose runs the spreads are estimated; without one they are a prior",
    )
    power.add_argument(
        "--difference", type=positive, default=2.0, metavar="POINTS", help="to be separated, of percent (2)"
    )
    power.add_argument(
        "--power", type=probability, default=0.8, metavar="SHARE", help="probability of separating it (0.8)"
    )
    power.add_argument(
        "--level", type=probability, default=0.05, metavar="SHARE", help="of all comparisons together (0.05)"
    )
    power.add_argument(
        "--reward-models", type=at_least(2), metavar="N", help="how many are compared (the pilot's, or 10)"
    )
    power.add_argument(
        "--compare",
        choices=("pairs", "best"),
        default="pairs",
        help="every pair with every other (pairs), or one reward model with each of the others (best)",
    )
    power.add_argument(
        "--prompts", type=at_least(2), metavar="N", help="that the set has (the pilot's, or AlpacaEval's 805)"
    )
    power.add_argument(
        "--metric",
        default="alpaca_eval.win_rate",
        metavar="NAME",
        help="of the pilot, as in `rlhf-eval rank` (alpaca_eval.win_rate)",
    )
    power.add_argument(
        "--seed-sd",
        type=not_negative,
        metavar="POINTS",
        help="spread of a score between seeds (the pilot's, or 1.5)",
    )
    power.add_argument(
        "--prompt-sd",
        type=not_negative,
        metavar="POINTS",
        help="spread over prompts of a reward model's own strengths (the pilot's, or 20)",
    )
    power.add_argument(
        "--residual-sd",
        type=not_negative,
        metavar="POINTS",
        help="spread of one seed's value on one prompt beyond both (the pilot's, or 22)",
    )
    power.add_argument(
        "--run-cost", type=not_negative, default=1.0, metavar="COST", help="of a training run, any unit (1)"
    )
    power.add_argument(
        "--prompt-cost",
        type=not_negative,
        default=0.0,
        metavar="COST",
        help="of an answered and judged prompt of one run, same unit (0)",
    )
    offers_json(power)


def judge(command: Any) -> None:
    judge = command(
        "judge",
        "Judge the answers of an experiment's runs prompt by prompt until a question is settled.",
        "rlhf-eval judge runs/lab --until best",
        "rlhf-eval judge runs/lab --until top:3 --level 0.01",
        "rlhf-eval judge runs/lab judge.budget=20 --until untrained --batch 25",
    )
    judge.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    judge.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="of fields that change no results, such as judge.base_url=… or judge.input_price=2",
    )
    judge.add_argument(
        "--until",
        required=True,
        metavar="QUESTION",
        help="best: which reward model is first; top:K: which are the first K; order: the order of all; "
        "untrained: which are better than the untrained policy, and which worse",
    )
    judge.add_argument(
        "--level",
        type=probability,
        default=0.05,
        metavar="SHARE",
        help="probability that the answer is not what all prompts would say (0.05)",
    )
    judge.add_argument(
        "--batch", type=at_least(1), default=50, metavar="N", help="prompts judged before each look (50)"
    )
    judge.add_argument(
        "--order-seed", type=at_least(0), default=0, metavar="N", help="of the order of prompts (0)"
    )
    offers_json(judge)


def positive(text: str) -> float:
    number = not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return number


def probability(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = inf
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return number
