"""Sampling from a causal language model with transformers: batched, sorted by length, seeded."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import append_jsonl, read_jsonl, write_jsonl
from rlhf_eval.records import Completion, Prompt, as_json


def load_policy(config: PolicyConfig) -> tuple[Any, Any]:
    """Model and tokenizer (padding left) of a policy.

    Raises:
        DataError: it cannot be loaded, or its tokenizer has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.model, revision=config.revision, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(
            config.model, revision=config.revision, dtype=getattr(torch, config.dtype), use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise DataError(
            f"Policy '{config.model}' cannot be loaded: {str(error).splitlines()[0]}",
            "Check policy.model and .revision, network and HF_TOKEN, or give a local folder.",
        ) from error
    if tokenizer.chat_template is None:
        raise DataError(f"The tokenizer of '{config.model}' has no chat template.", "Choose a chat model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device), tokenizer


def stop_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a turn: those of the model's generation config and the tokenizer's own."""
    configured = model.generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*configured, tokenizer.eos_token_id] if token is not None})


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt with the assistant's turn opened."""
    return tokenizer.apply_chat_template(
        as_json(prompt.messages), add_generation_prompt=True, return_dict=False
    )


def sample(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], config: GenerationConfig, seed: int
) -> tuple[list[Completion], list[tuple[list[int], list[int]]]]:
    """One completion per prompt, in one batch, without touching the global random state.

    Returns:
        The completions, and for each the token ids of prompt and completion (end token included).
    """
    import torch

    was_training = model.training
    model.eval()
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    batch = tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left").to(model.device)
    stops = stop_token_ids(model, tokenizer)
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
            **sampling,
        )
    model.train(was_training)
    completions, tokens = [], []
    for prompt, prompt_tokens, row in zip(prompts, ids, output_BT.tolist(), strict=True):
        answer = row[batch["input_ids"].shape[1] :]
        end = next((i for i, token in enumerate(answer) if token in stops), None)
        answer = answer if end is None else answer[: end + 1]
        text = tokenizer.decode(answer, skip_special_tokens=True).strip()
        completions.append(Completion(prompt.id, text, len(answer), "length" if end is None else "stop"))
        tokens.append((prompt_tokens, answer))
    return completions, tokens


def answer_prompts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    seed: int,
    max_prompt_tokens: int,
    file: Path,
    advance: Callable[[int, int], None],
) -> None:
    """Answer every prompt and write `file` in prompt order.

    Batches are formed from the whole set and seeded by their first prompt, and a finished batch is on disk
    before the next begins, so that an interrupted call continues with the same answers it would have given.

    Raises:
        DataError: a prompt longer than `max_prompt_tokens`.
    """
    lengths = [len(prompt_ids(tokenizer, prompt)) for prompt in prompts]
    if too_long := [p.id for p, n in zip(prompts, lengths, strict=True) if n > max_prompt_tokens]:
        raise DataError(
            f"{len(too_long)} evaluation prompts exceed {max_prompt_tokens} tokens, first {too_long[0]}.",
            "Raise prompts.max_prompt_tokens.",
        )
    order = sorted(range(len(prompts)), key=lambda index: (lengths[index], prompts[index].id))
    segment = file.with_name(f"{file.stem}.segment.jsonl")
    done = {row["prompt_id"]: row for row in read_jsonl(segment)} if segment.exists() else {}
    for start in range(0, len(order), config.batch_size):
        batch = [prompts[index] for index in order[start : start + config.batch_size]]
        advance(start, len(order))
        if all(prompt.id in done for prompt in batch):
            continue
        completions, _ = sample(model, tokenizer, batch, config, _batch_seed(seed, batch[0].id))
        for prompt, completion in zip(batch, completions, strict=True):
            row = {
                "prompt_id": prompt.id,
                "instruction": prompt.instruction,
                "text": completion.text,
                "tokens": completion.tokens,
                "finish": completion.finish,
            }
            done[prompt.id] = row
            append_jsonl(segment, row)
    write_jsonl(file, (done[prompt.id] for prompt in prompts))
    segment.unlink(missing_ok=True)
    advance(len(order), len(order))


def _batch_seed(seed: int, prompt_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:6], "big")
