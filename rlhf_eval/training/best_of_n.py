"""Best of n: the policy samples several answers, the reward model chooses. No weights change.

The frontier of any n up to the largest comes from one set of samples. The divergence from the policy is at
most log n − (n − 1) / n nats (Stiennon et al. 2020, app. G.3; Beirami et al. 2024).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.config.algorithm_schema import BestOfNConfig
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import GenerationConfig, RunConfig
from rlhf_eval.files import append_jsonl, holding, read_jsonl, sha256_json, write_json, write_jsonl
from rlhf_eval.generation.engines import answer_sets
from rlhf_eval.generation.transformers_engine import load_policy, sample
from rlhf_eval.records import Prompt, as_json
from rlhf_eval.rewards.interface import RewardModel, load_reward_model
from rlhf_eval.sources import local_hashes
from rlhf_eval.training.measure import agreement, spread
from rlhf_eval.training.prompts import in_training_order, load_prompts
from rlhf_eval.training.recorder import Advance
from rlhf_eval.training.reward_function import RewardNormaliser, refuse_if_too_many_invalid
from rlhf_eval.training.train import normaliser

PROMPTS = 32
"""Prompts whose answers are sampled and scored together."""


def measure(config: RunConfig, folder: Path, metrics: Path, advance: Advance) -> list[Path]:
    """Write what the reward model and the gold reward model think of the best of 1, 2, 4, … n answers to the
    held-out prompts: one checkpoint row of `metrics.jsonl` each, with `samples` and `step` = n.

    Returns:
        The files that say what the procedure is.

    Raises:
        StageError: too many invalid scores.
    """
    algorithm = best_of_n(config)
    policy, tokenizer = load_policy(config.policy)
    reward_model = load_reward_model(config.reward_model)
    gold = load_reward_model(config.gold_reward_model) if config.gold_reward_model else None
    sampling = GenerationConfig(
        name="rollout", max_tokens=algorithm.max_completion_tokens, temperature=algorithm.temperature
    )
    first = in_training_order(load_prompts(config.prompts.train), algorithm.normaliser_prompts, config.seed)
    file = folder / "reward_normaliser.json"
    fitted = normaliser(file, policy, tokenizer, reward_model, first, sampling, config)
    held_out = load_prompts(config.prompts.held_out)[: config.prompts.held_out_limit]
    proxies, golds, lengths = [], [], []
    for start in range(0, len(held_out), PROMPTS):
        prompts = held_out[start : start + PROMPTS]
        rounds = [
            sample(
                policy, tokenizer, prompts, sampling, 7907 * (config.seed + 1) + start * algorithm.samples + n
            )[0]
            for n in range(algorithm.samples)
        ]
        texts = [[completion.text for completion in group] for group in zip(*rounds, strict=True)]
        proxies.append(_scores(reward_model, fitted, prompts, texts))
        lengths.append([[completion.tokens for completion in group] for group in zip(*rounds, strict=True)])
        if gold is not None:
            answered = [p.answered(t) for p, group in zip(prompts, texts, strict=True) for t in group]
            golds.append(gold.score(answered).scores.reshape(len(prompts), -1))
        advance(start + len(prompts), len(held_out), "")
    proxies_PN, lengths_PN = np.concatenate(proxies), np.concatenate(lengths)
    golds_PN = np.concatenate(golds) if golds else None
    refuse_if_too_many_invalid(np.isfinite(proxies_PN.ravel()), config.reward_model.max_invalid_share)
    variance, zero_share = spread(proxies_PN)
    metrics.unlink(missing_ok=True)
    for n in sizes(algorithm.samples):
        weights_PN = selection_weights(proxies_PN, n)
        row = {
            "kind": "checkpoint",
            "step": n,
            "samples": n,
            "kl": divergence_bound(n),
            "proxy_reward": _mean(weights_PN, proxies_PN),
            "gold_reward": None if golds_PN is None else _mean(weights_PN, golds_PN),
            "length_tokens": _mean(weights_PN, lengths_PN),
            "entropy": None,
            "reward_variance": variance,
            "zero_variance_share": zero_share,
            "on_policy_accuracy": None if golds_PN is None else agreement(proxies_PN, golds_PN),
            "n": proxies_PN.size,
        }
        append_jsonl(metrics, row)
    summary = {"samples": algorithm.samples, "kl": divergence_bound(algorithm.samples), "last": row}
    write_json(folder / "best_of_n.json", summary)
    return [folder / "best_of_n.json", file]


def answer(
    config: RunConfig,
    sets: Mapping[str, Sequence[Prompt]],
    folder: Path,
    shared: Path,
    advance: Callable[[int, int], None],
) -> list[Path]:
    """Write `<evaluation>.jsonl` with the answers chosen, as `answer_sets` does with a policy's only ones.

    Args:
        shared: the experiment's folder of samples: all its reward models choose among the same.

    Raises:
        StageError: too many invalid scores; else as `answer_sets`.
    """
    samples = best_of_n(config).samples
    files = _sample(config, sets, samples, shared, advance)
    reward_model = load_reward_model(config.reward_model)
    written = []
    for (evaluation, prompts), file in zip(sets.items(), files, strict=True):
        rows = read_jsonl(file)
        groups = [rows[start : start + samples] for start in range(0, len(rows), samples)]
        chosen = []
        for start in range(0, len(prompts), PROMPTS):
            part = groups[start : start + PROMPTS]
            texts = [[row["text"] for row in group] for group in part]
            scores_PN = _scores(reward_model, None, prompts[start : start + PROMPTS], texts)
            refuse_if_too_many_invalid(np.isfinite(scores_PN.ravel()), config.reward_model.max_invalid_share)
            for prompt, group, scores in zip(prompts[start:], part, scores_PN, strict=False):
                best = int(np.argmax(np.where(np.isfinite(scores), scores, -np.inf)))
                chosen.append(group[best] | {"prompt_id": prompt.id, "sample": best})
            advance(len(chosen), len(prompts))
        write_jsonl(folder / f"{evaluation}.jsonl", chosen)
        written.append(folder / f"{evaluation}.jsonl")
    return written


def best_of_n(config: RunConfig) -> BestOfNConfig:
    """The configuration of this procedure."""
    assert isinstance(config.algorithm, BestOfNConfig)
    return config.algorithm


def divergence_bound(n: int) -> float:
    """log n − (n − 1) / n, in nats."""
    return math.log(n) - (n - 1) / n


def sizes(largest: int) -> list[int]:
    """1, 2, 4, … and the largest."""
    return sorted({2**power for power in range(largest.bit_length()) if 2**power <= largest} | {largest})


def selection_weights(scores_PN: np.ndarray, n: int) -> np.ndarray:
    """How likely each sample is to be the best of n drawn from its prompt's without replacement: the one of
    rank i among N (lowest first) with C(i − 1, n − 1) / C(N, n). Shape (prompts, samples), rows sum to 1.

    Samples without a valid score are never chosen where there are at least n valid ones; of fewer, all valid
    ones are drawn. Equal scores share their chance. A row without a valid score is 0.
    """
    weights_PN = np.zeros_like(scores_PN, dtype=np.float64)
    for row, scores in enumerate(scores_PN):
        valid = np.flatnonzero(np.isfinite(scores))
        if not len(valid):
            continue
        drawn = min(n, len(valid))
        order = valid[np.argsort(scores[valid], kind="stable")]
        chances = [math.comb(rank, drawn - 1) / math.comb(len(valid), drawn) for rank in range(len(valid))]
        _, tie_of, size = np.unique(scores[order], return_inverse=True, return_counts=True)
        weights_PN[row, order] = (np.bincount(tie_of, chances) / size)[tie_of]
    return weights_PN


def _mean(weights_PN: np.ndarray, values_PN: np.ndarray) -> float | None:
    """Mean over the prompts of the expected value of the sample chosen, among those with a valid value; None
    where there is none."""
    weights_PN = np.where(np.isfinite(values_PN), weights_PN, 0.0)
    total_P = weights_PN.sum(axis=1)
    counted = total_P > 0
    if not counted.any():
        return None
    expected_P = (weights_PN * np.nan_to_num(values_PN)).sum(axis=1)
    return float((expected_P[counted] / total_P[counted]).mean())


def _scores(
    reward_model: RewardModel,
    normalise: RewardNormaliser | None,
    prompts: Sequence[Prompt],
    texts: Sequence[list[str]],
) -> np.ndarray:
    """Scores of shape (prompts, samples), not finite where invalid."""
    batches = reward_model.score_groups(list(zip(prompts, texts, strict=True)))
    return np.array([normalise(batch.scores) if normalise else batch.scores for batch in batches])


def _sample(
    config: RunConfig,
    sets: Mapping[str, Sequence[Prompt]],
    samples: int,
    shared: Path,
    advance: Callable[[int, int], None],
) -> list[Path]:
    """The files of all samples, those of a prompt side by side; one run makes them, others wait and use
    them."""
    many = {
        evaluation: [
            Prompt(f"{prompt.id}#{n}", prompt.messages) for prompt in prompts for n in range(samples)
        ]
        for evaluation, prompts in sets.items()
    }
    key: dict[str, Any] = {
        "policy": fingerprint(config.policy),
        "files": local_hashes(config.policy, None),
        "generation": fingerprint(config.generation),
        "sets": {name: [[p.id, as_json(p.messages)] for p in prompts] for name, prompts in many.items()},
        "seed": config.seed,
        "max_prompt_tokens": config.prompts.max_prompt_tokens,
    }
    folder = shared / sha256_json(key)[:16]
    with holding(folder / "lock"):
        limit = config.prompts.max_prompt_tokens
        return answer_sets(config.policy, config.generation, many, config.seed, limit, folder, advance)
