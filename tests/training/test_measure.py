"""What is measured of a policy beside slow computations from the definitions."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from statistics import mean, variance
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.training import measure
from rlhf_eval.training.measure import (
    Policies,
    agreement,
    divergences_and_entropies,
    spread,
    unchanging,
)

TOKENS = [
    ([2, 7, 9, 3], [11, 12, 13, 4]),
    ([2, 7, 3], [20]),
    ([2, 8, 9, 10, 3], [14, 15]),
    ([2, 3], [5, 6, 4]),
]
"""Prompts and answers of several lengths, as token ids."""


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any]) -> Callable[[int], Any]:
    """A function: seed → a random policy, loaded from disk."""
    folder = tmp_path_factory.mktemp("policies")

    def loaded(seed: int) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, LlamaForCausalLM

        torch.manual_seed(seed)
        policy = LlamaForCausalLM(tiny_llama(folder))
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.2)
        policy.save_pretrained(folder / str(seed))
        return AutoModelForCausalLM.from_pretrained(folder / str(seed))

    return loaded


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    from rlhf_eval.lab.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def moved(load: Callable[[int], Any]) -> Policies:
    """A policy and another that it began as."""
    began = load(2)

    @contextmanager
    def initial() -> Iterator[Any]:
        yield began

    return Policies(load(1), initial)


def test_divergence_and_entropy_are_those_of_the_next_token_summed_over_the_answer(
    moved: Policies, tokenizer: Any
) -> None:
    """One text at a time, unpadded, token by token, with torch's own distributions."""
    import torch
    from torch.distributions import Categorical, kl_divergence

    divergences, entropies = divergences_and_entropies(moved, tokenizer, TOKENS)
    for place, (prompt, answer) in enumerate(TOKENS):
        divergence = entropy = 0.0
        for t in range(len(answer)):
            before = torch.tensor([prompt + answer[:t]])
            with torch.no_grad(), moved.initial() as began:
                now = Categorical(logits=moved.now(before).logits[0, -1].double())
                then = Categorical(logits=began(before).logits[0, -1].double())
            divergence += kl_divergence(now, then).item()
            entropy += now.entropy().item()
        assert divergences[place] == pytest.approx(divergence, rel=1e-4)
        assert entropies[place] == pytest.approx(entropy, rel=1e-4)
        assert divergence > 0.1  # the two are far enough apart for the comparison to mean something


def test_a_policy_has_not_moved_from_itself(load: Callable[[int], Any], tokenizer: Any) -> None:
    with unchanging(load(1)) as same:
        divergences, entropies = divergences_and_entropies(same, tokenizer, TOKENS)
    assert divergences == [0.0] * len(TOKENS)
    for entropy, (_, answer) in zip(entropies, TOKENS, strict=True):
        assert 0 < entropy <= len(answer) * math.log(same.now.config.vocab_size)


def test_divergence_is_not_symmetric(moved: Policies, tokenizer: Any) -> None:
    """From the initial policy to the trained one, not the other way about."""
    with moved.initial() as began:

        @contextmanager
        def now() -> Iterator[Any]:
            yield moved.now

        backwards, _ = divergences_and_entropies(Policies(began, now), tokenizer, TOKENS)
    forwards, _ = divergences_and_entropies(moved, tokenizer, TOKENS)
    assert not np.allclose(forwards, backwards, rtol=0.01)


@pytest.mark.parametrize("logits", [1, 2000])
def test_little_memory_gives_the_same_numbers(
    moved: Policies, tokenizer: Any, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = divergences_and_entropies(moved, tokenizer, TOKENS)
    passes: list[int] = []
    hook = moved.now.register_forward_pre_hook(
        lambda module, words, named: passes.append(len(named["input_ids"])), with_kwargs=True
    )
    monkeypatch.setattr(measure, "LOGITS", logits)
    apart = divergences_and_entropies(moved, tokenizer, TOKENS)
    hook.remove()
    assert len(passes) > 1
    assert sum(passes) == len(TOKENS)
    np.testing.assert_allclose(apart, together, rtol=1e-5)


def test_measuring_leaves_a_policy_in_training_where_it_was(moved: Policies, tokenizer: Any) -> None:
    moved.now.train()
    divergences_and_entropies(moved, tokenizer, TOKENS)
    assert moved.now.training
    moved.now.eval()


scores = st.floats(-10, 10) | st.just(math.nan)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(scores, min_size=n, max_size=n), min_size=1)))
def test_spread_is_the_mean_variance_within_prompts_that_have_two_valid_rewards(
    rewards: list[list[float]],
) -> None:
    valid = [[reward for reward in row if math.isfinite(reward)] for row in rewards]
    counted = [row for row in valid if len(row) >= 2]
    found, zero_share = spread(np.array(rewards))
    if not counted:
        assert (found, zero_share) == (None, None)
        return
    assert found == pytest.approx(mean(map(variance, counted)), abs=1e-9)
    assert zero_share == pytest.approx(mean(max(row) - min(row) < 1e-8 for row in counted))


def test_prompts_whose_rewards_are_all_equal_are_counted() -> None:
    rewards = np.array([[1.0, 1.0, math.nan], [1.0, 3.0, 2.0], [math.nan, 5.0, math.nan], [0.0, 0.0, 0.0]])
    assert spread(rewards) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


@given(
    st.integers(2, 4).flatmap(
        lambda n: st.lists(st.tuples(*[st.lists(scores, min_size=n, max_size=n)] * 2), min_size=1, max_size=5)
    )
)
def test_agreement_counts_the_pairs_that_gold_orders(prompts: list[tuple[list[float], list[float]]]) -> None:
    counted = []
    for proxies, golds in prompts:
        for i, j in combinations(range(len(proxies)), 2):
            proxy, gold = proxies[i] - proxies[j], golds[i] - golds[j]
            if math.isfinite(proxy) and math.isfinite(gold) and gold != 0:
                counted.append(0.5 if proxy == 0 else float((proxy > 0) == (gold > 0)))
    found = agreement(np.array([p for p, _ in prompts]), np.array([g for _, g in prompts]))
    assert found == (pytest.approx(mean(counted)) if counted else None)
