"""A policy with one tokenizer and chat template is trained with a reward model of another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.lab.world import vocabulary
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.local import LocalRewardModel
from rlhf_eval.training.launch import launch
from rlhf_eval.training.reward_function import RewardFunction

TEMPLATE = "{% for m in messages %}[{{ m.role | upper }}]\n{{ m.content }}\n{% endfor %}[DONE]"


def rendered(conversation: Conversation) -> str:
    """What the template says, in Python."""
    return "".join(f"[{m.role.upper()}]\n{m.content}\n" for m in conversation) + "[DONE]"


@pytest.fixture(scope="module")
def reads_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a classifier whose tokens are bytes, with a chat template unlike the lab's."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("reads_bytes")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {sign: number for number, sign in enumerate(["<pad>", "[DONE]", *alphabet])}
    raw = Tokenizer(models.BPE(vocabulary, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="[DONE]")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    return folder


def own_scores(folder: Path, conversations: Sequence[Conversation]) -> list[float]:
    """Scores by plain transformers, each text by itself, rendered without any template engine."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    scores = []
    for conversation in conversations:
        ids = tokenizer(rendered(conversation), add_special_tokens=False, return_tensors="pt")["input_ids"]
        assert ids.shape[1] > len(conversation[-1].content)  # a token is a byte
        with torch.no_grad():
            scores.append(model(input_ids=ids).logits[0, 0].item())
    return scores


def test_rewards_in_training_are_the_reward_models_own(
    training: Callable[..., RunConfig], reads_bytes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[Conversation] = []
    rewarded: list[tuple[list[Conversation], Any]] = []
    score, reward = LocalRewardModel.score, RewardFunction.__call__

    def spied_reward(function: RewardFunction, prompts: Any, completions: Any, **named: Any) -> Any:
        scored.clear()
        rewards = reward(function, prompts, completions, **named)
        rewarded.append((list(scored), rewards))
        return rewards

    def spied_score(model: LocalRewardModel, conversations: Sequence[Conversation]) -> ScoreBatch:
        scored.extend(conversations)
        return score(model, conversations)

    monkeypatch.setattr(RewardFunction, "__call__", spied_reward)
    monkeypatch.setattr(LocalRewardModel, "score", spied_score)
    config = training(f"reward_model.model={reads_bytes}", "reward_model.max_length=512", "algorithm.steps=2")
    folder = tmp_path / "stages" / "train"
    folder.mkdir(parents=True)
    launch(config, folder, tmp_path / "metrics.jsonl", tmp_path / "log", lambda *_: None)

    words = set(vocabulary())
    normaliser = read_json(folder / "reward_normaliser.json")
    assert len(rewarded) == 2
    for conversations, rewards in rewarded:
        assert len(conversations) == len(rewards) == 8
        # Text as the policy means it, without a token of its template.
        assert {word for turns in conversations for turn in turns for word in turn.content.split()} <= words
        expected = [
            (own - normaliser["mean"]) / normaliser["standard_deviation"]
            for own in own_scores(reads_bytes, conversations)
        ]
        assert rewards == pytest.approx(expected, abs=1e-3)
        assert max(expected) - min(expected) > 0.1
    means = [row["reward"] for row in read_jsonl(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    assert means == pytest.approx([sum(rewards) / 8 for _, rewards in rewarded], abs=1e-4)
