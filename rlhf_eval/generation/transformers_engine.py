"""Sampling from a causal language model with transformers: batched, sorted by length, seeded."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.generation.engines import Job, Keep, Request
from rlhf_eval.generation.policy import (
    SAFELY,
    Parts,
    completion,
    load_tokenizer,
    loading,
    parts_of,
    prompt_ids,
    stop_tokens,
)
from rlhf_eval.records import Completion, Prompt


def load_policy(config: PolicyConfig) -> tuple[Any, Any]:
    """Model and tokenizer (padding left) of a policy; an adapter stands on its base unmerged.

    Raises:
        DataError: it cannot be loaded, or its tokenizer has no chat template.
    """
    parts = parts_of(config)
    tokenizer = load_tokenizer(config, parts)
    return _load_model(config, parts), tokenizer


def _load_model(config: PolicyConfig, parts: Parts) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with loading(config):
        model = AutoModelForCausalLM.from_pretrained(
            parts.base, revision=parts.revision, dtype=getattr(torch, config.dtype), **SAFELY
        )
        if parts.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, parts.adapter)
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device)


def sample(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    seed: int,
    rendered: Sequence[Sequence[int]] | None = None,
) -> tuple[list[Completion], list[tuple[list[int], list[int]]]]:
    """One completion per prompt, in one batch, without touching the global random state.

    Temperature and top_p alone shape the distribution: what else a model's generation config asks for
    (top_k, a repetition penalty) is off, as it is in training and in the other engines.

    Args:
        rendered: token ids of the prompts; None renders them with the tokenizer's own chat template.

    Returns:
        The completions, and for each the token ids of prompt and completion (end token included).
    """
    import torch

    was_training = model.training
    model.eval()
    ids = [prompt_ids(tokenizer, p) for p in prompts] if rendered is None else [list(r) for r in rendered]
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left").to(model.device)
    stops = stop_tokens(model.generation_config, tokenizer)
    sampling: dict[str, Any] = {"do_sample": False}
    if config.temperature > 0:
        sampling = {"do_sample": True, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        output_BT = model.generate(
            **batch,
            max_new_tokens=config.max_tokens,
            eos_token_id=stops,
            pad_token_id=tokenizer.pad_token_id,
            repetition_penalty=1.0,
            min_p=None,
            # The weights are whole here; under ZeRO-3 transformers would wait for other processes at every
            # token.
            synced_gpus=False,
            **sampling,
        )
    model.train(was_training)
    completions, tokens = [], []
    for prompt, prompt_tokens, row in zip(prompts, ids, output_BT.tolist(), strict=True):
        sampled = row[batch["input_ids"].shape[1] :]
        answer = completion(prompt.id, sampled, stops, tokenizer)
        completions.append(answer)
        tokens.append((prompt_tokens, sampled[: answer.tokens]))
    return completions, tokens


@dataclass(frozen=True)
class TransformersEngine:
    """Answers in batches of similar length.

    Batches are formed from the whole set and seeded by their first prompt, so that an interrupted call
    continues with the same answers it would have given.
    """

    model: Any
    tokenizer: Any
    config: GenerationConfig

    def answer(self, requests: Sequence[Request], done: Collection[str], keep: Keep) -> None:
        """Answer every batch of which a prompt is not in `done`, and hand it on whole."""
        ordered = sorted(requests, key=lambda request: (len(request.tokens), request.prompt_id))
        for start in range(0, len(ordered), self.config.batch_size):
            batch = ordered[start : start + self.config.batch_size]
            if not all(request.prompt_id in done for request in batch):
                prompts = [request.prompt for request in batch]
                completions, _ = sample(self.model, self.tokenizer, prompts, self.config, batch[0].seed)
                keep(completions)


@contextmanager
def open_engine(job: Job) -> Iterator[TransformersEngine]:
    """The engine with its weights loaded in this process."""
    yield TransformersEngine(_load_model(job.policy, job.parts), job.tokenizer, job.config)
