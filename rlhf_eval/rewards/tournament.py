"""From comparisons to scores: who is compared with whom, and how strong that makes each.

Strengths s are those of Bradley and Terry (1952) with a ridge: they maximise
Σ p·log σ(s_a − s_b) + (1 − p)·log σ(s_b − s_a) − ridge/2·Σ s² over the comparisons made, p being P(a ≻ b).
They have mean zero within a group. A completion without a valid comparison has no score.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random

import numpy as np

from rlhf_eval.config.reward_schema import GroupConfig
from rlhf_eval.records import Comparison, PreferenceBatch, Prompt, ScoreBatch

Compare = Callable[[Sequence[Comparison]], PreferenceBatch]
Game = tuple[int, int, float]
"""Places of two completions in their group, and P(first ≻ second)."""
NEWTON_STEPS = 50


def comparisons_needed(config: GroupConfig, size: int) -> int:
    """How many comparisons a group of `size` completions takes, told before any is made.

    Under `random` it is the most there can be: a pair that was drawn twice is compared once.
    """
    if config.schedule == "round_robin":
        return size * (size - 1) // 2
    if config.schedule == "random":
        return min(size * min(config.opponents, size - 1), size * (size - 1) // 2)
    return size - 1


def play(
    groups: Sequence[tuple[Prompt, Sequence[str]]], config: GroupConfig, compare: Compare
) -> list[ScoreBatch]:
    """Compare the completions of each group as `config` says, all groups' comparisons in one call."""
    games: list[list[Game]] = [[] for _ in groups]
    rounds = _knockout(groups, games) if config.schedule == "knockout" else [_pairs(groups, config)]
    for pairs in rounds:
        asked = [Comparison(groups[g][0], groups[g][1][a], groups[g][1][b]) for g, a, b in pairs]
        batch = compare(asked)
        for (g, a, b), probability, valid in zip(pairs, batch.probabilities, batch.valid, strict=True):
            if valid:
                games[g].append((a, b, float(probability)))
    return [strengths(len(texts), games[g], config.ridge) for g, (_, texts) in enumerate(groups)]


def strengths(size: int, games: Sequence[Game], ridge: float) -> ScoreBatch:
    """Bradley-Terry strengths of `size` completions by Newton's method (the objective is concave)."""
    score = np.zeros(size)
    if not games:
        return ScoreBatch(np.full(size, np.nan), np.zeros(size, dtype=bool))
    first, second = (np.array([game[i] for game in games]) for i in (0, 1))
    probability = np.array([game[2] for game in games])
    design = np.zeros((len(games), size))
    design[np.arange(len(games)), first] = 1.0
    design[np.arange(len(games)), second] = -1.0
    for _ in range(NEWTON_STEPS):
        expected = 1 / (1 + np.exp(-(design @ score)))
        gradient = design.T @ (probability - expected) - ridge * score
        curvature = (design.T * (expected * (1 - expected))) @ design + ridge * np.eye(size)
        step = np.linalg.solve(curvature, gradient)
        score += step
        if np.abs(step).max() < 1e-12:
            break
    played = np.isin(np.arange(size), [first, second])
    return ScoreBatch(np.where(played, score, np.nan), played)


def _pairs(groups: Sequence[tuple[Prompt, Sequence[str]]], config: GroupConfig) -> list[tuple[int, int, int]]:
    pairs = []
    for g, (prompt, texts) in enumerate(groups):
        places = range(len(texts))
        if config.schedule == "round_robin":
            chosen = list(combinations(places, 2))
        elif config.schedule == "reference":
            chosen = [(place, 0) for place in places[1:]]
        else:
            random = Random(f"opponents {prompt.id} {len(texts)}")
            drawn = {
                (min(a, b), max(a, b))
                for a in places
                for b in random.sample([x for x in places if x != a], min(config.opponents, len(texts) - 1))
            }
            chosen = sorted(drawn)
        pairs += [(g, a, b) for a, b in chosen]
    return pairs


def _knockout(groups: Sequence[tuple[Prompt, Sequence[str]]], games: list[list[Game]]):
    """Rounds of pairs; between them the losers leave. A failed comparison lets the first one through."""
    alive = [list(range(len(texts))) for _, texts in groups]
    while any(len(places) > 1 for places in alive):
        pairs = [
            (g, a, b)
            for g, places in enumerate(alive)
            for a, b in zip(places[0::2], places[1::2], strict=False)
        ]
        yield pairs
        lost = [{b if probability >= 0.5 else a for a, b, probability in played} for played in games]
        for g, a, b in pairs:
            if not any((x, y) == (a, b) for x, y, _ in games[g]):
                lost[g].add(b)
        alive = [
            [place for place in places if place not in out] for places, out in zip(alive, lost, strict=True)
        ]
