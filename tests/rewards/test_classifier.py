"""Scores are those of a single unpadded forward, computed by other means, for every architecture."""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import read_json, write_json
from rlhf_eval.records import as_json, user_prompt
from rlhf_eval.rewards import architectures
from rlhf_eval.rewards.interface import load_reward_model

KIND_OF = {
    "llama": "classifier",
    "qwen2": "classifier",
    "qwen3": "classifier",
    "mistral": "classifier",
    "gemma2": "classifier",
    "armorm": "armorm",
    "urm": "urm",
    "inform": "inform",
    "internlm2": "internlm2",
    "language_model": "token_logit",
}


@pytest.fixture(autouse=True)
def _lab_gate(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., Path]) -> None:
    """ArmoRM's gate opens at the assistant's turn; the lab's vocabulary has other ids for it than Llama's."""
    monkeypatch.setattr(architectures, "ARMORM_GATE", tuple(_gate(tiny("llama"))))


def _gate(folder: Path) -> list[int]:
    tokenizer = _tokenizer(folder)
    messages = [{"role": "user", "content": "cat"}]
    without = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)[len(without) :]
    ).input_ids


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _alone(name: str, folder: Path, ids: list[int]) -> float:
    """The score of one conversation by the published formula, on weights read straight from the file."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaModel

    with torch.inference_mode():
        if KIND_OF[name] == "classifier":
            model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager")
            return model(torch.tensor([ids])).logits.item()
        if name == "language_model":
            return AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, -1, 3].item()
        w = load_file(folder / "model.safetensors")
        if name == "internlm2":
            trunk = LlamaModel.from_pretrained(folder / "llama")
            return (w["v_head.weight"][0] @ trunk(torch.tensor([[*ids, 5]])).last_hidden_state[0, -1]).item()
        trunk = LlamaModel.from_pretrained(folder)
        hidden_TD = trunk(torch.tensor([ids])).last_hidden_state[0]
        if name == "inform":
            x = torch.relu(w["score.0.weight"] @ hidden_TD[-1] + w["score.0.bias"])
            return (w["score.2.weight"] @ x + w["score.2.bias"]).item()
        if name == "urm":
            x = hidden_TD[-1]
            for layer in (0, 2):
                x = torch.selu(w[f"weights.fc.{layer}.weight"] @ x + w[f"weights.fc.{layer}.bias"])
            weights = w["weights.fc.4.weight"] @ x + w["weights.fc.4.bias"]
            return (weights @ (w["score.weight"] @ hidden_TD[-1]).reshape(-1, 2)[:, 0]).item()
        pattern = _gate(folder)
        starts = [i for i in range(len(ids)) if ids[i : i + len(pattern)] == pattern]
        x = hidden_TD[starts[-1]]
        for layer in range(3):
            x = torch.relu(w[f"gating.layers.{layer}.weight"] @ x + w[f"gating.layers.{layer}.bias"])
        gate = torch.softmax((w["gating.layers.3.weight"] @ x + w["gating.layers.3.bias"]) / 10, 0)
        rewards = w["regression_layer.weight"] @ hidden_TD[-1]
        return (gate * w["gating.logit_scale"] * (rewards @ w["reward_transform_matrix"])).sum().item()


@pytest.mark.parametrize("name", KIND_OF)
def test_scores_equal_a_single_unpadded_forward(
    name: str, tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    folder = tiny(name)
    tokenizer = _tokenizer(folder)
    asked = conversations(24)
    asked += asked[:5]
    attention = "eager" if name == "gemma2" else "sdpa"
    expected = []
    for conversation in asked[:12]:
        messages = as_json(conversation)
        ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids
        expected.append(_alone(name, folder, ids))
    assert np.ptp(expected) > 0.1
    for batch_tokens in (1, 300, 100_000):
        config = config_of(folder, KIND_OF[name], batch_tokens=batch_tokens, token=3, attention=attention)
        order = Random(batch_tokens).sample(range(len(asked)), len(asked))
        shuffled = load_reward_model(config).score([asked[place] for place in order])
        scores = np.empty(len(asked))
        scores[order] = shuffled.scores
        assert shuffled.valid.all()
        assert scores[:12] == pytest.approx(expected, abs=1e-4)
        assert scores[24:].tolist() == scores[:5].tolist()


def test_a_long_conversation_is_masked_cut_or_refused(
    tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    asked = [*conversations(3, 3, 6), user_prompt("x", "list two animals").answered("cat " * 200)]
    folder = tiny("llama")
    batch = load_reward_model(config_of(folder, max_length=64)).score(asked)
    assert batch.valid.tolist() == [True, True, True, False]
    assert np.isnan(batch.scores[3])
    cut = load_reward_model(config_of(folder, max_length=64, overlong="truncate_left")).score(asked)
    assert cut.valid.all()
    tokenizer = _tokenizer(folder)
    messages = as_json(asked[3])
    ids = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids
    assert cut.scores[3] == pytest.approx(_alone("llama", folder, ids[-64:]), abs=1e-4)
    with pytest.raises(DataError, match=r"Conversation 4 has 2\d\d tokens"):
        load_reward_model(config_of(folder, max_length=64, overlong="error")).score(asked)


def test_heads_are_weighed(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        tiny("llama"), num_labels=3, ignore_mismatched_sizes=True
    )
    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    model.save_pretrained(tmp_path)
    batch = load_reward_model(config_of(tmp_path, head_weights=[0.5, 0.0, -2.0])).score(conversations(5))
    assert batch.heads is not None
    assert batch.heads.shape == (5, 3)
    assert batch.scores == pytest.approx(0.5 * batch.heads[:, 0] - 2 * batch.heads[:, 2])
    with pytest.raises(DataError, match="cannot be loaded"):
        load_reward_model(config_of(tmp_path, head_weights=[1.0, 1.0]))


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("classifier", r"score\.weight"),
        ("armorm", "regression_layer"),
        ("urm", r"weights\.fc"),
        ("inform", r"score\.0\.weight"),
        ("internlm2", r"v_head\.weight"),
    ],
)
def test_a_checkpoint_without_a_head_is_refused(
    kind: str, missing: str, tiny: Callable[..., Path], config_of: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(tiny("language_model"), tmp_path, dirs_exist_ok=True)
    write_json(
        tmp_path / "config.json",
        read_json(tmp_path / "config.json") | {"num_objectives": 5, "num_labels": 6, "reward_token_id": 5},
    )
    with pytest.raises(DataError, match=missing):
        load_reward_model(config_of(tmp_path, kind))


def test_an_absent_model_is_named(tmp_path: Path, config_of: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_reward_model(config_of(tmp_path / "nowhere"))


def test_pickled_weights_are_refused_unless_allowed(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError) as refusal:
        load_reward_model(config_of(tmp_path))
    assert "reward_model.pickle=true" in refusal.value.cure
    asked = conversations(3)
    expected = load_reward_model(config_of(tiny("llama"))).score(asked).scores
    for folder in (tmp_path, tiny("llama")):  # pickles are allowed beside safetensors, not asked for
        assert load_reward_model(config_of(folder, pickle=True)).score(asked).scores == pytest.approx(
            expected
        )


def test_weights_spread_by_accelerate_and_a_tokenizer_that_pads_left_change_nothing(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    settings = tmp_path / "tokenizer_config.json"
    write_json(settings, read_json(settings) | {"padding_side": "left", "truncation_side": "left"})
    asked = conversations(12)
    expected = load_reward_model(config_of(tiny("llama"))).score(asked).scores
    for device_map in (None, "auto"):
        found = load_reward_model(config_of(tmp_path, device_map=device_map)).score(asked).scores
        assert found == pytest.approx(expected, abs=1e-6)


def test_remote_code_needs_leave_and_a_commit(
    tiny: Callable[..., Path], config_of: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    wanted = {
        "auto_map": {
            "AutoConfig": "their_code.TheirConfig",
            "AutoModelForSequenceClassification": "their_code.TheirModel",
        },
        "model_type": "theirs",
    }
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | wanted)
    (tmp_path / "their_code.py").write_text("raise SystemExit('their code ran')")
    with pytest.raises(DataError) as refusal:
        load_reward_model(config_of(tmp_path))
    assert "reward_model.remote_code=true" in refusal.value.cure
    with pytest.raises(Exception, match="may change"):
        load_reward_model(config_of("organisation/name", remote_code=True, revision="main"))


def test_padding_that_ends_the_conversation_is_refused(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    tokenizer = _tokenizer(tmp_path)
    messages = as_json(conversations(1)[0])
    last = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False)).input_ids[-1]
    write_json(tmp_path / "config.json", read_json(tmp_path / "config.json") | {"pad_token_id": last})
    with pytest.raises(DataError, match="padding token"):
        load_reward_model(config_of(tmp_path)).score(conversations(1))


def test_not_a_number_is_invalid_and_not_zero(
    tiny: Callable[..., Path],
    conversations: Callable[..., Any],
    config_of: Callable[..., Any],
    tmp_path: Path,
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny("llama"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["score.weight"] = torch.full_like(weights["score.weight"], float("inf"))
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    batch = load_reward_model(config_of(tmp_path)).score(conversations(4))
    assert not batch.valid.any()
    assert np.isnan(batch.scores).all()


def test_a_flipped_model_turns_the_sign(
    tiny: Callable[..., Path], conversations: Callable[..., Any], config_of: Callable[..., Any]
) -> None:
    asked = conversations(5)
    inner = config_of(tiny("llama"))
    flipped = load_reward_model(RewardModelConfig(name="flipped", kind="flipped", inner=inner))
    assert np.array_equal(flipped.score(asked).scores, -load_reward_model(inner).score(asked).scores)
