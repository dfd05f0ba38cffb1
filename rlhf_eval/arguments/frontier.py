"""Arguments of `rlhf-eval frontier`."""

from pathlib import Path
from typing import Any

from rlhf_eval.arguments.kit import not_negative, offers_json


def frontier(command: Any) -> None:
    frontier = command(
        "frontier",
        "Fit gold and proxy reward over the distance from the initial policy, and compare at equal KL.",
        "rlhf-eval frontier runs/lab",
        "rlhf-eval frontier runs/lab --kl 4 --json",
    )
    frontier.add_argument("experiment_folder", type=Path, metavar="EXPERIMENT_FOLDER")
    frontier.add_argument(
        "--kl",
        type=not_negative,
        metavar="NATS",
        help="KL divergence from the initial policy at which to compare (the largest that every run reaches, "
        "controls aside)",
    )
    offers_json(frontier)
