"""`rlhf-eval score`."""

import sys
from argparse import Namespace
from typing import Any

from rlhf_eval.commands.show import print_json, print_table


def score(options: Namespace) -> int:
    """Scores of verdicts in a published format."""
    row = _alpaca_eval(options) if options.action == "alpaca-eval" else _arena_hard(options)
    if options.json:
        return print_json(row)
    parts = row.pop("categories", {})
    place = {"leaderboard": _place(row["leaderboard"])} if row.get("leaderboard") else {}
    _show(row | place)
    for name, part in parts.items():
        _show({"category": name} | part)
    return 0


def _alpaca_eval(options: Namespace) -> dict[str, Any]:
    from rlhf_eval.judging import leaderboard
    from rlhf_eval.judging.alpaca_eval_files import score_annotations

    found = score_annotations(options.annotations, options.assets, options.max_failed_share)
    row = found.as_json()
    if not found.regularised:
        print(f"note: {_why_not_regularised(row, options.assets is None)}", file=sys.stderr)
    # Published ranks are over all prompts, and their length-controlled rates are regularised.
    comparable = row if found.regularised else {"win_rate": row["win_rate"]}
    place = options.assets and leaderboard.position(comparable, row["judge"], row["baseline"], row["model"])
    return row | {"leaderboard": place.as_json() if place else None}


def _why_not_regularised(row: dict[str, Any], no_assets: bool) -> str:
    from rlhf_eval.judging.alpaca_eval_files import FITTED_ANNOTATOR, FITTED_BASELINE

    if no_assets:
        return "without --assets the length-controlled fit has neither difficulty nor regulariser"
    return (
        f"the length-controlled fit has no regulariser: that belongs to {FITTED_ANNOTATOR} against "
        f"{FITTED_BASELINE}; these are of {row['judge'] or 'no named annotator'} against "
        f"{row['baseline'] or 'no named baseline'}"
    )


def _arena_hard(options: Namespace) -> dict[str, Any]:
    from rlhf_eval.judging.arena_hard_files import score_judgments

    return score_judgments(options.judgments, options.assets, options.max_failed_share)


def _place(place: dict[str, Any]) -> str:
    def names(entries: list[dict[str, Any]]) -> str:
        return ", ".join(f"{entry['model']} {entry['score']:.2f}" for entry in entries) or "none"

    return (
        f"rank {place['rank']} of {place['of']} by {place['metric'].replace('_', ' ')}\n"
        f"above: {names(place['above'])}\nbelow: {names(place['below'])}"
    )


def _show(row: dict[str, Any]) -> None:
    print_table(("", ""), [(name.replace("_", " "), _cell(value)) for name, value in row.items()])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(part)}" for name, part in value.items())
    return value
