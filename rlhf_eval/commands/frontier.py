"""`rlhf-eval frontier`: where reward models lead, and where going farther begins to cost."""

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rlhf_eval.commands.show import console, print_json


def frontier(options: Namespace) -> int:
    from rlhf_eval.analysis.equal_kl import at_equal_kl
    from rlhf_eval.analysis.experiment import load_by_setting
    from rlhf_eval.analysis.frontier import frontiers

    runs = [run for setting in load_by_setting(options.experiment_folder) for run in setting]
    found, compared = frontiers(runs), at_equal_kl(runs, options.kl)
    if options.json:
        return print_json(
            {"frontiers": [asdict(one) for one in found], "equal_kl": [asdict(one) for one in compared]}
        )
    if not found:
        console().print("No finished run trains anything: there is no frontier.")
        return 0
    console().print(_fits(found))
    for one in found:
        if one.words:
            _say(f"{one.reward_model}: {' '.join(one.words)}")
    for one in compared:
        console().print(_at_equal_kl(one))
        _say(" ".join(one.words))
    return 0


def _say(text: str) -> None:
    console().print(text, markup=False, soft_wrap=True)


def _fits(found: Any) -> Any:
    table = _table(f"Reward gained over √KL, {_formula(found[0].form)}", "reward model")
    for header in ("seeds", "gold α", "gold β", "R²", "turns at √KL", "KL there", "proxy α", "proxy β"):
        table.add_column(header, justify="right")
    for one in found:
        table.add_row(*_fit_cells(one))
    return table


def _formula(form: str) -> str:
    return "R = d (α − β d)" if form == "best_of_n" else "R = d (α − β log d)"


def _fit_cells(one: Any) -> Iterator[str]:
    yield _name(one)
    yield str(len(one.seeds))
    gold, turn, proxy = one.gold, one.overoptimisation, one.proxy
    yield from ("–",) * 3 if gold is None else (*_coefficients(gold), _short(gold.fit.r_squared))
    if turn is None:
        yield from ("–", "–")
    else:
        mark = " (extrapolated)" if turn.extrapolated else ""
        high = "…" if turn.high is None else _short(turn.high)
        yield f"{_short(turn.distance)} [{_short(turn.low)}, {high}]{mark}"
        yield _short(turn.kl)
    yield from ("–",) * 2 if proxy is None else _coefficients(proxy)


def _coefficients(found: Any) -> tuple[str, str]:
    return (
        f"{_short(found.fit.alpha)} [{_short(found.alpha_low)}, {_short(found.alpha_high)}]",
        f"{_short(found.fit.beta)} [{_short(found.beta_low)}, {_short(found.beta_high)}]",
    )


def _at_equal_kl(one: Any) -> Any:
    table = _table("Gained over the initial policy at equal KL", "reward model")
    for header in ("rank", "seeds", "gold", "proxy", "gold − proxy", "length"):
        table.add_column(header, justify="right")
    for row in one.rows:
        rank = "–" if row.rank is None else str(row.rank)
        gains = (_gain(gain) for gain in (row.gold, row.proxy, row.gap))
        table.add_row(_name(row), rank, f"{row.seeds} of {row.n_seeds}", *gains, _short(row.length_tokens))
    return table


def _gain(gain: Any) -> str:
    if gain is None:
        return "–"
    return _short(gain.mean) + ("" if gain.low is None else f" [{_short(gain.low)}, {_short(gain.high)}]")


def _table(title: str, first: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    return table


def _name(one: Any) -> Any:
    """As plain text: a name may hold what rich takes for markup."""
    from rich.text import Text

    return Text(f"{one.reward_model} (control)" if one.control else one.reward_model)


def _short(value: float | None) -> str:
    """Three significant digits."""
    return "–" if value is None else f"{value:.3g}"
