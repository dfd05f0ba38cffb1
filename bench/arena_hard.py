"""Arena-Hard's style-controlled scores of a leaderboard, beside the way the original fits them, in one run.

Synthetic verdicts and styles in the published shape: 28 models, 500 hard and 250 creative questions, two
games each. Ours refits 1,000 samples of questions. The original (`show_result.py`) explodes the verdicts into
battle rows and fits each of 100 samples of rows by 50 steps of L-BFGS in torch; here a few, for the ratio.
Its reading and joining of the rows, slower still, is not counted. Run on one core with
`OMP_NUM_THREADS=1 taskset -c 0 python bench/arena_hard.py`.
"""

import sys
import time

import numpy as np

from rlhf_eval.judging.style_control import BOOTSTRAPS, Battles, style_controlled
from rlhf_eval.judging.style_normalisation import pool_constants

MODELS = 28
QUESTIONS = {"hard_prompt": 500, "creative_writing": 250}
LIMIT = 5.0
"""Seconds for both categories."""
ROW_FITS = 3
PUBLISHED_FITS = 100
"""Samples that the original takes."""


def main() -> int:
    """Print the table; 1 if the limit is missed."""
    import torch

    torch.set_num_threads(1)
    ours, original = 0.0, 0.0
    print(
        f"{'category':<18}{'questions':>10}{'rows':>8}{'ours, s':>9}{'per fit, ms':>13}{'original, ms':>14}"
    )
    for seed, (category, questions) in enumerate(QUESTIONS.items()):
        battles = made_up(questions, seed)
        constants = pool_constants(battles.differences, battles.rows)
        began = time.perf_counter()
        fitted = style_controlled(battles, constants)
        seconds = time.perf_counter() - began
        by_rows, apart = row_fits(battles, constants.standardised(battles.differences), fitted.scores)
        ours, original = ours + seconds, original + by_rows
        per_fit = 1000 * seconds / BOOTSTRAPS
        rows = int(battles.rows.sum())
        print(f"{category:<18}{questions:>10}{rows:>8}{seconds:>9.2f}{per_fit:>13.2f}{1000 * by_rows:>14.0f}")
        print(f"{'':<18}largest difference from the original's fit of all rows: {100 * apart:.2f} points")
    print(f"{BOOTSTRAPS} refits: {ours:.2f} s, limit {LIMIT:.0f} s")
    print(
        f"the original's {PUBLISHED_FITS} refits: {PUBLISHED_FITS * original:.0f} s; a refit takes it "
        f"{original / (ours / BOOTSTRAPS):.0f} times as long"
    )
    return int(ours > LIMIT)


def made_up(questions: int, seed: int) -> Battles:
    """Verdicts that depend on a model's strength, the question and the lengths of the answers."""
    rng = np.random.default_rng(seed)
    shape = (MODELS, questions)
    differences = rng.normal(size=(*shape, 4)) * [0.25, 0.005, 0.015, 0.01]
    log_odds = rng.normal(0, 1.5, (MODELS, 1)) + rng.normal(0, 0.7, questions) + 2 * differences[..., 0]
    won = rng.random((2, *shape)) < 1 / (1 + np.exp(-log_odds))
    rows = rng.choice([1, 3], size=(2, *shape))
    return Battles((rows * won).sum(axis=0), rows.sum(axis=0).astype(float), differences)


def row_fits(battles: Battles, styles: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Seconds of one fit of resampled battle rows, and how far the fit of all rows is from `scores`."""
    import torch

    model, question = (index.ravel() for index in np.indices(battles.rows.shape))
    lost = (battles.rows - battles.wins).astype(int).ravel()
    won = battles.wins.astype(int).ravel()
    cells = np.concatenate([np.repeat(np.arange(len(won)), won), np.repeat(np.arange(len(won)), lost)])
    one_hot = np.zeros((len(cells), MODELS + 1))
    one_hot[np.arange(len(cells)), model[cells]] = 1
    one_hot[:, MODELS] = -1
    design = torch.tensor(
        np.concatenate([one_hot, styles[model[cells], question[cells]]], axis=1), dtype=torch.float32
    )
    outcomes = torch.cat([torch.ones(int(won.sum())), torch.zeros(int(lost.sum()))])

    def fit(features: torch.Tensor, results: torch.Tensor) -> torch.Tensor:
        weights = torch.full((features.shape[1],), 0.5, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights], lr=0.1, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9
        )

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.binary_cross_entropy_with_logits(
                features @ weights, results, reduction="sum"
            )
            value.backward()
            return value

        optimizer.step(loss)
        return weights.detach()

    weights = fit(design, outcomes)
    strengths = torch.sigmoid(weights[:MODELS] - weights[MODELS]).numpy()
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(ROW_FITS):
        chosen = torch.randint(len(outcomes), (len(outcomes),), generator=generator)
        fit(design[chosen], outcomes[chosen])
    return (time.perf_counter() - began) / ROW_FITS, float(np.abs(strengths - scores).max())


if __name__ == "__main__":
    sys.exit(main())
