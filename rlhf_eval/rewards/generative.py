"""Engines of reward models that answer in words: a language model here, or one behind an API."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import GenerationConfig
from rlhf_eval.errors import DataError
from rlhf_eval.records import Conversation, Prompt, as_json
from rlhf_eval.rewards.batching import batches_by_tokens
from rlhf_eval.rewards.endpoint import endpoint_of, post_all
from rlhf_eval.rewards.local import Tokens, last_positions, load_model, load_tokenizer, padded
from rlhf_eval.rewards.rendering import Renderer
from rlhf_eval.rewards.verdicts import (
    ComparingJudge,
    RatingJudge,
    load_judge,
    read_label,
    verdict_of,
)

TOP_LOG_PROBABILITIES = 20
"""The most that OpenAI's API gives."""
TEXT_BATCH = 32


def load(config: RewardModelConfig) -> ComparingJudge | RatingJudge:
    """A generative reward model that runs here.

    Raises:
        ConfigError: `verdict` is missing or unfit.
        DataError: its weights cannot be loaded, or its labels begin with one token.
    """
    from transformers import AutoModelForCausalLM

    verdict_of(config)
    engine = LocalEngine(
        config, Renderer(load_tokenizer(config), config), load_model(config, AutoModelForCausalLM)
    )
    return load_judge(config, engine)


def load_api(config: RewardModelConfig) -> ComparingJudge | RatingJudge:
    """A judge behind an OpenAI-compatible API.

    Raises:
        ConfigError: `verdict` or `endpoint` is missing or unfit.
    """
    return load_judge(config, ApiEngine(config))


class LocalEngine:
    """Probabilities of the labels as the next token, or verdicts read from generated text."""

    def __init__(self, config: RewardModelConfig, render: Renderer, model: Any) -> None:
        self.config = config
        self.verdict = verdict_of(config)
        self.render = render
        self.model = model
        self.labels = self._label_tokens() if self.verdict.read == "probabilities" else []

    def __call__(self, questions: Sequence[Conversation]) -> np.ndarray:
        fits = [len(ids) <= self.config.max_length for ids in self.render.opened(questions)]
        if self.verdict.read == "text":
            return self._from_text(questions, fits)
        sequences = self.render.opened(questions, self.verdict.opening)
        asked = list(dict.fromkeys(ids for ids, fit in zip(sequences, fits, strict=True) if fit))
        found: dict[Tokens, np.ndarray] = {}
        for batch in batches_by_tokens(asked, self.config.batch_tokens):
            found |= dict(zip(batch, self._forward(batch), strict=True))
        missing = np.full(len(self.verdict.labels), np.nan)
        return np.array([found.get(ids, missing) for ids in sequences]).reshape(-1, len(missing))

    def _forward(self, batch: Sequence[Tokens]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            ids_BT, mask_BT = padded(batch, self.model.device, 0)
            hidden_BTD = self.model.base_model(ids_BT, attention_mask=mask_BT, use_cache=False)[0]
            rows = torch.arange(len(batch), device=hidden_BTD.device)
            last_BD = hidden_BTD[rows, last_positions(batch, hidden_BTD.device)]
            logits_BV = self.model.get_output_embeddings()(last_BD).double()
            return logits_BV[:, self.labels].softmax(-1).cpu().numpy()

    def _from_text(self, questions: Sequence[Conversation], fits: Sequence[bool]) -> np.ndarray:
        from rlhf_eval.generation.transformers_engine import sample

        sampling = GenerationConfig(
            name="verdict", max_tokens=self.verdict.max_tokens, temperature=self.verdict.temperature or 0.0
        )
        prompts = [Prompt(str(n), question) for n, question in enumerate(questions)]
        texts: dict[str, str] = {}
        asked = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
        tokenizer = self.render.tokenizer
        for start in range(0, len(asked), TEXT_BATCH):
            batch = asked[start : start + TEXT_BATCH]
            rendered = self.render.opened([prompt.messages for prompt in batch])
            completions, _ = sample(self.model, tokenizer, batch, sampling, start, rendered)
            texts |= {completion.prompt_id: completion.text for completion in completions}
        return np.array([read_label(texts.get(p.id, ""), self.verdict) for p in prompts]).reshape(
            -1, len(self.verdict.labels)
        )

    def _label_tokens(self) -> list[int]:
        """The token with which each label continues `opening`."""
        tokenizer, opening = self.render.tokenizer, self.verdict.opening
        before = tokenizer(opening, add_special_tokens=False).input_ids
        after = [
            tokenizer(opening + label, add_special_tokens=False).input_ids for label in self.verdict.labels
        ]
        firsts = [
            ids[len(before)] for ids in after if ids[: len(before)] == before and len(ids) > len(before)
        ]
        if len(set(firsts)) < len(self.verdict.labels):
            raise DataError(
                f"After '{opening}' the labels {', '.join(self.verdict.labels)} do not begin with tokens of "
                f"their own in the vocabulary of '{self.config.model}'.",
                "Choose other reward_model.verdict.labels or another opening, or set read=text.",
            )
        return firsts


class ApiEngine:
    """The same from chat completions. Log-probabilities are read of the answer's first token."""

    def __init__(self, config: RewardModelConfig) -> None:
        self.config = config
        self.endpoint = endpoint_of(config)
        self.verdict = verdict_of(config)

    def __call__(self, questions: Sequence[Conversation]) -> np.ndarray:
        unique = list(dict.fromkeys(questions))
        answers = post_all(self.endpoint, "/chat/completions", [self._body(question) for question in unique])
        found = dict(zip(unique, map(self._read, answers), strict=True))
        return np.array([found[question] for question in questions]).reshape(-1, len(self.verdict.labels))

    def _body(self, question: Conversation) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.config.model, "messages": as_json(question)}
        if self.verdict.temperature is not None:
            body["temperature"] = self.verdict.temperature
        if self.verdict.read == "probabilities":
            return body | {"max_tokens": 1, "logprobs": True, "top_logprobs": TOP_LOG_PROBABILITIES}
        limit = self.endpoint.max_output_tokens
        return body | ({"max_completion_tokens": limit} if limit else {"max_tokens": self.verdict.max_tokens})

    def _read(self, answer: Any) -> np.ndarray:
        """NaN for a refusal, an empty answer, or one without a label."""
        missing = np.full(len(self.verdict.labels), np.nan)
        choices = (answer or {}).get("choices") or [{}]
        if self.verdict.read == "text":
            return read_label((choices[0].get("message") or {}).get("content") or "", self.verdict)
        content = (choices[0].get("logprobs") or {}).get("content") or []
        likeliest = content[0].get("top_logprobs", []) if content else []
        by_label = {entry["token"].strip(): np.exp(entry["logprob"]) for entry in reversed(likeliest)}
        found = np.array([by_label.get(label, 0.0) for label in self.verdict.labels])
        return found / found.sum() if found.sum() > 0 else missing
