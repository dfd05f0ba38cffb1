"""Imported once by the process that runs are forked from, so that no run pays for these imports."""

import datasets  # noqa: F401
import openai  # noqa: F401
import torch  # noqa: F401
from transformers import AutoTokenizer, LlamaForCausalLM, LlamaForSequenceClassification  # noqa: F401
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: F401
