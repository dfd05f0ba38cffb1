"""From a reward model, or from scores that somebody already has, to the numbers of benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary
from rlhf_eval.benchmarks.kinds import KINDS
from rlhf_eval.benchmarks.loading import unpinned_note, version_warning
from rlhf_eval.benchmarks.private import refuse_remote, salted_key
from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.records import Comparison
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.rewards.stored import StoredRewardModel


@dataclass(frozen=True)
class Loaded:
    """A benchmark with its items.

    Attributes:
        notes: what a reader of the number must know: another version of the data, for instance.
    """

    config: BenchmarkConfig
    kind: Benchmark
    items: list[Item]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A benchmark's number and the scores that it was computed from."""

    benchmark: Loaded
    scores: Scores
    summary: Summary
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What `rlhf-eval benchmark --json` prints and `results.json` holds of one benchmark."""
        summary = self.summary
        return {
            "benchmark": self.benchmark.config.name,
            "accuracy": summary.accuracy,
            "low": summary.low,
            "high": summary.high,
            "n": summary.n,
            "subsets": summary.subsets,
            "metrics": summary.metrics,
            "invalid": int(sum(not np.isfinite(scores).all() for scores in self.scores)),
            "notes": list(self.notes),
        }

    def write(self, folder: Path) -> list[Path]:
        """`<name>.json` as above, and `<name>.jsonl` with a row per item: `id`, `scores` in the order of its
        completions (null: invalid), `right`."""
        name = self.benchmark.config.name
        results, file = folder / f"{name}.json", folder / f"{name}.jsonl"
        write_json(results, self.as_json())
        write_jsonl(
            file,
            (
                {
                    "id": item.id,
                    "scores": [x if np.isfinite(x) else None for x in scores.tolist()],
                    "right": float(right),
                }
                for item, scores, right in zip(
                    self.benchmark.items, self.scores, self.summary.right, strict=True
                )
            ),
        )
        return [results, file]


def load_benchmark(config: BenchmarkConfig) -> Loaded:
    """Read a benchmark's items.

    Raises:
        ConfigError: there is no such kind.
        DataError: its data cannot be read or are malformed.
    """
    kind: Benchmark = KINDS.get(config.kind)
    items = kind.load(config.data)
    warning = version_warning(items, kind.versions)
    return Loaded(config, kind, items, tuple(filter(None, (warning, unpinned_note(config)))))


def measure(benchmark: Loaded, scores: Scores, *notes: str) -> Measured:
    """The benchmark's number from the scores of its items; those without a valid score count as wrong."""
    summary = benchmark.kind.summarise(benchmark.items, scores)
    invalid = sum(not np.isfinite(score).all() for score in scores)
    if invalid:
        notes = (*notes, f"{invalid} items without a valid score count as wrong")
    return Measured(benchmark, scores, summary, (*benchmark.notes, *notes))


def evaluate(reward_model: StoredRewardModel, benchmarks: Sequence[Loaded]) -> list[Measured]:
    """Score what is not scored yet, a text that several benchmarks share once, and compute every number.

    Raises:
        ConfigError: a private set and a reward model behind an address.
        StageError: too many items have no valid score.
    """
    models = [model_for(benchmark, reward_model) for benchmark in benchmarks]
    public = [item for b in benchmarks if not b.config.private for item in b.items]
    if not reward_model.only_compares:  # one pass, so that batches are full
        reward_model.score([item.prompt.answered(text) for item in public for text in item.completions])
    found = []
    for benchmark, model in zip(benchmarks, models, strict=True):
        scores = score_items(model, benchmark.items, benchmark.kind.both_orders)
        _require_valid(reward_model.config, benchmark, scores)
        found.append(measure(benchmark, scores, *_adaptations(reward_model, benchmark)))
    return found


def _require_valid(config: RewardModelConfig, benchmark: Loaded, scores: Scores) -> None:
    """Raises StageError if items without a valid score are more than `max_invalid_share`: the number would
    tell of a server or of a limit, and not of the reward model."""
    count = sum(not np.isfinite(score).all() for score in scores)
    share = count / len(scores)
    if share > config.max_invalid_share or count == len(scores):
        raise StageError(
            f"Reward model '{config.name}' gave no valid score for {count} of {len(scores)} items of "
            f"'{benchmark.config.name}' ({share:.0%}; allowed are {config.max_invalid_share:.0%}).",
            "See that its server runs or raise reward_model.max_length, then give the same command again; or "
            "raise reward_model.max_invalid_share.",
        )


def model_for(benchmark: Loaded, reward_model: StoredRewardModel) -> StoredRewardModel:
    """The reward model as this benchmark may use it: for a private set its answers are kept by salted hashes.

    Raises:
        ConfigError: a private set and a reward model behind an address.
    """
    refuse_remote(benchmark.config, reward_model.config)
    if benchmark.config.private:
        return reward_model.salted(salted_key(benchmark.config))
    return reward_model


def score_items(reward_model: RewardModel, items: Sequence[Item], both_orders: bool) -> Scores:
    """Scores of every item's completions.

    A reward model that only compares gives each of two completions its probability of being better or, with
    `both_orders`, the games it won (0 to 2); more than two play the tournament of its `group`.
    """
    if not reward_model.only_compares:
        batch = reward_model.score(
            [item.prompt.answered(text) for item in items for text in item.completions]
        )
        ends = np.cumsum([len(item.completions) for item in items])[:-1]
        return np.split(batch.scores, ends)
    scores: dict[str, np.ndarray] = {}
    pairs = [item for item in items if len(item.completions) == 2]
    comparisons = [Comparison(item.prompt, *item.completions) for item in pairs]
    if both_orders:
        first = reward_model.compare_as_shown(comparisons).probabilities
        second = 1 - reward_model.compare_as_shown([c.swap() for c in comparisons]).probabilities
        won = np.nansum([_game(first), _game(second)], axis=0)
        won[~(np.isfinite(first) & np.isfinite(second))] = np.nan
        scores |= {item.id: np.array([x, 2 - x]) for item, x in zip(pairs, won, strict=True)}
    else:
        probabilities = reward_model.compare(comparisons).probabilities
        scores |= {item.id: np.array([p, 1 - p]) for item, p in zip(pairs, probabilities, strict=True)}
    groups = [item for item in items if len(item.completions) > 2]
    batches = reward_model.score_groups([(item.prompt, item.completions) for item in groups])
    scores |= {item.id: batch.scores for item, batch in zip(groups, batches, strict=True)}
    return [scores[item.id] for item in items]


def _game(probabilities: np.ndarray) -> np.ndarray:
    """1 for a game won, 0 for one lost, ½ for a draw."""
    return np.where(probabilities == 0.5, 0.5, probabilities > 0.5) + 0 * probabilities


def _adaptations(reward_model: StoredRewardModel, benchmark: Loaded) -> list[str]:
    """In which way a reward model takes part that the benchmark was not made for."""
    if not reward_model.only_compares:
        both = "it asks judges in both orders; scores are the same in both"
        return [both] if benchmark.kind.both_orders else []
    sizes = {len(item.completions) for item in benchmark.items}
    notes = []
    if 2 in sizes:
        way = "a game in either order" if benchmark.kind.both_orders else "the probability of being better"
        notes.append(f"this reward model only compares: an answer's score is {way}")
    if max(sizes) > 2:
        schedule = reward_model.config.group.schedule
        notes.append(
            f"this reward model only compares: scores of {max(sizes)} answers are strengths from a tournament"
            f" ({schedule})"
        )
    return notes
