"""Reward models behind a server: ours, OpenRLHF's, vLLM's, or Nemotron-4-340B's API."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError, StageError
from rlhf_eval.keys import without_secrets
from rlhf_eval.records import Comparison, Conversation, PreferenceBatch, ScoreBatch, as_json
from rlhf_eval.rewards.endpoint import endpoint_of, post_all
from rlhf_eval.rewards.interface import PairwiseRewardModel, PointwiseRewardModel
from rlhf_eval.rewards.rendering import Renderer, check

CHUNK = 16
"""Conversations per request: enough to amortise HTTP, few enough that a lost request costs little."""
NEMOTRON_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
Heads = Sequence[Sequence[float | None]]
"""Per item its numbers; None for one that the server could not score."""


@dataclass(frozen=True)
class Protocol:
    """What a kind of server is asked and how it answers.

    Attributes:
        path: appended to the endpoint's address.
        prepare: conversations → what is sent of each; None for one that is too long and not sent.
        body: of a request for some of them.
        read: an answer → heads of each.
        chunk: most of them in a request.
    """

    path: str
    prepare: Callable[[Sequence[Conversation]], Sequence[Any]]
    body: Callable[[Sequence[Any]], dict[str, Any]]
    read: Callable[[Any], Heads]
    chunk: int = CHUNK


class RemoteRewardModel(PointwiseRewardModel):
    """Scores that a server computes. What it has not scored by the deadline is invalid."""

    def __init__(self, config: RewardModelConfig, protocol: Protocol) -> None:
        self.config = config
        self.protocol = protocol

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        """Score each conversation; equal ones are sent once.

        Raises:
            StageError: the server refuses, or answers in another form.
        """
        check(conversations)
        weights = np.array(self.config.head_weights or (1.0,))
        unique = list(dict.fromkeys(conversations))
        sent = {c: item for c, item in zip(unique, self.protocol.prepare(unique), strict=True) if item}
        numbers = ask_in_chunks(self.config, self.protocol, list(sent.values()), len(weights))
        heads = dict(zip(sent, numbers, strict=True))
        missing = np.full(len(weights), np.nan)
        heads_BH = np.array([heads.get(c, missing) for c in conversations]).reshape(-1, len(weights))
        scores = heads_BH @ weights
        valid = np.isfinite(scores)
        return ScoreBatch(np.where(valid, scores, np.nan), valid, heads_BH if len(weights) > 1 else None)


class RemoteComparingModel(PairwiseRewardModel):
    """Comparisons that our server makes."""

    def __init__(self, config: RewardModelConfig) -> None:
        self.name = config.name
        self.group = config.group
        self.config = config
        self.protocol = Protocol(
            "/compare",
            prepare=lambda conversations: conversations,
            body=lambda chunk: {"comparisons": list(chunk), "deadline_seconds": _patience(config)},
            read=lambda answer: [[p] for p in answer["probabilities"]],
        )

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        unique = list(dict.fromkeys(comparisons))
        asked = [
            {
                "prompt": as_json(c.prompt.messages),
                "completion_a": c.completion_a,
                "completion_b": c.completion_b,
            }
            for c in unique
        ]
        found = dict(zip(unique, ask_in_chunks(self.config, self.protocol, asked, 1)[:, 0], strict=True))
        probabilities = np.array([found[c] for c in comparisons], dtype=np.float64)
        return PreferenceBatch(probabilities, np.isfinite(probabilities))


def ask_in_chunks(
    config: RewardModelConfig, protocol: Protocol, items: Sequence[Any], width: int
) -> np.ndarray:
    """Numbers of all items, shape (items, width); NaN for those not answered by the deadline.

    Raises:
        StageError: the server refuses, or answers in another form.
    """
    chunks = [items[start : start + protocol.chunk] for start in range(0, len(items), protocol.chunk)]
    endpoint = endpoint_of(config)
    answers = post_all(endpoint, protocol.path, [protocol.body(chunk) for chunk in chunks])
    rows = [
        np.full((len(chunk), width), np.nan)
        if answer is None
        else _numbers(answer, protocol, endpoint, len(chunk), width)
        for chunk, answer in zip(chunks, answers, strict=True)
    ]
    return np.concatenate([np.empty((0, width)), *rows])


def _numbers(answer: Any, protocol: Protocol, endpoint: Any, count: int, width: int) -> np.ndarray:
    place = f"{endpoint.base_url}{protocol.path}"
    try:
        rows = [[np.nan if v is None else float(v) for v in row] for row in protocol.read(answer)]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise StageError(
            f"{place} answers in another form than protocol '{endpoint.protocol}' "
            f"({type(error).__name__}: {error}): {without_secrets(str(answer))[:200]}",
            "Correct reward_model.endpoint.protocol or base_url.",
        ) from error
    if len(rows) != count or any(len(row) != width for row in rows):
        raise StageError(
            f"{place} gave {len(rows)} × {len(rows[0]) if rows else 0} numbers for {count} conversations and "
            f"{width} heads.",
            "Correct reward_model.head_weights, or the server's model.",
        )
    return np.array(rows)


def load(config: RewardModelConfig) -> RemoteRewardModel | RemoteComparingModel:
    """The client that speaks `endpoint.protocol`. Nothing is asked yet.

    Raises:
        ConfigError: no endpoint, or comparisons of a server that only scores.
        DataError: the tokenizer for a server that takes rendered text cannot be loaded.
    """
    protocol = endpoint_of(config).protocol
    if config.comparability == "pair":
        if protocol != "rlhf_eval":
            raise ConfigError(
                f"reward_model.comparability=pair: a server of protocol '{protocol}' gives scores.",
                "Set comparability to global or prompt, or use kind `judge` for a language model.",
            )
        return RemoteComparingModel(config)
    return RemoteRewardModel(config, PROTOCOLS[protocol](config))


def _ours(config: RewardModelConfig) -> Protocol:
    return Protocol(
        "/score",
        prepare=lambda conversations: [as_json(c) for c in conversations],
        body=lambda chunk: {"conversations": list(chunk), "deadline_seconds": _patience(config)},
        read=lambda answer: [[score] for score in answer["scores"]],
    )


def _nemotron(config: RewardModelConfig) -> Protocol:
    return Protocol(
        "/chat/completions",
        prepare=lambda conversations: [as_json(c) for c in conversations],
        body=lambda chunk: {"model": config.model, "messages": chunk[0]},
        read=_nemotron_attributes,
        chunk=1,
    )


def _openrlhf(config: RewardModelConfig) -> Protocol:
    render = _renderer(config)
    return Protocol(
        "/get_reward",
        # Its server tokenises without special tokens, and cuts what is too long without a word.
        # As in OpenRLHF, a query begins with its prompt.
        prepare=lambda conversations: [
            (render.whole(c), render.begun(render.text(c[:-1], add_generation_prompt=True))) if ids else None
            for c, ids in zip(conversations, render(conversations), strict=True)
        ],
        body=lambda chunk: {
            "query": [whole for whole, _ in chunk],
            "prompts": [prompt for _, prompt in chunk],
            "labels": [None] * len(chunk),
        },
        read=lambda answer: [[reward] for reward in answer["rewards"]],
    )


def _vllm(path: str, field: str) -> Callable[[RewardModelConfig], Protocol]:
    def protocol(config: RewardModelConfig) -> Protocol:
        return Protocol(
            path,
            # Token ids, so that the server adds no second beginning; no model, because it serves one, under
            # whatever name; without activation, so that logits come back.
            prepare=_renderer(config),
            body=lambda chunk: {"input": [list(ids) for ids in chunk], "use_activation": False},
            read=lambda answer: [row[field] for row in answer["data"]],
        )

    return protocol


PROTOCOLS: dict[str, Callable[[RewardModelConfig], Protocol]] = {
    "rlhf_eval": _ours,
    "openrlhf": _openrlhf,
    "vllm_classify": _vllm("/classify", "probs"),
    "vllm_pooling": _vllm("/pooling", "data"),
    "nemotron": _nemotron,
}


def _patience(config: RewardModelConfig) -> float:
    """Seconds after which this client no longer waits, so that the server need not compute."""
    return endpoint_of(config).timeout_seconds


def _renderer(config: RewardModelConfig) -> Renderer:
    from rlhf_eval.rewards.local import load_tokenizer

    return Renderer(load_tokenizer(config), config)


def _nemotron_attributes(answer: Any) -> Heads:
    """Five attributes: log-probabilities of tokens of their names or, from NVIDIA's containers, text."""
    choice = answer["choices"][0]
    if choice.get("logprobs"):
        found = {entry["token"]: entry["logprob"] for entry in choice["logprobs"]["content"]}
    else:
        found = dict(pair.split(":") for pair in choice["message"]["content"].split(","))
    return [[found[name] for name in NEMOTRON_ATTRIBUTES]]
