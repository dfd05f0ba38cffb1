"""The figures of training: proxy and gold reward over the distance from the initial policy."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rlhf_eval.analysis.frontier import Frontier
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.style import COLOURS, DASHES, INK, PAPER, SOFT, new_figure, styled, title, wrapped
from rlhf_eval.analysis.tidy import mean_curve

CANDIDATES, CONTROLS = 8, 4
"""At most so many reward models are drawn, the best by rank; the CSV has all."""


def draw_curves(rows: Sequence[dict[str, Any]], ranking: Ranking) -> Any:
    """Proxy and gold reward over √KL (the distance of Gao et al. 2023), thin per seed, bold the mean."""
    panels = [("proxy_reward", "proxy reward (standard deviations)")]
    if any(row["gold_reward"] is not None for row in rows):
        panels.append(("gold_reward", "gold reward"))
    names = _drawn(rows, ranking)
    looks = _looks(names)
    measured = len({row["reward_model"] for row in rows})
    more = f" (best {len(names)} of {measured})" if measured > len(names) else ""
    with styled():
        figure = new_figure(4.4 * len(panels) + 1.6, max(4.2, 0.42 * len(names)))
        for axes, (field, label) in zip(
            np.atleast_1d(figure.subplots(1, len(panels), sharex=True)), panels, strict=True
        ):
            for control, name in names:
                own = [row for row in rows if row["reward_model"] == name and row[field] is not None]
                if not own:
                    continue
                for seed in sorted({row["seed"] for row in own}):
                    line = np.array([(row["sqrt_kl"], row[field]) for row in own if row["seed"] == seed])
                    axes.plot(*line.T, linewidth=0.7, alpha=0.45, **looks[name])
                mean = mean_curve(own, field)
                axes.plot(
                    *mean.T, linewidth=2, label=wrapped(name), zorder=2 if control else 3, **looks[name]
                )
                axes.plot(
                    *mean[-1],
                    "o",
                    markersize=5.5,
                    color=looks[name]["color"],
                    markerfacecolor=PAPER if control else None,
                )
            axes.set_ylabel(label)
            axes.set_xlabel("√KL to the initial policy (√nats per completion)")
        title(figure.axes[0], f"Reward over distance from the initial policy{more}", pad=10)
        handles, texts = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside right center", fontsize=8.5, handlelength=4)
    return figure


def draw_frontiers(found: Sequence[Frontier], ranking: Ranking) -> Any:
    """Proxy and gold reward gained over √KL: points the means over seeds, lines the fits of Gao et al. 2023,
    a diamond where fitted gold reward turns within what was trained."""
    from matplotlib.lines import Line2D

    rewards = ["proxy", *(["gold"] if any(one.gold for one in found) else [])]
    names = _drawn([{"reward_model": one.reward_model} for one in found], ranking)
    measured = len({one.reward_model for one in found})
    more = f" (best {len(names)} of {measured})" if measured > len(names) else ""
    looks = _looks(names)
    with styled():
        figure = new_figure(4.4 * len(rewards) + 1.6, max(4.2, 0.42 * len(names)))
        panels = np.atleast_1d(figure.subplots(1, len(rewards), sharex=True))
        for axes, reward in zip(panels, rewards, strict=True):
            for _, name in names:
                for one in [one for one in found if one.reward_model == name]:
                    _frontier(axes, one, reward, looks[name])
            axes.set_ylabel(f"{reward} reward gained")
            axes.set_xlabel("√KL to the initial policy (√nats per completion)")
        title(panels[0], f"Frontiers{more}", pad=10)
        handles = [Line2D([], [], linewidth=2, label=wrapped(name), **looks[name]) for _, name in names]
        figure.legend(handles=handles, loc="outside right center", fontsize=8.5, handlelength=4)
    return figure


def _frontier(axes: Any, one: Frontier, reward: str, look: dict[str, Any]) -> None:
    rows = [asdict(point) for point in one.points if getattr(point, f"{reward}_gain") is not None]
    points = mean_curve(rows, f"{reward}_gain", "distance")
    axes.plot(
        *points.T, "o", markersize=4, color=look["color"], markerfacecolor=PAPER if one.control else None
    )
    fitted = one.gold if reward == "gold" else one.proxy
    line = points if fitted is None else np.array(fitted.curve)
    axes.plot(*line.T, linewidth=1.8, zorder=2, **look)
    turn = one.overoptimisation
    if reward == "gold" and turn is not None and not turn.extrapolated:
        axes.plot(
            turn.distance,
            turn.gold_gain,
            "D",
            markersize=7,
            color=INK,
            markerfacecolor=look["color"],
            zorder=4,
        )


def _drawn(rows: Sequence[dict[str, Any]], ranking: Ranking) -> list[tuple[bool, str]]:
    """(control, name) of what is drawn, in the order of the legend."""
    measured = {row["reward_model"] for row in rows}
    known = [row for row in ranking.rows if row.reward_model in measured]
    candidates = [(False, row.reward_model) for row in known if not row.control]
    controls = [(True, row.reward_model) for row in known if row.control]
    return candidates[:CANDIDATES] + controls[:CONTROLS]


def _looks(names: Sequence[tuple[bool, str]]) -> dict[str, dict[str, Any]]:
    """Colour for candidates, grey for controls; dashes once colours repeat."""
    candidates = [name for control, name in names if not control]
    controls = [name for control, name in names if control]
    looks = {
        name: {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i // len(COLOURS) % len(DASHES)]}
        for i, name in enumerate(candidates)
    }
    return looks | {
        name: {"color": SOFT, "linestyle": DASHES[1 + i % (len(DASHES) - 1)]}
        for i, name in enumerate(controls)
    }
