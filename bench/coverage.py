"""Do the intervals hold what they promise? Experiments with a known truth, and the coverage of our intervals
beside that of naive ones.

    python bench/coverage.py [--experiments 1000]

A value is quality of the reward model + luck of the seed + difficulty of the prompt + how the two suit each
other + chance, with standard deviations as judges' preferences have them: 5, 1.2, 18, 8 and 38 points. Heavy
luck is Student's t with 3 degrees of freedom; uneven luck differs in size between reward models by a factor
of about 1.6. With one seed the truth is what those very policies are worth: nothing tells of their luck.

The naive ways: *rows* takes every answer of every seed for an independent observation; *seeds pooled*
averages the seeds and resamples prompts, as if those seeds were the only ones.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from rlhf_eval.analysis.comparisons import separable
from rlhf_eval.analysis.intervals import estimate, percentile_interval, rank_interval

BOOTSTRAPS = 1000
PROMISED = (93.0, 97.0)
FAMILY_ERROR = 5.0


@dataclass(frozen=True)
class Scenario:
    reward_models: int
    seeds: int
    prompts: int
    heavy: bool = False
    uneven: bool = False
    quality: float = 5.0

    def __str__(self) -> str:
        luck = f"{'heavy' if self.heavy else 'normal'}{', uneven' if self.uneven else ''}"
        return f"{self.reward_models:>4}{self.seeds:>6}{self.prompts:>8}  {luck:<15}"


SCENARIOS = (
    Scenario(5, 1, 100),
    Scenario(20, 1, 805),
    Scenario(5, 2, 100),
    Scenario(5, 2, 805, heavy=True),
    Scenario(10, 3, 500),
    Scenario(10, 3, 805, heavy=True, uneven=True),
    Scenario(20, 2, 805, heavy=True, uneven=True),
    Scenario(20, 5, 300, heavy=True),
    Scenario(20, 5, 805, quality=2.0),
)


def experiment(scenario: Scenario, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True scores, shape (reward models,), and values, shape (prompts, reward models, seeds); percent."""
    shape = (scenario.reward_models, scenario.seeds)
    quality = 50 + scenario.quality * rng.standard_normal(shape[0])
    luck = 1.2 * (rng.standard_t(3, shape) / np.sqrt(3) if scenario.heavy else rng.standard_normal(shape))
    if scenario.uneven:
        luck *= np.exp(0.5 * rng.standard_normal((shape[0], 1)) - 0.25)
    truth = quality + (luck[:, 0] if scenario.seeds == 1 else 0.0)
    prompts = 18 * rng.standard_normal((scenario.prompts, 1)) + 8 * rng.standard_normal(
        (scenario.prompts, shape[0])
    )
    chance = 38 * rng.standard_normal((scenario.prompts, *shape))
    return truth, (quality + prompts)[:, :, None] + luck + chance


def ours(values: np.ndarray, seed: int) -> np.ndarray:
    """Draws of the scores, shape (bootstraps, reward models)."""
    prompts, count, seeds = values.shape
    groups = np.repeat(np.arange(count), seeds)
    found = estimate({"": values.reshape(prompts, -1)}, groups, np.full(count, True))
    return found.draws(BOOTSTRAPS, seed)


def rows(values: np.ndarray, seed: int) -> np.ndarray:
    """The bootstrap over all answers of a reward model, as the normal distribution that it comes to."""
    flat = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    noise = np.random.default_rng(seed).standard_normal((BOOTSTRAPS, values.shape[1]))
    return flat.mean(axis=0) + noise * flat.std(axis=0) / np.sqrt(len(flat))


def seeds_pooled(values: np.ndarray, seed: int) -> np.ndarray:
    prompts = len(values)
    counts = np.random.default_rng(seed).multinomial(prompts, np.full(prompts, 1 / prompts), size=BOOTSTRAPS)
    return counts @ values.mean(axis=2) / prompts


METHODS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "ours": ours,
    "rows": rows,
    "seeds pooled": seeds_pooled,
}


def coverage(scenario: Scenario, method: str, experiments: int) -> tuple[float, float, float]:
    """Percent of scores, differences to the first and ranks that lie within their 95 % intervals."""
    held = np.zeros((experiments, 3))
    for trial in range(experiments):
        truth, values = experiment(scenario, np.random.default_rng([trial, scenario.prompts]))
        draws = METHODS[method](values, trial)
        low, high = percentile_interval(draws)
        lead_low, lead_high = percentile_interval(draws[:, 1:] - draws[:, :1])
        leads = truth[1:] - truth[0]
        rank_low, rank_high = rank_interval(rankdata(-draws, axis=1))
        ranks = rankdata(-truth)
        held[trial] = (
            np.mean((low <= truth) & (truth <= high)),
            np.mean((lead_low <= leads) & (leads <= lead_high)),
            np.mean((rank_low <= ranks) & (ranks <= rank_high)),
        )
    score, lead, rank = 100 * held.mean(axis=0)
    return score, lead, rank


def family_error(scenario: Scenario, experiments: int) -> float:
    """Percent of experiments without any true difference in which Holm's procedure finds one."""
    wrong = 0
    for trial in range(experiments):
        _, values = experiment(scenario, np.random.default_rng([trial, 7]))
        prompts, count, seeds = values.shape
        groups = np.repeat(np.arange(count), seeds)
        found = estimate({"": values.reshape(prompts, -1)}, groups, np.full(count, True))
        wrong += separable(found, range(count)).any()
    return 100 * wrong / experiments


def main() -> int:
    """Print the tables; 1 if an interval of ours covers less or more than promised."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--experiments", type=int, default=1000)
    options = parser.parse_args()
    missed = 0
    print("Coverage in percent of 95 % intervals; ranks are whole numbers, so theirs hold at least that")
    print(f"{'RMs':>4}{'seeds':>6}{'prompts':>8}  {'luck':<15}{'':<14}{'score':>8}{'lead':>8}{'rank':>8}")
    for scenario in SCENARIOS:
        for method in METHODS:
            # The naive ways need fewer experiments to be seen to fail.
            count = options.experiments if method == "ours" else max(options.experiments // 2, 20)
            score, lead, rank = coverage(scenario, method, count)
            print(f"{scenario}{method:<14}{score:>8.1f}{lead:>8.1f}{rank:>8.1f}", flush=True)
            if method == "ours":
                missed += not PROMISED[0] <= score <= PROMISED[1]
                missed += not PROMISED[0] <= lead <= PROMISED[1]
                missed += rank < PROMISED[0]
    print(
        "\nReward models that are all alike: percent of experiments in which Holm's procedure parts any two"
    )
    print(f"{'RMs':>4}{'seeds':>6}{'prompts':>8}  {'luck':<15}{'error':>8}")
    for scenario in (
        Scenario(5, 2, 100, quality=0.0),
        Scenario(10, 3, 500, heavy=True, quality=0.0),
        Scenario(20, 5, 300, heavy=True, uneven=True, quality=0.0),
    ):
        error = family_error(scenario, options.experiments)
        print(f"{scenario}{error:>8.1f}", flush=True)
        # Three standard errors of a share of 5 % above the limit are no longer chance.
        missed += error > FAMILY_ERROR + 300 * np.sqrt(0.05 * 0.95 / options.experiments)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
