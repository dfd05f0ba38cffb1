"""Do the intervals of correlations hold what they promise? Coverage of ours beside that of naive ones.

    python bench/coverage_correlation.py

Reward models have true accuracies and true scores, jointly normal with correlation ρ. An accuracy is measured
with normal noise (a tenth of its variance), a score by three seeds whose mean has 30 % noise, of normal
or of heavy-tailed luck (Student's t with 3 degrees of freedom). The target is the coefficient of measured
values over all such reward models; that of *corrected* is ρ itself.

The naive ways: *rows* resamples reward models and takes percentiles; *nested* draws their noise anew besides;
*noise only* keeps the reward models and draws their noise; *seeds as rows* is Fisher's z with every seed as a
point of its own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import rankdata

from rlhf_eval.analysis.attenuation import correct, reliability
from rlhf_eval.analysis.coefficient_intervals import kendall_interval, pearson_interval, spearman_interval
from rlhf_eval.analysis.coefficients import COEFFICIENTS, WITHOUT_EACH, pearson

NUMBERS = (5, 7, 10, 20)
CORRELATIONS = (0.0, 0.5, 0.9)
SEEDS = 3
X_NOISE, Y_NOISE = 0.1, 0.3
OURS, NAIVE = 4000, 400
"""Simulated experiments."""
DRAWS = 300

Intervals = tuple[np.ndarray, np.ndarray]


def measured(
    shape: tuple[int, ...], rho: float, heavy: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Measured accuracies of `shape`, and scores of each seed, shape (…, seeds)."""
    x = rng.normal(size=shape)
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=shape)
    size = (*shape, SEEDS)
    luck = rng.standard_t(3, size=size) / np.sqrt(3) if heavy else rng.normal(size=size)
    x = np.sqrt(1 - X_NOISE) * x + np.sqrt(X_NOISE) * rng.normal(size=shape)
    return x, np.sqrt(1 - Y_NOISE) * y[..., None] + np.sqrt(Y_NOISE * SEEDS) * luck


def targets(rho: float, heavy: bool, rng: np.random.Generator) -> dict[str, float]:
    """The population's coefficients of measured values; of ranks from a million reward models."""
    x, seeds = measured((1_000_000,), rho, heavy, rng)
    y = seeds.mean(axis=-1)
    half = len(x) // 2
    concordance = np.sign(x[:half] - x[half:]) * np.sign(y[:half] - y[half:])
    return {
        "pearson": rho * np.sqrt((1 - X_NOISE) * (1 - Y_NOISE)),
        "spearman": float(pearson(rankdata(x), rankdata(y))),
        "kendall": float(concordance.mean()),
    }


def ours(name: str, x: np.ndarray, y: np.ndarray) -> Intervals:
    n = x.shape[-1]
    estimate = COEFFICIENTS[name](x, y)
    if name == "pearson":
        return pearson_interval(estimate, WITHOUT_EACH[name](x, y), n)
    return {"spearman": spearman_interval, "kendall": kendall_interval}[name](estimate, n)


def drawn(x: np.ndarray, seeds: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and scores with their noise drawn anew, shape (draws, n): seeds with replacement, widened
    by √(S/(S − 1))."""
    counts = rng.multinomial(SEEDS, np.full(SEEDS, 1 / SEEDS), size=(DRAWS, len(x)))
    weights = (1 + np.sqrt(SEEDS / (SEEDS - 1)) * (counts - 1)) / SEEDS
    return x + np.sqrt(X_NOISE) * rng.normal(size=(DRAWS, len(x))), (weights * seeds).sum(axis=-1)


def naive(
    name: str, x: np.ndarray, seeds: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, Intervals]]:
    """Intervals of one experiment by each naive way."""
    function = COEFFICIENTS[name]
    rows = rng.integers(len(x), size=(DRAWS, len(x)))
    x_drawn, y_drawn = drawn(x, seeds, rng)
    y = seeds.mean(axis=-1)

    def percentiles(values: np.ndarray) -> Intervals:
        low, high = np.nanquantile(values, [0.025, 0.975])
        return low, high

    yield "rows", percentiles(function(x[rows], y[rows]))
    nested = np.take_along_axis(x_drawn, rows, 1), np.take_along_axis(y_drawn, rows, 1)
    yield "nested", percentiles(function(*nested))
    yield "noise only", percentiles(function(x_drawn, y_drawn))
    if name == "pearson":
        r = pearson(np.repeat(x, SEEDS), seeds.ravel())
        half = 1.96 / np.sqrt(x.size * SEEDS - 3)
        yield "seeds as rows", (np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half))


def corrected(x: np.ndarray, seeds: np.ndarray, rng: np.random.Generator) -> Intervals | None:
    """The interval that is corrected for attenuation; None where the reliability is too low."""
    y = seeds.mean(axis=-1)
    x_drawn, y_drawn = drawn(x, seeds, rng)
    low, high = ours("pearson", x, y)
    estimate = float(pearson(x, y))
    reliabilities = reliability(x, x_drawn), reliability(y, y_drawn)
    found = correct(estimate, float(low), float(high), *reliabilities)
    return None if found.note else (np.array(found.low), np.array(found.high))


def table() -> list[dict[str, Any]]:
    """One row for each coefficient, method, noise, ρ and n: coverage in percent, mean width."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for heavy in (False, True):
        for rho in CORRELATIONS:
            truth = targets(rho, heavy, rng)
            for n in NUMBERS:
                x, seeds = measured((OURS, n), rho, heavy, rng)

                def add(coefficient: str, method: str, found: Intervals, target: float, n: int = n,
                        rho: float = rho, heavy: bool = heavy) -> None:  # fmt: skip
                    low, high = found
                    row = {"coefficient": coefficient, "method": method}
                    row |= {"noise": "heavy" if heavy else "normal", "rho": rho, "n": n}
                    inside = (low - 1e-12 <= target) & (target <= high + 1e-12)
                    rows.append(row | {"coverage": 100 * inside.mean(), "width": (high - low).mean()})

                for name in COEFFICIENTS:
                    add(name, "ours", ours(name, x, seeds.mean(axis=-1)), truth[name])
                    others: dict[str, list[Intervals]] = {}
                    for i in range(NAIVE):
                        for method, interval in naive(name, x[i], seeds[i], rng):
                            others.setdefault(method, []).append(interval)
                    for method, intervals in others.items():
                        add(name, method, _stacked(intervals), truth[name])
                tried = [corrected(x[i], seeds[i], rng) for i in range(2 * NAIVE)]
                add("pearson", "corrected", _stacked([t for t in tried if t is not None]), rho)
    return rows


def _stacked(intervals: list[Intervals]) -> Intervals:
    low, high = np.array(intervals, dtype=np.float64).T
    return low, high


def main() -> None:
    rows = table()
    print(
        f"{'coefficient':12}{'method':15}{'noise':8}{'rho':>4}  "
        + "".join(f"{f'n = {n}':>15}" for n in NUMBERS)
    )

    def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["coefficient"], row["method"], row["noise"], row["rho"]

    for key in sorted({key_of(row) for row in rows}):
        cells = {
            row["n"]: f"{row['coverage']:.1f} ({row['width']:.2f})" for row in rows if key_of(row) == key
        }
        print(
            f"{key[0]:12}{key[1]:15}{key[2]:8}{key[3]:4.1f}  " + "".join(f"{cells[n]:>15}" for n in NUMBERS)
        )
    print("Coverage in percent (mean width); 95 % is promised.")


if __name__ == "__main__":
    main()
