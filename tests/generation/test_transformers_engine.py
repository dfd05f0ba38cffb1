"""Sampling from a tiny real Llama: greedy equals one-by-one argmax, stop tokens, seeds, continuation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import append_jsonl, read_jsonl, sha256_file
from rlhf_eval.generation import transformers_engine as engine
from rlhf_eval.lab.world import all_tasks
from rlhf_eval.records import user_prompt

PROMPTS = [user_prompt(str(number), task.instruction) for number, task in enumerate(all_tasks()[::180])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Callable[..., Any]) -> Path:
    import torch
    from transformers import LlamaForCausalLM

    path = tmp_path_factory.mktemp("policy")
    config = tiny_llama(path, initializer_range=0.4)  # wide logits, so that an argmax is clear
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def policy(folder: Path) -> tuple[Any, Any]:
    return engine.load_policy(PolicyConfig(name="tiny", model=str(folder)))


def config(**changes: Any) -> GenerationConfig:
    return GenerationConfig(**({"name": "test", "max_tokens": 12, "batch_size": 8} | changes))


def answer(policy: tuple[Any, Any], file: Path, seed: int = 0, **changes: Any) -> list[dict]:
    engine.answer_prompts(*policy, PROMPTS, config(**changes), seed, 64, file, lambda done, total: None)
    return list(read_jsonl(file))


def test_greedy_in_a_batch_is_argmax_one_by_one(policy: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = policy
    _, tokens = engine.sample(model, tokenizer, PROMPTS, config(temperature=0.0), 0)
    for prompt, completion in tokens:
        ids = list(prompt)
        for expected in completion:
            with torch.inference_mode():
                logits_V = model(torch.tensor([ids])).logits[0, -1]
            # Padding changes the last bits of the logits; a near tie may go either way.
            assert logits_V[expected] >= logits_V.max() - 1e-4
            ids.append(expected)


def test_every_stop_token_ends_a_completion(policy: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = policy
    free, tokens = engine.sample(model, tokenizer, PROMPTS, config(), 3)
    often = max(range(len(tokenizer)), key=lambda token: sum(token in answer for _, answer in tokens))
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, often])
    stopped, ended = engine.sample(model, tokenizer, PROMPTS, config(), 3)
    assert sum(c.finish == "stop" for c in stopped) > sum(c.finish == "stop" for c in free)
    for completion, (_, ids) in zip(stopped, ended, strict=True):
        assert completion.tokens == len(ids)
        stops = [token for token in ids if token in (often, tokenizer.eos_token_id)]
        assert stops == ([ids[-1]] if completion.finish == "stop" else [])


def test_sampling_leaves_the_global_random_state_alone(policy: tuple[Any, Any]) -> None:
    import torch

    before = torch.get_rng_state()
    engine.sample(*policy, PROMPTS, config(), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(
    policy: tuple[Any, Any], tmp_path: Path
) -> None:
    first, again, other = (answer(policy, tmp_path / f"{n}.jsonl", seed) for n, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first != other
    assert [row["prompt_id"] for row in first] == [prompt.id for prompt in PROMPTS]


@pytest.mark.parametrize("kept", [1, 8, 11])
def test_an_interrupted_call_continues_with_the_same_answers(
    policy: tuple[Any, Any], tmp_path: Path, kept: int
) -> None:
    """`kept` answers are on disk and the next line is torn, as a kill leaves it."""
    answer(policy, tmp_path / "whole.jsonl")
    lengths = {p.id: len(engine.prompt_ids(policy[1], p)) for p in PROMPTS}
    rows = sorted(
        read_jsonl(tmp_path / "whole.jsonl"), key=lambda r: (lengths[r["prompt_id"]], r["prompt_id"])
    )
    segment = tmp_path / "part.segment.jsonl"
    for row in rows[:kept]:
        append_jsonl(segment, row)
    with segment.open("a") as stream:
        stream.write('{"prompt_id": "1", "te')
    answer(policy, tmp_path / "part.jsonl")
    assert sha256_file(tmp_path / "part.jsonl") == sha256_file(tmp_path / "whole.jsonl")
    assert not segment.exists()


def test_a_prompt_that_is_too_long_is_named(policy: tuple[Any, Any], tmp_path: Path) -> None:
    prompts = [*PROMPTS, user_prompt("long", "cat " * 100)]
    with pytest.raises(DataError, match=r"1 evaluation prompts exceed 64 tokens, first long"):
        engine.answer_prompts(*policy, prompts, config(), 0, 64, tmp_path / "a.jsonl", lambda *_: None)


def test_a_policy_without_chat_template_is_refused(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    LlamaForCausalLM.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no chat template"):
        engine.load_policy(PolicyConfig(name="tiny", model=str(tmp_path)))
    with pytest.raises(DataError, match=r"nowhere.*cannot be loaded"):
        engine.load_policy(PolicyConfig(name="tiny", model=str(tmp_path / "nowhere")))
