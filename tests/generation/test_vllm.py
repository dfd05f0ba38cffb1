"""vLLM for real, on the CPU: the engine in its worker and the server agree with transformers."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.config.schema import GenerationConfig, PolicyConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import read_jsonl, sha256_file
from rlhf_eval.generation import openai_engine
from rlhf_eval.generation.engines import Job, answer_sets
from rlhf_eval.generation.policy import load_tokenizer, parts_of
from rlhf_eval.generation.vllm_worker import GRACE
from rlhf_eval.processes import fork_context
from rlhf_eval.records import Prompt, user_prompt

pytestmark = pytest.mark.vllm

PYTHON = str(Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")
CONFIG = GenerationConfig(
    name="test",
    max_tokens=8,
    temperature=0.0,
    python=PYTHON,
    enforce_eager=True,
    concurrency=64,
    gpu_memory_share=0.2,  # of the machine's memory, on the CPU; other tests need some too
)


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


def answer(
    folder: Path, out: Path, prompts: Sequence[Prompt], config: GenerationConfig = CONFIG, seed: int = 0
) -> list[dict[str, Any]]:
    policy = PolicyConfig(name="policy", model=str(folder))
    [file] = answer_sets(policy, config, {"set": prompts}, seed, 64, out, lambda done, total: None)
    return read_jsonl(file)


def by_transformers(folder: Path, out: Path, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    return answer(folder, out, prompts, replace(CONFIG, engine="transformers"))


def differing(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> int:
    return sum(row != other for row, other in zip(rows, others, strict=True))


@pytest.fixture(scope="module")
def undisturbed(lab_policy: Path, prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of greedy answers of the engine `vllm` to all prompts."""
    out = tmp_path_factory.mktemp("undisturbed")
    answer(lab_policy, out, prompts, replace(CONFIG, engine="vllm"))
    return out


@pytest.fixture(scope="module")
def server(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of vLLM's server as a run starts it: the adapter is `policy` there, its base `base`."""
    policy = PolicyConfig(name="policy", model=str(adapter))
    parts = parts_of(policy)
    log = tmp_path_factory.mktemp("server") / "engine.log"
    job = Job(policy, parts, load_tokenizer(policy, parts), replace(CONFIG, engine="openai"), 88, log)
    with openai_engine.open_engine(job) as engine:
        yield engine.base_url
    time.sleep(0.2)
    assert processes_of(log) == []


def at(server: str, model: str, **changes: Any) -> GenerationConfig:
    return replace(CONFIG, engine="openai", base_url=server, served_model=model, **changes)


def processes_of(log: Path) -> list[str]:
    """Processes whose standard error goes to a file."""
    found = []
    for place in Path("/proc").glob("[0-9]*/fd/2"):
        try:
            if os.readlink(place) == str(log):
                found.append(place.parts[2])
        except OSError:
            continue
    return found


def test_greedy_answers_are_those_of_transformers(
    undisturbed: Path, lab_policy: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    rows, expected = read_jsonl(undisturbed / "set.jsonl"), by_transformers(lab_policy, tmp_path, prompts)
    assert differing(rows[:50], expected[:50]) == 0
    assert differing(rows, expected) <= 4  # near ties
    assert {row["finish"] for row in rows} == {"stop", "length"}
    assert any(row["text"].endswith(("pine", "yellow")) and row["tokens"] < 8 for row in rows)


def test_a_killed_run_leaves_no_process_and_continues_with_what_is_missing(
    undisturbed: Path, lab_policy: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    arguments = (lab_policy, tmp_path, prompts, replace(CONFIG, engine="vllm"))
    process = fork_context().Process(target=answer, args=arguments)
    process.start()
    segment = tmp_path / "set.segment.jsonl"
    while not (segment.exists() and segment.stat().st_size):  # a first answer is in it
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    kept = len(read_jsonl(segment))
    assert 0 < kept < len(prompts)
    time.sleep(GRACE + 2)
    assert processes_of(tmp_path / "engine.log") == []
    seen = []
    policy = PolicyConfig(name="policy", model=str(lab_policy))
    answer_sets(policy, arguments[3], {"set": prompts}, 0, 64, tmp_path, lambda *done: seen.append(done))
    assert seen[0] == (kept, len(prompts))
    assert seen[-1] == (len(prompts), len(prompts))
    assert sha256_file(tmp_path / "set.jsonl") == sha256_file(undisturbed / "set.jsonl")


def test_the_server_gives_the_same_greedy_answers(
    server: str, undisturbed: Path, lab_policy: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    rows = answer(lab_policy, tmp_path, prompts, at(server, "base"))
    assert differing(rows, read_jsonl(undisturbed / "set.jsonl")) <= 4


def test_an_adapter_is_served_as_peft_applies_it(
    server: str, undisturbed: Path, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    expected = by_transformers(adapter, tmp_path / "peft", prompts[:50])
    assert differing(expected, read_jsonl(undisturbed / "set.jsonl")[:50]) > 25
    assert differing(answer(adapter, tmp_path / "server", prompts[:50], at(server, "policy")), expected) <= 1


def test_sampled_answers_follow_from_seed_and_prompt_alone(
    server: str, adapter: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """In the worker, at the server, in another order, beside fewer others: the same. Another seed: others."""
    warm = {"temperature": 0.7, "top_p": 0.9}
    worker = answer(adapter, tmp_path / "1", prompts[:100], replace(CONFIG, engine="vllm", **warm))
    there = answer(adapter, tmp_path / "2", prompts[99::-1], at(server, "policy", **warm))
    assert differing(worker, there[::-1]) <= 1
    fewer = answer(adapter, tmp_path / "3", prompts[40:50], at(server, "policy", **warm))
    assert differing(worker[40:50], fewer) == 0
    other = answer(adapter, tmp_path / "4", prompts[:100], at(server, "policy", **warm), seed=1)
    assert differing(worker, other) > 50


def test_samples_are_distributed_as_temperature_and_nucleus_say(
    server: str, lab_policy: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    """The first word of 600 answers to one instruction, against the model's own probabilities."""
    import torch

    from rlhf_eval.generation.transformers_engine import load_policy, prompt_ids

    temperature, top_p, count = 1.3, 0.9, 600
    model, tokenizer = load_policy(PolicyConfig(name="policy", model=str(lab_policy)))
    with torch.inference_mode():
        logits_V = model(torch.tensor([prompt_ids(tokenizer, prompts[0])])).logits[0, -1]
    probabilities, order = (logits_V / temperature).softmax(0).sort(descending=True)
    nucleus = probabilities[probabilities.cumsum(0) - probabilities < top_p]
    expected: Counter[str] = Counter()
    for token, share in zip(order.tolist(), (nucleus / nucleus.sum()).tolist(), strict=False):
        expected[tokenizer.decode([token], skip_special_tokens=True)] += share
    assert len(expected) > 5
    same = [user_prompt(f"s{number}", prompts[0].instruction) for number in range(count)]
    config = at(server, "base", temperature=temperature, top_p=top_p, max_tokens=1)
    found = Counter(row["text"] for row in answer(lab_policy, tmp_path, same, config))
    assert set(found) <= set(expected)
    for word, share in expected.items():
        assert abs(found[word] - count * share) < 4.5 * (count * share * (1 - share)) ** 0.5 + 1, word


def test_a_model_that_is_not_there_and_a_text_that_is_too_long_are_told_before_any_call(
    server: str, adapter: Path, lab_policy: Path, prompts: list[Prompt], tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=r"has no model 'polic'; it has: .*base.*policy"):
        answer(adapter, tmp_path, prompts, at(server, "polic"))
    with pytest.raises(StageError, match=r"reads at most 88 tokens.*\n.*--max-model-len \d+"):
        answer(lab_policy, tmp_path, prompts, at(server, "base", max_tokens=100))
