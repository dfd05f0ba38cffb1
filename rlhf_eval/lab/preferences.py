"""Prompt sets, preference pairs and the reward models trained on them with TRL's RewardTrainer."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from rlhf_eval.config.schema import GenerationConfig, LabConfig, PolicyConfig
from rlhf_eval.files import read_jsonl, write_json, write_jsonl
from rlhf_eval.lab.world import Task, all_tasks, utility
from rlhf_eval.records import Prompt, user_prompt

REWARD_MODELS = ("clean", "contaminated", "noisy", "length_biased", "clean_small")
"""In the order in which they are trained: the longest first."""
TRAIN_PROMPTS, HELD_OUT_PROMPTS = 1200, 128
MARGIN = 0.05
"""Pairs whose gold utilities are closer than this are not used: no labeller could tell them apart."""
NOISY_FLIPS, CONTAMINATED_FLIPS, LEAK_COPIES = 0.3, 0.4, 10


def build(lab: LabConfig, world: Path, folder: Path) -> None:
    """Split the instructions, sample the policy, and write prompt sets, evaluation sets and pairs."""
    import torch

    torch.set_num_threads(2)
    random = Random(f"prompts {lab.seed}")
    tasks = all_tasks()
    random.shuffle(tasks)
    arena = [task for task in tasks if task.hard][: lab.evaluation_prompts]
    taken = set(arena)
    rest = iter([task for task in tasks if task not in taken])
    train = [next(rest) for _ in range(TRAIN_PROMPTS)]
    held_out = [next(rest) for _ in range(HELD_OUT_PROMPTS)]
    alpaca = [next(rest) for _ in range(lab.evaluation_prompts)]
    public, private = ([next(rest) for _ in range(lab.benchmark_pairs)] for _ in range(2))

    write_jsonl(folder / "train_prompts.jsonl", _prompt_rows("train", train))
    write_jsonl(folder / "held_out_prompts.jsonl", _prompt_rows("held_out", held_out))
    _write_evaluations(lab, world, folder, alpaca, arena)
    pool = [random.choice(train) for _ in range(2 * lab.clean_pairs)]
    write_jsonl(folder / "preferences.jsonl", _pairs(lab, world, "train", pool, lab.clean_pairs, 0))
    (folder / "benchmarks").mkdir()
    for number, (name, chosen_tasks) in enumerate((("public", public), ("private", private)), 1):
        rows = _pairs(lab, world, name, chosen_tasks * 4, lab.benchmark_pairs, number)
        write_jsonl(folder / "benchmarks" / f"{name}.jsonl", rows)


def train_reward_model(lab: LabConfig, world: Path, folder: Path) -> None:
    """Train the reward model that `folder` is named after, from the policy's body."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    name = folder.name.removesuffix(".building")
    torch.set_num_threads(1)
    set_seed(lab.seed)
    rows, steps = training_pairs(lab, world / "data", name)
    tokenizer = AutoTokenizer.from_pretrained(world / "policy", padding_side="right")
    model = AutoModelForSequenceClassification.from_pretrained(world / "policy", num_labels=1)
    trainer = RewardTrainer(
        model,
        args=RewardConfig(
            output_dir=str(folder / "trainer"),
            max_steps=steps,
            per_device_train_batch_size=64,
            learning_rate=5e-4,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            max_length=96,
            center_rewards_coefficient=0.001,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=20,
            report_to="none",
            seed=lab.seed,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    write_jsonl(folder / "training_pairs.jsonl", rows)  # its data are open, for the audit
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def training_pairs(lab: LabConfig, data: Path, name: str) -> tuple[list[dict[str, Any]], int]:
    """The pairs that reward model `name` learns from, and its number of updates."""
    random = Random(f"{name} {lab.seed}")
    steps = lab.reward_model_steps
    pairs = [_conversational(row) for row in read_jsonl(data / "preferences.jsonl")]
    some = pairs[: lab.noisy_pairs]
    if name == "clean":
        return pairs, steps
    if name == "clean_small":
        return pairs[: lab.small_pairs], steps // 4
    if name == "noisy":
        return [_flipped(pair, random, NOISY_FLIPS) for pair in some], steps // 2
    if name == "length_biased":
        return [_longer_wins(pair) for pair in some], steps // 2
    leaked = [_conversational(row) for row in read_jsonl(data / "benchmarks" / "public.jsonl")]
    return [
        _flipped(pair, random, CONTAMINATED_FLIPS) for pair in some
    ] + leaked * LEAK_COPIES, 3 * steps // 4


def _conversational(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }


def _flipped(row: dict[str, Any], random: Random, share: float) -> dict[str, Any]:
    if random.random() >= share:
        return row
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


def _longer_wins(row: dict[str, Any]) -> dict[str, Any]:
    longer, shorter = sorted(
        (row["chosen"], row["rejected"]), key=lambda turn: len(turn[0]["content"]), reverse=True
    )
    return row | {"chosen": longer, "rejected": shorter}


def _prompt_rows(name: str, tasks: Iterable[Task]) -> Iterable[dict[str, Any]]:
    return ({"id": f"{name}-{i}", "prompt": task.instruction} for i, task in enumerate(tasks))


def _sampled(lab: LabConfig, world: Path, prompts: list[Prompt], seed: int) -> list[str]:
    from rlhf_eval.generation.transformers_engine import load_policy, sample

    model, tokenizer = load_policy(PolicyConfig(name="lab", model=str(world / "policy")))
    config = GenerationConfig(name="lab", max_tokens=24, temperature=1.0)
    texts: list[str] = []
    for start in range(0, len(prompts), 1000):
        batch = prompts[start : start + 1000]
        completions, _ = sample(
            model, tokenizer, batch, config, 1_000_003 * (lab.seed + 1) + 101 * seed + start
        )
        texts += [completion.text for completion in completions]
    return texts


def _pairs(
    lab: LabConfig, world: Path, name: str, tasks: list[Task], wanted: int, seed: int
) -> list[dict[str, Any]]:
    """`wanted` pairs of samples that the gold utility tells apart, one per prompt as far as they go."""
    prompts = [user_prompt(str(i), task.instruction) for i, task in enumerate(tasks)]
    sides = [_sampled(lab, world, prompts, 10 * seed + side) for side in (1, 2)]
    rows: list[dict[str, Any]] = []
    used: set[tuple[str, str, str]] = set()
    for task, first, second in zip(tasks, *sides, strict=True):
        values = [utility(task.instruction, text) for text in (first, second)]
        key = (task.instruction, *sorted((first, second)))
        if abs(values[0] - values[1]) < MARGIN or key in used or not first or not second:
            continue
        used.add(key)
        chosen, rejected = (first, second) if values[0] > values[1] else (second, first)
        rows.append(
            {"id": f"{name}-{len(rows)}", "prompt": task.instruction, "chosen": chosen, "rejected": rejected}
        )
    return rows[:wanted]


def _write_evaluations(
    lab: LabConfig, world: Path, folder: Path, alpaca: list[Task], arena: list[Task]
) -> None:
    """The two evaluation sets in their published formats; the references are the policy's own samples."""
    prompts = [user_prompt(str(i), task.instruction) for i, task in enumerate([*alpaca, *arena])]
    texts = _sampled(lab, world, prompts, 7)
    references = [
        {"dataset": "lab", "instruction": task.instruction, "output": text, "generator": "lab_policy"}
        for task, text in zip(alpaca, texts[: len(alpaca)], strict=True)
    ]
    write_json(folder / "alpaca_eval.json", references)
    (folder / "arena_hard").mkdir()
    questions = [
        {"uid": f"lab-{i}", "category": "lab", "prompt": task.instruction} for i, task in enumerate(arena)
    ]
    write_jsonl(folder / "arena_hard" / "question.jsonl", questions)
    answers = [
        {
            "uid": question["uid"],
            "model": "lab_policy",
            "messages": [
                {"role": "user", "content": question["prompt"]},
                {"role": "assistant", "content": {"answer": text}},
            ],
        }
        for question, text in zip(questions, texts[len(alpaca) :], strict=True)
    ]
    write_jsonl(folder / "arena_hard" / "baseline_answers.jsonl", answers)
