"""Reward models behind a server: ours, OpenRLHF's, vLLM's, or Nemotron-4-340B's API."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig
from rlhf_eval.errors import StageError
from rlhf_eval.records import Conversation, ScoreBatch
from rlhf_eval.rewards.endpoint import endpoint_of, post_all
from rlhf_eval.rewards.interface import PointwiseRewardModel
from rlhf_eval.rewards.rendering import Renderer, check

CHUNK = 16
"""Conversations per request: enough to amortise HTTP, few enough that a lost request costs little."""
NEMOTRON_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


class RemoteRewardModel(PointwiseRewardModel):
    """Scores that a server computes. What it has not scored by the deadline is invalid.

    Attributes:
        path: of the endpoint.
        ask: conversations → body of a request.
        read: answer and number of conversations → heads, shape (conversations, heads), the score last.
    """

    def __init__(
        self,
        config: RewardModelConfig,
        path: str,
        ask: Callable[[Sequence[Conversation]], dict[str, Any]],
        read: Callable[[Any], list[list[float | None]]],
        chunk: int = CHUNK,
    ) -> None:
        self.config = config
        self.endpoint: EndpointConfig = endpoint_of(config)
        self.path = path
        self.ask = ask
        self.read = read
        self.chunk = chunk

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation; equal ones are sent once."""
        check(conversations)
        unique = list(dict.fromkeys(conversations))
        chunks = [unique[start : start + self.chunk] for start in range(0, len(unique), self.chunk)]
        answers = post_all(self.endpoint, self.path, [self.ask(chunk) for chunk in chunks])
        heads: dict[Conversation, list[float]] = {}
        for chunk, answer in zip(chunks, answers, strict=True):
            if answer is not None:
                heads |= dict(zip(chunk, self._read(answer, len(chunk)), strict=True))
        weights = np.array(self.config.head_weights or (1.0,))
        missing = [np.nan] * len(weights)
        heads_BH = np.array([heads.get(c, missing) for c in conversations]).reshape(-1, len(weights))
        scores = heads_BH @ weights
        valid = np.isfinite(scores)
        return ScoreBatch(np.where(valid, scores, np.nan), valid, heads_BH if len(weights) > 1 else None)

    def _read(self, answer: Any, count: int) -> list[list[float]]:
        try:
            rows = [[np.nan if v is None else float(v) for v in row] for row in self.read(answer)]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise StageError(
                f"{self.endpoint.base_url}{self.path} answers in another form than protocol "
                f"'{self.endpoint.protocol}' ({type(error).__name__}: {error}): {str(answer)[:200]}",
                "Correct reward_model.endpoint.protocol or base_url.",
            ) from error
        width = len(self.config.head_weights) or 1
        if len(rows) != count or any(len(row) != width for row in rows):
            raise StageError(
                f"{self.endpoint.base_url}{self.path} gave {len(rows)} × {len(rows[0]) if rows else 0} "
                f"numbers for {count} conversations and {width} heads.",
                "Correct reward_model.head_weights, or the server's model.",
            )
        return rows


def load(config: RewardModelConfig) -> RemoteRewardModel:
    """The client that speaks `endpoint.protocol`. Nothing is asked yet.

    Raises:
        ConfigError: no endpoint.
        DataError: the tokenizer for a server that takes rendered text cannot be loaded.
    """
    protocol = endpoint_of(config).protocol
    if protocol == "rlhf_eval":
        return RemoteRewardModel(
            config,
            "/score",
            lambda chunk: {
                "conversations": [messages(c) for c in chunk],
                # What this client no longer waits for need not be computed.
                "deadline_seconds": endpoint_of(config).timeout_seconds,
            },
            lambda answer: [[score] for score in answer["scores"]],
        )
    if protocol == "nemotron":
        return RemoteRewardModel(
            config,
            "/chat/completions",
            lambda chunk: {"model": config.model, "messages": messages(chunk[0])},
            _nemotron_attributes,
            chunk=1,
        )
    from rlhf_eval.rewards.local import load_tokenizer

    render = Renderer(load_tokenizer(config), config)
    if protocol == "openrlhf":
        # Its server tokenises with special tokens added, so the text goes without a beginning of its own.
        return RemoteRewardModel(
            config,
            "/get_reward",
            lambda chunk: {"query": [render.plain(c) for c in chunk], "prompts": [], "labels": []},
            lambda answer: [[reward] for reward in answer["rewards"]],
        )
    read = (
        (lambda answer: [row["probs"] for row in answer["data"]])
        if protocol == "vllm_classify"
        else (lambda answer: [row["data"] for row in answer["data"]])
    )
    path = "/classify" if protocol == "vllm_classify" else "/pooling"
    # Token ids, so that the server adds no second beginning; without activation, so that logits come back.
    return RemoteRewardModel(
        config,
        path,
        lambda chunk: {
            "model": config.model,
            "input": [list(ids or ()) for ids in render(chunk)],
            "use_activation": False,
        },
        read,
    )


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """A conversation as JSON."""
    return [{"role": message.role, "content": message.content} for message in conversation]


def _nemotron_attributes(answer: Any) -> list[list[float | None]]:
    """The API gives five attributes as log-probabilities of tokens that bear their names."""
    found = {entry["token"]: entry["logprob"] for entry in answer["choices"][0]["logprobs"]["content"]}
    return [[found[name] for name in NEMOTRON_ATTRIBUTES]]
