"""`rlhf-eval checkpoints`: every run where its training ended, at its peak, and at equal KL."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rlhf_eval.commands.show import console, print_json

PLACES = ("last", "peak", "equal_kl")
MEASURES = {
    "step": "step",
    "kl": "KL",
    "proxy_reward": "proxy",
    "gold_reward": "gold",
    "length_tokens": "length",
}
"""What is shown of a place on a curve, and its short name in the table."""


def checkpoints(options: Namespace) -> int:
    from rlhf_eval.analysis.experiment import experiment_kl, grid_choices, read_runs
    from rlhf_eval.analysis.selection import choices_in_words
    from rlhf_eval.config.grid import grid_points

    runs = read_runs(options.experiment_folder)
    kl = experiment_kl(runs) if options.kl is None else options.kl
    notes = [_kl_in_words(kl, given=options.kl is not None)]
    rows: list[dict[str, Any]] = []
    for setting in sorted({(run.policy, run.algorithm) for run in runs}):
        together = [run for run in runs if (run.policy, run.algorithm) == setting]
        together.sort(key=lambda run: (run.reward_model, run.seed, grid_points(run.config).index(run.point)))
        choices = grid_choices(together)
        notes += choices_in_words(choices)
        rows += [_row(run, kl, choices.get(run.reward_model)) for run in together]
    if options.json:
        return print_json(rows)
    _print(rows)
    console().print("\n".join(notes), markup=False, soft_wrap=True)
    return 0


def _row(run: Any, kl: float | None, choice: Any) -> dict[str, Any]:
    """A run as `--json` shows it. `choice` is that of its reward model; None without a grid."""
    from rlhf_eval.analysis.selection import equal_kl, last, peak

    places = (last(run.curves), peak(run.curves), None if kl is None else equal_kl(run.curves, kl))
    return {
        "run": run.path.name,
        "policy": run.policy,
        "algorithm": run.algorithm,
        "reward_model": run.reward_model,
        "control": run.control,
        "seed": run.seed,
        "finished": run.finished,
        "grid": dict(run.point),
        "chosen": None if choice is None else run.point == choice.point,
        **{name: place and asdict(place) for name, place in zip(PLACES, places, strict=True)},
        **{name: getattr(run, name) for name in ("training_steps", "no_gradient_steps", "warning")},
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    settings = [name for name in ("policy", "algorithm") if len({row[name] for row in rows}) > 1]
    fields = list(dict.fromkeys(name for row in rows for name in row["grid"]))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for header in (*settings, "reward model"):
        table.add_column(header, overflow="fold")
    for header in ("seed", *(name.removeprefix("algorithm.") for name in fields)):
        table.add_column(header.replace("_", " "), justify="right")
    for place in PLACES:
        title = place.replace("_", " ")
        for number, measure in enumerate(MEASURES.values()):
            table.add_column(f"{'' if number else title}\n{measure}", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in _cells(row, settings, fields)))
    console().print(table)


def _cells(row: dict[str, Any], settings: list[str], fields: list[str]) -> Iterator[str]:
    yield from (row[name] for name in settings)
    marks = {"control": row["control"], "unfinished": not row["finished"], "chosen": row["chosen"]}
    marked = ", ".join([*(mark for mark, holds in marks.items() if holds), *filter(None, [row["warning"]])])
    yield f"{row['reward_model']} ({marked})" if marked else row["reward_model"]
    yield str(row["seed"])
    yield from (str(row["grid"].get(name, "")) for name in fields)
    for place in PLACES:
        values = [(row[place] or {}).get(name) for name in MEASURES]
        yield from ("–" if value is None else _short(value) for value in values)


def _short(value: float) -> str:
    """Three decimals at most, and none that are zero."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _kl_in_words(kl: float | None, given: bool) -> str:
    if kl is None:
        return "No KL is common to all finished trained runs that are no controls: name one with --kl."
    why = "" if given else ", the largest that every finished trained run reaches, controls aside"
    return f"Equal KL: {kl:.4g} nats per completion{why}."
