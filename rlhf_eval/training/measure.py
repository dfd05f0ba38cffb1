"""What is measured at every checkpoint: KL to the initial policy, rewards and their spread, length,
entropy."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.config.schema import GenerationConfig
from rlhf_eval.generation.transformers_engine import sample
from rlhf_eval.records import Comparison, Prompt
from rlhf_eval.rewards.interface import RewardModel
from rlhf_eval.training.reward_function import RewardNormaliser, refuse_if_too_many_invalid

BATCH = 64
"""Completions sampled together."""
LOGITS = 2**27
"""Numbers in one tensor of logits at most: two policies' are held at once, 0.5 GiB each in 32 bits."""
Sampled = dict[str, Any]
"""What is known of one completion."""


@dataclass(frozen=True)
class Policies:
    """The policy as it is and as it began, both whole on this process.

    Attributes:
        now: the policy.
        initial: a context that gives the initial policy; it may be the same model with its adapter off, so
            `now` must not be used inside.
    """

    now: Any
    initial: Callable[[], AbstractContextManager[Any]]


@contextmanager
def unchanging(model: Any) -> Iterator[Policies]:
    """A policy that is not trained."""

    @contextmanager
    def initial() -> Iterator[Any]:
        yield model

    yield Policies(model, initial)


@dataclass(frozen=True)
class Measurement:
    """The same held-out prompts and the same random numbers at every checkpoint of every run.

    With several processes each measures a share of the prompts; what comes out does not depend on how many.
    """

    tokenizer: Any
    prompts: Sequence[Prompt]
    samples: int
    sampling: GenerationConfig
    reward_model: RewardModel
    gold: RewardModel | None
    seed: int
    max_invalid_share: float

    def of(self, policies: Policies, normaliser: RewardNormaliser, step: int) -> dict[str, Any]:
        """One row of `metrics.jsonl`, the same on every process.

        KL is in nats per completion: the mean over sampled completions of Σ_t KL(π(·|y_<t) ‖ π_0(·|y_<t)),
        the divergence from the initial policy at temperature 1 with the sum over the next token taken exactly
        (Rao-Blackwellised; Amini et al. 2025). Entropy is that of π, mean nats per token. The variance of
        rewards is the mean of the unbiased variances within prompts; its zero share counts prompts whose
        valid rewards are all equal. On-policy accuracy is `agreement` of proxy and gold.

        Raises:
            StageError: too many invalid scores.
        """
        from accelerate import PartialState
        from accelerate.utils import gather_object

        state = PartialState()
        share = max(1, BATCH // self.samples)
        starts = range(0, len(self.prompts), share)
        rows: list[Sampled] = []
        for start in starts[state.process_index :: state.num_processes]:
            rows += self._sampled(policies, normaliser, start, self.prompts[start : start + share])
        rows = sorted(gather_object(self._scored(rows, normaliser)), key=lambda row: row["place"])
        proxy_PS = np.array([row["proxy"] for row in rows], dtype=np.float64).reshape(-1, self.samples)
        refuse_if_too_many_invalid(np.isfinite(proxy_PS.ravel()), self.max_invalid_share)
        variance, zero_share = spread(proxy_PS)
        golds = [row["gold"] for row in rows if row["gold"] is not None]
        gold_PS = np.array(golds, dtype=np.float64).reshape(-1, self.samples)
        return {
            "kind": "checkpoint",
            "step": step,
            "kl": float(np.mean([row["kl"] for row in rows])),
            "proxy_reward": float(np.nanmean(proxy_PS)),
            "gold_reward": float(np.nanmean(golds)) if golds else None,
            "length_tokens": float(np.mean([row["tokens"] for row in rows])),
            "entropy": sum(row["entropy"] for row in rows) / sum(row["tokens"] for row in rows),
            "reward_variance": variance,
            "zero_variance_share": zero_share,
            "on_policy_accuracy": agreement(proxy_PS, gold_PS) if golds else None,
            "n": len(rows),
        }

    def _sampled(
        self, policies: Policies, normaliser: RewardNormaliser, start: int, prompts: Sequence[Prompt]
    ) -> list[Sampled]:
        """One row a completion, those of a prompt side by side; `start` is the first prompt's place.

        Where scores have no scale across prompts there is an opponent for each: the initial policy's answer,
        sampled with the same random numbers.
        """
        seed = self.seed + start
        repeated = [prompt for prompt in prompts for _ in range(self.samples)]
        completions, tokens = sample(policies.now, self.tokenizer, repeated, self.sampling, seed)
        divergences, entropies = divergences_and_entropies(policies, self.tokenizer, tokens)
        opponents: list[str | None] = [None] * len(repeated)
        if normaliser.within_prompt:
            with policies.initial() as initial:
                answers, _ = sample(initial, self.tokenizer, repeated, self.sampling, seed)
            opponents = [answer.text for answer in answers]
        return [
            {
                "place": start * self.samples + number,
                "prompt": repeated[number],
                "text": completion.text,
                "opponent": opponents[number],
                "kl": divergences[number],
                "entropy": entropies[number],
                "tokens": completion.tokens,
            }
            for number, completion in enumerate(completions)
        ]

    def _scored(self, rows: list[Sampled], normaliser: RewardNormaliser) -> list[Sampled]:
        """The rows, with their texts replaced by proxy and gold rewards.

        Each reward model is asked once, so that one behind a server keeps the other processes waiting for one
        deadline at most.
        """
        if not rows:
            return []
        conversations = [row["prompt"].answered(row["text"]) for row in rows]
        if normaliser.within_prompt:
            proxies = self._log_odds(rows) / normaliser.standard_deviation
        else:
            proxies = normaliser(self.reward_model.score(conversations).scores)
        golds = [None] * len(rows) if self.gold is None else self.gold.score(conversations).scores.tolist()
        kept = ("place", "kl", "entropy", "tokens")
        return [
            {name: row[name] for name in kept} | {"proxy": float(proxy), "gold": gold}
            for row, proxy, gold in zip(rows, proxies, golds, strict=True)
        ]

    def _log_odds(self, rows: list[Sampled]) -> np.ndarray:
        """Log odds with which each answer beats its opponent: the proxy of a reward model without a scale
        across prompts. Shape (completions,)."""
        pairs = [Comparison(row["prompt"], row["text"], row["opponent"]) for row in rows]
        probability = np.clip(self.reward_model.compare(pairs).probabilities, 1e-6, 1 - 1e-6)
        return np.log(probability / (1 - probability))


def spread(rewards_PS: np.ndarray) -> tuple[float | None, float | None]:
    """Mean unbiased variance within prompts, and the share of prompts whose valid rewards are all equal.

    Args:
        rewards_PS: shape (prompts, samples), NaN where a score is invalid; prompts with fewer than two valid
            ones are left out.

    Returns:
        Both, None where no prompt is left.
    """
    counted_PS = rewards_PS[np.isfinite(rewards_PS).sum(axis=1) >= 2]
    if not len(counted_PS):
        return None, None
    variances = np.nanvar(counted_PS, axis=1, ddof=1)
    ranges = np.nanmax(counted_PS, axis=1) - np.nanmin(counted_PS, axis=1)
    return float(variances.mean()), float((ranges < 1e-8).mean())


def agreement(proxy_PS: np.ndarray, gold_PS: np.ndarray) -> float | None:
    """On-policy accuracy: of all pairs of samples of a prompt that the gold reward orders, the share that the
    proxy orders alike, ties of the proxy half (Razin et al. 2025, arXiv:2503.15477).

    Args:
        proxy_PS, gold_PS: shape (prompts, samples), NaN where a score is invalid.

    Returns:
        a share in [0, 1]; None where gold orders no pair.
    """
    one, other = np.triu_indices(proxy_PS.shape[1], k=1)
    proxy = np.sign(proxy_PS[:, one] - proxy_PS[:, other])
    gold = np.sign(gold_PS[:, one] - gold_PS[:, other])
    ordered = np.isfinite(proxy) & np.isfinite(gold) & (gold != 0)
    return float((1 + proxy * gold)[ordered].mean() / 2) if ordered.any() else None


def divergences_and_entropies(
    policies: Policies, tokenizer: Any, tokens: Sequence[tuple[list[int], list[int]]]
) -> tuple[list[float], list[float]]:
    """Σ_t KL(π ‖ π_0) and Σ_t entropy of π over each completion's tokens, in nats; both of shape
    (completions,).

    Args:
        tokens: token ids of prompt and completion.
    """
    divergences: list[float] = []
    entropies: list[float] = []
    width = max(len(prompt) + len(answer) for prompt, answer in tokens)
    rows = max(1, LOGITS // (width * policies.now.config.vocab_size))
    for start in range(0, len(tokens), rows):
        part = tokens[start : start + rows]
        log_policy_BTV, answer_BT = _log_distributions(policies.now, tokenizer, part)
        with policies.initial() as initial:
            log_initial_BTV, _ = _log_distributions(initial, tokenizer, part)
        policy_BTV = log_policy_BTV.exp()
        divergence_BT = (policy_BTV * (log_policy_BTV - log_initial_BTV)).sum(-1)
        entropy_BT = -(policy_BTV * log_policy_BTV).sum(-1)
        divergences += (divergence_BT * answer_BT).sum(-1).double().tolist()
        entropies += (entropy_BT * answer_BT).sum(-1).double().tolist()
    return divergences, entropies


def _log_distributions(
    model: Any, tokenizer: Any, tokens: Sequence[tuple[list[int], list[int]]]
) -> tuple[Any, Any]:
    """Log-probabilities of every next token, (batch, tokens, vocabulary), and which are of the completion,
    (batch, tokens)."""
    import torch

    rows = [prompt + answer for prompt, answer in tokens]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    device = model.device
    ids_BT = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    answer_BT = torch.tensor(
        [[0] * len(p) + [1] * len(a) + [0] * (width - len(p) - len(a)) for p, a in tokens], device=device
    )
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, :-1].float()
    model.train(was_training)
    return logits_BTV.log_softmax(-1), answer_BT[:, 1:]
