"""The same `run` on the real sets: 805 AlpacaEval instructions and Arena-Hard's 750 questions.

The policy is a randomly initialised Qwen3 of two layers and the judge is the lab's, so the numbers mean
nothing; formats, lengths, unicode, continuation and reports are the real ones.
"""

import json
import time
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.processes import fork_context
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.stages import execute
from rlhf_eval.sources import read_rows

pytestmark = pytest.mark.golden

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def policy(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen3 with a byte-level tokenizer fitted to the real prompts."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    prompts = [row["prompt"] for row in read_rows(str(golden / "arena_hard" / "question-v2.0.jsonl.gz"))]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        prompts, trainers.BpeTrainer(vocab_size=4000, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            max_position_embeddings=32768,
            bos_token_id=None,
            eos_token_id=core.token_to_id("<|im_end|>"),
            pad_token_id=core.token_to_id("<|endoftext|>"),
        )
    )
    folder = tmp_path_factory.mktemp("policy")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_real_sets_from_end_to_end(
    golden: Path, policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = golden / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json.gz"
    arena = golden / "arena_hard"
    overrides = [
        f"output={tmp_path}",
        "reward_model=length_only",
        "policy=tulu3_8b_sft",
        f"policy.model={policy}",
        "policy.name=tiny_qwen3",
        "policy.revision=null",
        "policy.dtype=float32",
        "prompts=alpaca_arena",
        f"prompts.train={references}",
        f"prompts.held_out={arena / 'question-v0.1.jsonl.gz'}",
        "prompts.held_out_limit=4",
        "prompts.max_prompt_tokens=16384",
        f"prompts.alpaca_eval.reference_outputs={references}",
        f"prompts.alpaca_eval.difficulty={golden / 'alpaca_eval' / 'instruction_difficulty.csv'}",
        f"prompts.arena_hard.questions={arena / 'question-v2.0.jsonl.gz'}",
        f"prompts.arena_hard.baseline_answers={arena / 'answers-v2.0-o3-mini-2025-01-31.jsonl.gz'}",
        "~prompts.arena_hard.category_baseline_answers",
        f"prompts.alpaca_eval.regulariser={golden / 'alpaca_eval' / 'df_gamed.csv'}",
        "algorithm=grpo_lab",
        "algorithm.steps=2",
        "algorithm.prompts_per_step=2",
        "algorithm.group_size=2",
        "algorithm.completions_per_device_batch=4",
        "algorithm.normaliser_prompts=2",
        "generation.max_tokens=12",
        "generation.batch_size=32",
        "judge=lab",
    ]
    run = tmp_path / "real" / "run"
    process = fork_context().Process(target=execute, args=(compose(overrides), run, SilentProgress()))
    process.start()
    segment = run / "stages" / "generate" / "arena_hard.segment.jsonl"
    deadline = time.monotonic() + 300
    while not (segment.exists() and segment.stat().st_size):  # a first answer is in it
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.join()

    assert main(["run", *overrides, "--run-dir", str(run)]) == 0
    answers = {
        name: list(read_jsonl(run / "stages" / "generate" / f"{name}.jsonl"))
        for name in ("alpaca_eval", "arena_hard")
    }
    assert {name: len(rows) for name, rows in answers.items()} == {"alpaca_eval": 805, "arena_hard": 750}
    instructions = [row["instruction"] for row in read_rows(str(references))]
    assert [row["instruction"] for row in answers["alpaca_eval"]] == instructions
    scores = read_json(run / "stages" / "score" / "scores.json")
    assert (scores["alpaca_eval"]["n"], scores["alpaca_eval"]["failed"]) == (805, 0)
    assert (scores["arena_hard"]["n"], scores["arena_hard"]["failed"]) == (750, 0)
    assert "difficulty" in scores["alpaca_eval"]["length_control"]
    assert scores["alpaca_eval"]["win_rate"] < 20  # twelve random tokens against GPT-4
    capsys.readouterr()

    assert main(["rank", str(run.parent), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["reward_model"], row["n_seeds"]) == ("length_only", 1)
    assert main(["report", str(run.parent)]) == 0
    assert "length_only" in (run.parent / "report.html").read_text()
