"""Placement of point labels in a scatter plot: deterministic, without overlaps where there is room."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from rlhf_eval.analysis.style import PAPER, wrapped

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (7.0, 13.0, 22.0, 34.0, 50.0, 70.0)
"""Pixels at 72 dpi (points) between a point and the nearest edge of its label."""


NAMED, NUMBERED = 14, 60
"""Points that can be named in one figure, and that can be numbered."""


def point_labels(names: Sequence[str], places: Sequence[int | None]) -> list[str]:
    """What stands beside the points of a scatter plot, best first: names of a few, places in the ranking of
    many, of very many the first of these only.

    Args:
        places: in the ranking; None for what has none.
    """
    if len(names) <= NAMED:
        return [wrapped(name) for name in names]
    return ["" if place is None else str(place) for place in places[:NUMBERED]]


def place_labels(
    axes: Any, x: Sequence[float], y: Sequence[float], texts: Sequence[str], obstacles: np.ndarray
) -> None:
    """Write one label beside each point, so that it covers no marker, no obstacle and no other label.

    Each label takes the cheapest of 48 places around its point (overlap first, then distance), most
    crowded point first, and all choose again until nothing moves. A label away from its point gets a
    thin line. Call it last: limits, size and dpi of the figure must be final.

    Args:
        obstacles: boxes in data coordinates that labels should avoid, shape (n, 4): x0, y0, x1, y1.
    """
    from matplotlib.patheffects import withStroke

    figure = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    unit = figure.dpi / 72
    points = axes.transData.transform(np.column_stack([x, y]))
    halo = [withStroke(linewidth=2.2, foreground=PAPER)]
    artists = [
        axes.annotate(text, (x[i], y[i]), fontsize=8.5, zorder=5, path_effects=halo)
        for i, text in enumerate(texts)
    ]
    sizes = np.array([[box.width, box.height] for box in (a.get_window_extent(renderer) for a in artists)])
    corners = axes.transData.transform(obstacles.reshape(-1, 2)).reshape(-1, 4)
    bars = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    # Another point's surroundings are taken too, so that a label cannot be read as that point's.
    markers = np.hstack([points - 9 * unit, points + 9 * unit])
    frame = axes.get_window_extent(renderer)

    candidates = [_candidates(points[i], sizes[i], unit) for i in range(len(texts))]
    static = [
        _static_cost(boxes, np.vstack([np.delete(markers, i, axis=0), bars]), frame, unit)
        for i, boxes in enumerate(candidates)
    ]
    crowding = np.array([np.hypot(*(points - point).T).sum() for point in points])
    chosen: dict[int, int] = {}
    for _ in range(6):
        before = dict(chosen)
        for i in np.argsort(crowding, kind="stable"):
            others = np.array([candidates[j][k] for j, k in chosen.items() if j != i]).reshape(-1, 4)
            cost = static[i] + 3 * _overlap(candidates[i], others).sum(axis=1)
            chosen[int(i)] = int(np.argmin(cost))
        if chosen == before:
            break

    for i, artist in enumerate(artists):
        box = candidates[i][chosen[i]]
        artist.set_position(axes.transData.inverted().transform(box[:2]))
        nearest = np.clip(points[i], box[:2], box[2:])
        if np.hypot(*(nearest - points[i])) > 15 * unit:
            line = axes.transData.inverted().transform([points[i], nearest])
            axes.plot(*line.T, color=artist.get_color(), linewidth=0.6, alpha=0.6, zorder=1)


def _candidates(point: np.ndarray, size: np.ndarray, unit: float) -> np.ndarray:
    """Boxes around a point, shape (48, 4), nearest first."""
    boxes = []
    for distance, (dx, dy) in product(_DISTANCES, _DIRECTIONS):
        reach = distance * unit * (0.75 if dx and dy else 1.0)
        centre = point + np.array([dx, dy]) * (reach + size / 2)
        boxes.append(np.concatenate([centre - size / 2, centre + size / 2]))
    return np.array(boxes)


def _static_cost(boxes: np.ndarray, fixed: np.ndarray, frame: Any, unit: float) -> np.ndarray:
    """Cost of each box by itself: area over markers and obstacles, area outside the axes, distance."""
    inside = _overlap(boxes, np.array([[frame.x0, frame.y0, frame.x1, frame.y1]]))[:, 0]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.arange(len(boxes))
    distance = np.array(_DISTANCES)[order // len(_DIRECTIONS)] * unit
    return (
        _overlap(boxes, fixed).sum(axis=1)
        + 20 * (area - inside)
        + 2 * distance * unit
        + 1.5 * (order % len(_DIRECTIONS)) * unit**2
    )


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that each box shares with each other one, shape (boxes, others)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)
