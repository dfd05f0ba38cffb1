"""The gap between a public benchmark and a private one, against that of reward models with open data.

The two sets may differ in difficulty, for every reward model alike; so a gap by itself says little, and one
that is wider than the panel's says that the public set was known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DRAWS = 4000


@dataclass(frozen=True)
class Gap:
    """Accuracy on a public benchmark less that on a private one, in points, with a 95 % interval.

    Attributes:
        panel_gap: mean of the panel's gaps; None without a panel, as in the rest.
        difference: gap less the panel's, with its interval.
        p: two-sided bootstrap p of no difference.
    """

    public: str
    private: str
    public_accuracy: float
    private_accuracy: float
    gap: float
    low: float
    high: float
    panel_gap: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p: float | None = None


def public_private_gap(
    names: tuple[str, str],
    public: Mapping[str, np.ndarray],
    private: Mapping[str, np.ndarray],
    audited: str,
    panel: Sequence[str],
) -> Gap:
    """The gap of one reward model, and how much wider it is than the panel's.

    Items are drawn with replacement from either set, the same ones for all reward models.

    Args:
        names: of the public and the private benchmark.
        public, private: credits by reward model, shape (items,) each.
    """
    rng = np.random.default_rng(0)

    def means(credits: Mapping[str, np.ndarray]) -> np.ndarray:
        """Means of the audited model and of each of the panel in percent, shape (1 + draws, models)."""
        credit_IM = np.column_stack([credits[name] for name in (audited, *panel)])
        n = len(credit_IM)
        times_BI = rng.multinomial(n, np.full(n, 1 / n), size=DRAWS)
        return 100 * np.vstack([credit_IM.mean(axis=0), times_BI @ credit_IM / n])

    public_BM, private_BM = means(public), means(private)
    gap_BM = public_BM - private_BM
    low, high = _interval(gap_BM[1:, 0])
    own = (
        names[0],
        names[1],
        float(public_BM[0, 0]),
        float(private_BM[0, 0]),
        float(gap_BM[0, 0]),
        low,
        high,
    )
    if not panel:
        return Gap(*own)
    difference_B = gap_BM[:, 0] - gap_BM[:, 1:].mean(axis=1)
    tail = min(np.mean(difference_B[1:] <= 0), np.mean(difference_B[1:] >= 0))
    return Gap(
        *own,
        float(gap_BM[0, 1:].mean()),
        float(difference_B[0]),
        *_interval(difference_B[1:]),
        float(min(1.0, max(2 * tail, 1 / DRAWS))),
    )


def _interval(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
