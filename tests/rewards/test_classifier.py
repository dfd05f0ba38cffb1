"""A tiny Llama reward model: scores are those of a single unpadded forward, whatever the batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.lab.world import all_tasks, demonstration
from rlhf_eval.records import Conversation, user_prompt
from rlhf_eval.rewards.interface import load_reward_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any]) -> Path:
    import torch
    from transformers import LlamaForSequenceClassification

    path = tmp_path_factory.mktemp("reward_model")
    config = tiny_llama(path, num_labels=1)
    torch.manual_seed(0)
    LlamaForSequenceClassification(config).save_pretrained(path)
    return path


def _conversations(count: int) -> list[Conversation]:
    from random import Random

    random, tasks = Random(1), all_tasks()
    chosen = [random.choice(tasks) for _ in range(count)]
    return [user_prompt("x", t.instruction).answered(demonstration(t, random, 0.3)) for t in chosen]


def _config(folder: Path, **changes: object) -> RewardModelConfig:
    return RewardModelConfig(name="tiny", kind="classifier", model=str(folder), **changes)  # type: ignore[arg-type]


def test_scores_equal_a_single_unpadded_forward(folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    conversations = _conversations(40)
    conversations += conversations[:7]
    scores = load_reward_model(_config(folder, batch_tokens=100)).score(conversations).scores
    for conversation, score in zip(conversations, scores, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in conversation], tokenize=False
        )
        with torch.inference_mode():
            alone = model(**tokenizer(text, return_tensors="pt")).logits.item()
        assert score == pytest.approx(alone, abs=1e-4)


def test_an_overlong_conversation_is_invalid_and_the_others_are_scored(folder: Path) -> None:
    conversations = _conversations(3)
    long = user_prompt("x", "list two animals").answered("cat " * 200)
    batch = load_reward_model(_config(folder, max_length=64)).score([*conversations, long])
    assert batch.valid.tolist() == [True, True, True, False]
    assert np.isnan(batch.scores[3])


def test_a_checkpoint_without_a_head_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"score\.weight"):
        load_reward_model(_config(tmp_path))


def test_an_absent_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        load_reward_model(_config(tmp_path / "nowhere"))


def test_a_flipped_model_turns_the_sign(folder: Path) -> None:
    conversations = _conversations(5)
    inner = _config(folder)
    flipped = load_reward_model(RewardModelConfig(name="flipped", kind="flipped", inner=inner))
    assert np.array_equal(
        flipped.score(conversations).scores, -load_reward_model(inner).score(conversations).scores
    )
