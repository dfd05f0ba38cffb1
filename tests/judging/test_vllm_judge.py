"""vLLM's server as a judge: started by the run, asked over HTTP with log-probabilities, stopped with it."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import JudgeError
from rlhf_eval.files import read_jsonl
from rlhf_eval.generation import vllm_server
from rlhf_eval.judging import client, stage
from tests.conftest import VLLM

JUDGED = 12


@pytest.fixture
def judge_model(tmp_path: Path, tiny_llama: Callable[..., Any]) -> Path:
    """A language model that answers m or M and nothing else: their logits are opposite, all others are 0."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = tmp_path / "judge_model"
    folder.mkdir()
    config = tiny_llama(folder, max_position_embeddings=4096, head_dim=32)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["m", "M"])
    tokenizer.save_pretrained(folder)
    config.vocab_size = len(tokenizer)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
        model.lm_head.weight.zero_()
        direction = torch.randn(config.hidden_size)
        first, second = tokenizer.convert_tokens_to_ids(["m", "M"])
        model.lm_head.weight[first], model.lm_head.weight[second] = direction, -direction
    model.save_pretrained(folder)
    return folder


@pytest.mark.vllm
def test_a_run_starts_asks_and_stops_a_vllm_judge(
    config: RunConfig,
    answers: dict[str, dict[str, str]],
    judge_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    words = ("--model", str(judge_model), "--served-model-name", "tiny-judge", "--dtype", "float32")
    serve = (str(VLLM), vllm_server.__file__, *words, "--enforce-eager", "--gpu-memory-utilization", "0.2")
    asked: list[str] = []
    honest = client._ask_all

    async def noted(judge: Any, base_url: str, questions: Any, keep: Any) -> None:
        asked.append(base_url)
        await honest(judge, base_url, questions, keep)

    monkeypatch.setattr(client, "_ask_all", noted)
    prompts = replace(
        config.prompts,
        alpaca_eval=replace(config.prompts.alpaca_eval, limit=JUDGED),
        arena_hard=replace(config.prompts.arena_hard, limit=1),
    )
    judge = replace(
        config.judge, model="tiny-judge", serve=serve, max_tokens=8, max_failed_share=0.9, timeout_seconds=60
    )
    config = replace(config, prompts=prompts, judge=judge)
    with pytest.raises(JudgeError, match="no verdict label"):  # on every one of Arena-Hard's
        stage.judge(config, answers, tmp_path / "judge", tmp_path / "cache", lambda done, total: None)
    verdicts = read_jsonl(tmp_path / "judge" / "alpaca_eval.jsonl")
    assert len(verdicts) == JUDGED
    assert all(row["error"] is None for row in verdicts), verdicts
    assert {row["text"].strip() for row in verdicts} <= {"m", "M"}
    for row in verdicts:  # the likelier token is the one it wrote, and stands for the answer in its place
        wrote_first = row["text"].strip() == "m"
        assert (row["preference"] > 0.5) == (wrote_first == row["policy_first"])
    # It knows no Arena-Hard labels, and says so rather than a number.
    assert all("no verdict label" in row["error"] for row in read_jsonl(tmp_path / "judge/arena_hard.jsonl"))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urlsplit(asked[0]).port or 0)) != 0
