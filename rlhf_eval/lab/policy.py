"""The lab's initial policy: a small Llama, fine-tuned on average writers' answers with TRL's SFTTrainer."""

from pathlib import Path
from random import Random
from typing import Any

from rlhf_eval.config.schema import LabConfig
from rlhf_eval.lab.tokenizer import build_tokenizer
from rlhf_eval.lab.world import all_tasks, demonstration

ERROR_RATE = 0.3
BATCH = 64
LEARNING_RATE = 2e-3


def build(lab: LabConfig, world: Path, folder: Path) -> None:
    """Train the policy and write it with its tokenizer to `folder`."""
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    # Nothing runs beside this part.
    torch.set_num_threads(2)
    set_seed(lab.seed)
    build_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    random, tasks = Random(f"demonstrations {lab.seed}"), all_tasks()
    rows = [_row(random, tasks) for _ in range(lab.policy_steps * BATCH)]
    trainer = SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(folder / "trainer"),
            max_steps=lab.policy_steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            warmup_steps=10,
            max_length=64,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            logging_steps=50,
            report_to="none",
            seed=lab.seed,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    model.save_pretrained(folder)


def _row(random: Random, tasks: list[Any]) -> dict[str, Any]:
    task = random.choice(tasks)
    return {
        "prompt": [{"role": "user", "content": task.instruction}],
        "completion": [{"role": "assistant", "content": demonstration(task, random, ERROR_RATE)}],
    }
