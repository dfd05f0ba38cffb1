"""Reward models that run here: text to tokens, tokens in batches through one forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.batching import batches_by_tokens
from rlhf_eval.rewards.interface import PointwiseRewardModel
from rlhf_eval.rewards.rendering import Renderer, Tokens

COMMIT_LENGTH = 40


class LocalRewardModel(PointwiseRewardModel):
    """Scores token sequences with a forward pass whose result does not depend on the batch.

    Attributes:
        render: conversations to token ids.
        forward: batch of token sequences → shape (batch, heads), float32 on the CPU. The last head is the
            score where `weights` is empty.
        weights: shape (heads,): the score is the weighted sum of the heads.
    """

    def __init__(
        self,
        config: RewardModelConfig,
        render: Renderer,
        forward: Callable[[Sequence[Tokens]], np.ndarray],
    ) -> None:
        self.config = config
        self.render = render
        self.forward = forward
        self.weights = np.array(config.head_weights)

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation; one that is too long or whose score is not finite is invalid.

        Equal token sequences are computed once, in batches of similar lengths.
        """
        return self.score_tokens(self.render(conversations))

    def score_tokens(self, sequences: Sequence[Tokens | None]) -> ScoreBatch:
        """The same for conversations that are rendered already; None is invalid."""
        unique = list(dict.fromkeys(ids for ids in sequences if ids))
        heads: dict[Tokens, np.ndarray] = {}
        for batch in batches_by_tokens(unique, self.config.batch_tokens):
            heads |= dict(zip(batch, self.forward(batch).astype(np.float64), strict=True))
        width = len(next(iter(heads.values()))) if heads else 1
        missing = np.full(width, np.nan)
        heads_BH = np.array([heads.get(ids, missing) if ids else missing for ids in sequences]).reshape(
            -1, width
        )
        scores = heads_BH @ self.weights if len(self.weights) else heads_BH[:, -1]
        valid = np.isfinite(scores)
        return ScoreBatch(np.where(valid, scores, np.nan), valid, heads_BH if width > 1 else None)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def padded(batch: Sequence[Tokens], where: Any, pad: int) -> tuple[Any, Any]:
    """Token ids and attention mask, shapes (batch, tokens), padded on the right; pads are masked."""
    import torch

    width = max(map(len, batch))
    ids_BT = torch.tensor([[*ids, *[pad] * (width - len(ids))] for ids in batch])
    mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
    return ids_BT.to(where), mask_BT.to(where)


def last_positions(batch: Sequence[Tokens], where: Any) -> Any:
    """Index of each sequence's last token, shape (batch,): read by length, never by looking for padding."""
    import torch

    return torch.tensor([len(ids) - 1 for ids in batch], device=where)


def load_tokenizer(config: RewardModelConfig) -> Any:
    """The tokenizer of `config.model`.

    Raises:
        DataError: it cannot be had.
    """
    from transformers import AutoTokenizer

    with loading(config):
        return AutoTokenizer.from_pretrained(
            config.model, revision=config.revision, trust_remote_code=remote_code(config)
        )


def load_model(config: RewardModelConfig, auto_class: Any, **options: Any) -> Any:
    """A model's weights, in evaluation mode on the device or devices.

    Args:
        auto_class: a class with `from_pretrained`.
        options: for `from_pretrained`.

    Raises:
        ConfigError: remote code without a commit.
        DataError: not there, of another shape, or with parameters that the checkpoint does not hold.
    """
    import torch

    placed = {"device_map": config.device_map} if config.device_map else {}
    with loading(config):
        model, info = auto_class.from_pretrained(
            config.model,
            revision=config.revision,
            dtype=getattr(torch, config.dtype),
            attn_implementation=config.attention,
            use_safetensors=None if config.pickle else True,
            output_loading_info=True,
            trust_remote_code=remote_code(config),
            **placed,
            **options,
        )
    if info["missing_keys"]:
        raise DataError(
            f"Reward model '{config.model}' lacks {', '.join(sorted(info['missing_keys']))}: its scores "
            "would be random.",
            "Name a checkpoint that was trained as a reward model.",
        )
    return (model if config.device_map else model.to(device())).eval()


def remote_code(config: RewardModelConfig) -> bool:
    """Whether the model's repository may run its own Python.

    Raises:
        ConfigError: it may, but no commit says which.
    """
    local = Path(config.model).expanduser().is_dir()
    pinned = len(config.revision or "") == COMMIT_LENGTH
    if config.remote_code and not local and not pinned:
        raise ConfigError(
            f"reward_model.remote_code is allowed for '{config.model}' at revision '{config.revision}', "
            "which may change.",
            "Set reward_model.revision to the commit (40 digits) that you have read.",
        )
    return config.remote_code


@contextmanager
def loading(config: RewardModelConfig) -> Iterator[None]:
    """Says in our words what transformers says of a model that cannot be loaded."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, UnpicklingError) as error:
        text = str(error).strip()
        first = next(iter(text.splitlines()), type(error).__name__)
        cure = "Check reward_model.model and .revision, network and HF_TOKEN, or give a local folder."
        if "trust_remote_code" in text or "custom code" in text:
            first = "its repository wants to run its own Python here."
            cure = "Read it; then set reward_model.remote_code=true and reward_model.revision to that commit."
        elif isinstance(error, UnpicklingError):
            cure = "Its pickle holds more than tensors, which is not read: ask for safetensors."
        elif "safetensors" in text:
            cure = "Set reward_model.pickle=true if you trust these weights: reading a pickle can run code."
        raise DataError(f"Reward model '{config.model}' cannot be loaded: {first}", cure) from error
