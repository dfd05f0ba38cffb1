"""Answering sets of prompts with whichever engine the configuration chooses.

An engine turns token ids into completions; which prompts are open, where answers are kept and how an
interrupted call continues is the same for all and stands here.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import append_jsonl, read_jsonl, write_jsonl
from rlhf_eval.generation.policy import Parts, load_tokenizer, parts_of, prompt_ids
from rlhf_eval.records import Completion, Prompt
from rlhf_eval.registry import Registry

ENGINES = Registry(
    "generation engine",
    {
        "transformers": "rlhf_eval.generation.transformers_engine:open_engine",
        "vllm": "rlhf_eval.generation.vllm_engine:open_engine",
        "openai": "rlhf_eval.generation.openai_engine:open_engine",
    },
)


@dataclass(frozen=True)
class Request:
    """One prompt as an engine sees it: rendered by the policy's own tokenizer and chat template.

    Attributes:
        seed: follows from the run's seed and the prompt's id alone; a non-negative 48-bit number.
    """

    prompt: Prompt
    tokens: list[int]
    seed: int

    @property
    def prompt_id(self) -> str:
        return self.prompt.id


@dataclass(frozen=True)
class Job:
    """What an engine is opened for.

    Attributes:
        context: tokens of the longest prompt plus the longest answer.
        log: file for what a process of the engine prints.
    """

    policy: PolicyConfig
    parts: Parts
    tokenizer: Any
    config: GenerationConfig
    context: int
    log: Path


Keep = Callable[[Sequence[Completion]], None]
"""Puts completions on the disk; called as they arrive, in any order."""


class Engine(Protocol):
    """Samples answers."""

    def answer(self, requests: Sequence[Request], done: Collection[str], keep: Keep) -> None:
        """Answer every request whose prompt id is not in `done`.

        All requests of the set are given, so that an engine whose answers depend on the batch that they
        stand in can form the same batches again.
        """
        ...


def answer_sets(
    policy: PolicyConfig,
    config: GenerationConfig,
    sets: Mapping[str, Sequence[Prompt]],
    seed: int,
    max_prompt_tokens: int,
    folder: Path,
    advance: Callable[[int, int], None],
) -> list[Path]:
    """Answer sets of prompts and write `<name>.jsonl` for each, one line a prompt in prompt order.

    An answer is appended to `<name>.segment.jsonl` as it arrives; the same call after a kill asks for what
    is missing only. Lines hold `prompt_id`, `instruction`, `text`, `tokens` and `finish`.

    Args:
        sets: name → prompts; ids are unique within a set.
        advance: told how many prompts of the set under way are answered, and of how many.

    Returns:
        The files, in the order of `sets`.

    Raises:
        DataError: the policy cannot be loaded, or a prompt is longer than `max_prompt_tokens`.
        ConfigError: the engine is not there.
        StageError: the engine or server failed; answers given before are kept.
    """
    parts = parts_of(policy)
    tokenizer = load_tokenizer(policy, parts)
    requests = {
        name: _requests(tokenizer, prompts, seed, max_prompt_tokens) for name, prompts in sets.items()
    }
    files = {name: folder / f"{name}.jsonl" for name in sets}
    if not all(file.exists() for file in files.values()):
        longest = max((len(request.tokens) for group in requests.values() for request in group), default=0)
        job = Job(policy, parts, tokenizer, config, longest + config.max_tokens, folder / "engine.log")
        opened: AbstractContextManager[Engine] = ENGINES.get(config.engine)(job)
        with opened as engine:
            for name in sets:
                if not files[name].exists():
                    _answer_set(engine, requests[name], files[name], advance)
    return list(files.values())


def prompt_seed(seed: int, prompt_id: str) -> int:
    """The seed of a prompt's sampling: 48 bits of SHA-256 of run seed and prompt id."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{prompt_id}".encode()).digest()[:6], "big")


def _requests(tokenizer: Any, prompts: Sequence[Prompt], seed: int, max_prompt_tokens: int) -> list[Request]:
    requests = [
        Request(prompt, prompt_ids(tokenizer, prompt), prompt_seed(seed, prompt.id)) for prompt in prompts
    ]
    if too_long := [request for request in requests if len(request.tokens) > max_prompt_tokens]:
        raise DataError(
            f"{len(too_long)} evaluation prompts exceed {max_prompt_tokens} tokens, first "
            f"{too_long[0].prompt_id}.",
            "Raise prompts.max_prompt_tokens.",
        )
    return requests


def _answer_set(
    engine: Engine, requests: Sequence[Request], file: Path, advance: Callable[[int, int], None]
) -> None:
    segment = file.with_name(f"{file.stem}.segment.jsonl")
    instructions = {request.prompt_id: request.prompt.instruction for request in requests}
    rows = {row["prompt_id"]: row for row in read_jsonl(segment)} if segment.exists() else {}
    advance(len(rows), len(requests))

    def keep(completions: Sequence[Completion]) -> None:
        arrived = [_row(completion, instructions[completion.prompt_id]) for completion in completions]
        append_jsonl(segment, *arrived)
        rows.update((row["prompt_id"], row) for row in arrived)
        advance(len(rows), len(requests))

    if len(rows) < len(requests):
        engine.answer(requests, frozenset(rows), keep)
    write_jsonl(file, (rows[request.prompt_id] for request in requests))
    segment.unlink(missing_ok=True)


def _row(completion: Completion, instruction: str) -> dict[str, Any]:
    return {
        "prompt_id": completion.prompt_id,
        "instruction": instruction,
        "text": completion.text,
        "tokens": completion.tokens,
        "finish": completion.finish,
    }
