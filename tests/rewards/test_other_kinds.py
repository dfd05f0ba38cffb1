"""Implicit, ensemble, rule and constant reward models; and comparing with a model that scores."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.reward_schema import EnsembleConfig, MemberConfig, RewardModelConfig
from rlhf_eval.errors import ConfigError
from rlhf_eval.records import Comparison, as_json, user_prompt
from rlhf_eval.rewards.interface import load_reward_model


def test_an_implicit_reward_is_the_difference_of_log_probabilities(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny("language_model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    reference = AutoModelForCausalLM.from_pretrained(folder)
    policy = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    policy.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = conversations(9)
    expected = []
    for conversation in asked:
        messages = as_json(conversation)
        prompt = tokenizer(
            tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        ).input_ids
        ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids
        assert ids[: len(prompt)] == prompt
        total = 0.0
        for model, sign in ((policy, 1), (reference, -1)):
            with torch.inference_mode():
                log_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            total += sign * sum(log_TV[t - 1, ids[t]].item() for t in range(len(prompt), len(ids)))
        expected.append(total)
    config = config_of(tmp_path, "implicit", reference=str(folder), batch_tokens=200)
    assert np.ptp(expected) > 1
    assert load_reward_model(config).score(asked).scores == pytest.approx(expected, abs=1e-3)
    short = replace(config, max_length=30, overlong="truncate_left")
    assert load_reward_model(short).score(asked).valid.all()
    with pytest.raises(ConfigError, match="no reference"):
        load_reward_model(config_of(tmp_path, "implicit"))


def _constant(value: float) -> RewardModelConfig:
    return RewardModelConfig(name=f"constant {value}", kind="constant", constant=value)


@pytest.mark.parametrize(
    ("combine", "expected"),
    [("mean", 2.0), ("minimum", -1.0), ("mean_minus_std", 2 - 0.5 * np.std([-1, 2, 5])), ("weighted", 12.0)],
)
def test_an_ensemble_combines_scaled_scores(
    combine: Any, expected: float, conversations: Callable[..., Any]
) -> None:
    members = {
        "low": MemberConfig(_constant(-1.0), weight=1.0),
        "scaled": MemberConfig(_constant(20.0), weight=1.5, offset=16.0, scale=2.0),
        "high": MemberConfig(_constant(5.0), weight=2.0),
    }
    config = RewardModelConfig(
        name="e", kind="ensemble", ensemble=EnsembleConfig(combine, members, std_coefficient=0.5)
    )
    batch = load_reward_model(config).score(conversations(3))
    assert batch.scores == pytest.approx([expected] * 3)
    assert batch.heads is not None
    assert batch.heads[0].tolist() == [-1, 2, 5]
    clipped = EnsembleConfig("mean", {"a": MemberConfig(_constant(7.0), clip=True)})
    assert load_reward_model(replace(config, ensemble=clipped)).score(conversations(1)).scores == [1.0]


def test_an_ensemble_is_invalid_where_a_member_is(
    tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    members = {
        "model": MemberConfig(config_of(tiny("llama"), max_length=40)),
        "constant": MemberConfig(_constant(1.0)),
    }
    config = RewardModelConfig(name="e", kind="ensemble", ensemble=EnsembleConfig("mean", members))
    asked = [*conversations(2, 3, 5), user_prompt("x", "list two animals").answered("cat " * 60)]
    assert load_reward_model(config).score(asked).valid.tolist() == [True, True, False]


def test_a_rule_from_a_file_and_from_a_module(tmp_path: Path, conversations: Callable[..., Any]) -> None:
    rule = tmp_path / "mine.py"
    rule.write_text(
        "def words(prompt, completion):\n    return len(completion.split()) if prompt else None\n"
    )
    config = RewardModelConfig(name="r", kind="rule", function=f"{rule}:words")
    asked = conversations(3)
    expected = [len(c[-1].content.split()) for c in asked]
    assert load_reward_model(config).score(asked).scores.tolist() == expected
    ratio = replace(config, function="rlhf_eval.lab.world:utility")
    assert load_reward_model(ratio).score(asked).valid.all()
    for wrong in ("", f"{rule}:letters", f"{tmp_path}/none.py:words", "no.such.module:words"):
        with pytest.raises(ConfigError, match="function"):
            load_reward_model(replace(config, function=wrong))


def test_a_scoring_model_compares_by_bradley_terry_and_scores_groups(
    tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    model = load_reward_model(config_of(tiny("llama")))
    prompt = user_prompt("x", "list two animals")
    texts = ["cat dog .", "dog .", "hammer hammer ."]
    scores = model.score([prompt.answered(text) for text in texts]).scores
    forward = model.compare([Comparison(prompt, texts[0], texts[1])]).probabilities[0]
    backward = model.compare([Comparison(prompt, texts[0], texts[1]).swap()]).probabilities[0]
    assert forward == pytest.approx(1 / (1 + np.exp(scores[1] - scores[0])))
    assert forward + backward == pytest.approx(1)
    one, two = model.score_groups([(prompt, texts), (prompt, texts[:1])])
    assert one.scores == pytest.approx(scores)
    assert two.scores == pytest.approx(scores[:1])
