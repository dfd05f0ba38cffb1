"""Tokens a second of GRPO on a GPU, and where the time goes.

    python bench/gpu_training.py            one CUDA device: a Llama of 1.0 B parameters and a reward model of
                                            the same size, both randomly initialised
    python bench/gpu_training.py --tiny     the same code with models of two layers, on any machine
    … --deterministic                       with `deterministic=true`: its price, the same weights twice

Nothing is downloaded: the tokenizer knows 32,000 made-up words. A policy that knows nothing almost never ends
its turn, so every completion has the full length. Weights are kept in 32 bits and computed with in bf16; the
first step, which warms up, is left out.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

WORDS, STEPS = 32_000, 5
PARTS = ("generation", "scoring", "training", "synchronisation", "idle")
BILLION = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {"prompt": 128, "completion": 256, "prompts": 16, "batch": 16}
"""Words of a prompt, tokens of a completion, prompts of a step (8 completions each), completions in one
forward and backward pass."""
TINY_SIZES = {"prompt": 8, "completion": 16, "prompts": 2, "batch": 8}


def main() -> int:
    """Print the table; 0 also where there is no GPU."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--deterministic", action="store_true")
    options = parser.parse_args()
    tiny = options.tiny
    import torch

    from rlhf_eval.determinism import make_deterministic
    from rlhf_eval.files import sha256_file
    from rlhf_eval.lab.tokenizer import build_tokenizer

    if options.deterministic:
        make_deterministic()
    if not (tiny or torch.cuda.is_available()):
        print("No CUDA device here: nothing was measured. --tiny runs the same code with small models.")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape, sizes = (TINY, TINY_SIZES) if tiny else (BILLION, SIZES)
        for model in ("policy", "reward_model"):
            build_tokenizer(folder / model, [f"w{number}" for number in range(WORDS)])
        parameters = write_models(folder, shape, 2 * (sizes["prompt"] + sizes["completion"]))
        write_prompts(folder / "prompts.jsonl", sizes["prompt"])
        rows = trained(folder, sizes)
        show(rows, parameters)
        weights = folder / "run" / "stages" / "train" / "policy" / "model.safetensors"
        print(f"weights {sha256_file(weights)[:16]}, {'' if options.deterministic else 'not '}deterministic")
    return 0


def write_models(folder: Path, shape: dict[str, Any], longest: int) -> dict[str, int]:
    """A policy and a reward model with random weights; how many each has."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=longest,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    config.num_labels = 1
    kinds: dict[str, Any] = {"policy": LlamaForCausalLM, "reward_model": LlamaForSequenceClassification}
    parameters = {}
    for name, kind in kinds.items():
        model = kind(config)
        model.save_pretrained(folder / name)
        parameters[name] = model.num_parameters()
    return parameters


def write_prompts(file: Path, words: int) -> None:
    random = Random(0)
    rows = [
        {"prompt": " ".join(f"w{random.randrange(1000)}" for _ in range(words))} for _ in range(16 * STEPS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def trained(folder: Path, sizes: dict[str, int]) -> list[dict[str, Any]]:
    """The training rows of `metrics.jsonl` of a run of GRPO."""
    import torch

    from rlhf_eval.config.compose import compose
    from rlhf_eval.files import read_jsonl
    from rlhf_eval.training.launch import launch

    gpu = torch.cuda.is_available()
    config = compose(
        [
            "experiment=lab",
            "reward_model=lab_clean",
            "gold_reward_model=null",
            f"policy.model={folder / 'policy'}",
            f"reward_model.model={folder / 'reward_model'}",
            f"reward_model.max_length={2 * (sizes['prompt'] + sizes['completion'])}",
            f"prompts.train={folder / 'prompts.jsonl'}",
            f"prompts.held_out={folder / 'prompts.jsonl'}",
            "prompts.held_out_limit=8",
            f"prompts.max_prompt_tokens={2 * sizes['prompt']}",
            "algorithm=grpo",
            f"algorithm.steps={STEPS}",
            f"algorithm.checkpoint_every={STEPS}",
            f"algorithm.prompts_per_step={sizes['prompts']}",
            f"algorithm.max_completion_tokens={sizes['completion']}",
            f"algorithm.completions_per_device_batch={sizes['batch']}",
            "algorithm.normaliser_prompts=4",
            f"accelerate.mixed_precision={'bf16' if gpu else 'no'}",
        ]
    )
    run = folder / "run"
    (run / "stages" / "train").mkdir(parents=True)
    launch(config, run / "stages" / "train", run / "metrics.jsonl", run / "log", lambda *_: None)
    return [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]


def show(rows: list[dict[str, Any]], parameters: dict[str, int]) -> None:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    counts = ", ".join(f"{name} {number / 1e9:.3f} B" for name, number in parameters.items())
    print(f"{device}, torch {torch.__version__}; {counts} parameters")
    steps = rows[1:]
    seconds, tokens = sum(row["seconds"] for row in steps), sum(row["tokens"] for row in steps)
    step = median(row["seconds"] for row in steps)
    print(f"{tokens / seconds:.0f} completion tokens a second; a step takes {step:.2f} s")
    for part in PARTS:
        print(f"{part:16}{sum(row[f'{part}_seconds'] for row in steps) / seconds:7.1%}")
    if torch.cuda.is_available():
        print(f"peak GPU memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
