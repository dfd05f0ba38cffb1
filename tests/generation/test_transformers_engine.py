"""Sampling from a tiny real Llama: greedy is one-by-one argmax; stop tokens, seeds, continuation, adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import append_jsonl, read_jsonl, sha256_file, write_json
from rlhf_eval.generation import transformers_engine as engine
from rlhf_eval.generation.engines import answer_sets
from rlhf_eval.lab.tokenizer import build_tokenizer
from rlhf_eval.lab.world import all_tasks
from rlhf_eval.records import Prompt, user_prompt

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


def answer(
    folder: Path, out: Path, seed: int = 0, prompts: list[Prompt] = PROMPTS, **changes: Any
) -> list[dict]:
    policy = PolicyConfig(name="tiny", model=str(folder))
    [file] = answer_sets(policy, config(**changes), {"set": prompts}, seed, 64, out, lambda done, total: None)
    return read_jsonl(file)


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


def test_what_else_a_generation_config_asks_for_is_off(
    policy: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = policy
    plain, _ = engine.sample(model, tokenizer, PROMPTS, config(), 3)
    for field, value in {"top_k": 1, "repetition_penalty": 3.0, "min_p": 0.9, "top_p": 0.1}.items():
        monkeypatch.setattr(model.generation_config, field, value)
    assert engine.sample(model, tokenizer, PROMPTS, config(), 3)[0] == plain


def test_the_same_seed_gives_the_same_answers_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    first, again, other = (answer(folder, tmp_path / str(n), seed) for n, seed in enumerate((0, 0, 1)))
    assert first == again
    assert first != other
    assert [row["prompt_id"] for row in first] == [prompt.id for prompt in PROMPTS]


@pytest.mark.parametrize("kept", [1, 8, 11])
def test_an_interrupted_call_continues_with_the_same_answers(
    folder: Path, policy: tuple[Any, Any], tmp_path: Path, kept: int
) -> None:
    """`kept` answers are on disk and the next line is torn, as a kill leaves it."""
    answer(folder, tmp_path / "whole")
    lengths = {p.id: len(engine.prompt_ids(policy[1], p)) for p in PROMPTS}
    rows = sorted(
        read_jsonl(tmp_path / "whole" / "set.jsonl"),
        key=lambda r: (lengths[r["prompt_id"]], r["prompt_id"]),
    )
    segment = tmp_path / "part" / "set.segment.jsonl"
    append_jsonl(segment, *rows[:kept])
    with segment.open("a") as stream:
        stream.write('{"prompt_id": "1", "te')
    answer(folder, tmp_path / "part")
    assert sha256_file(tmp_path / "part" / "set.jsonl") == sha256_file(tmp_path / "whole" / "set.jsonl")
    assert not segment.exists()


def test_a_prompt_that_is_too_long_is_named(folder: Path, tmp_path: Path) -> None:
    prompts = [*PROMPTS, user_prompt("long", "cat " * 100)]
    with pytest.raises(DataError, match=r"1 evaluation prompts exceed 64 tokens, first long"):
        answer(folder, tmp_path, prompts=prompts)


def test_an_adapter_answers_as_its_merged_weights_do(folder: Path, tmp_path: Path) -> None:
    """The adapter's folder has no tokenizer: its base's is taken."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder)
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("tokenizer*"))
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    build_tokenizer(tmp_path / "merged")
    there = answer(tmp_path / "adapter", tmp_path / "1", temperature=0.0)
    assert there == answer(tmp_path / "merged", tmp_path / "2", temperature=0.0)
    assert there != answer(folder, tmp_path / "3", temperature=0.0)


def test_an_adapter_whose_base_is_gone_is_refused(tmp_path: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": str(tmp_path / "gone")}
    write_json(tmp_path / "adapter_config.json", adapter)
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(DataError, match="cannot be loaded"):
        engine.load_policy(PolicyConfig(name="tiny", model=str(tmp_path)))
    write_json(tmp_path / "adapter_config.json", adapter | {"peft_type": "IA3"})
    with pytest.raises(DataError, match="is IA3, not LoRA"):
        engine.load_policy(PolicyConfig(name="tiny", model=str(tmp_path)))


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
