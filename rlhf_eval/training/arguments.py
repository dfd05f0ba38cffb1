"""A run's configuration in the words of TRL's trainers."""

from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import COLLECTIVE_SECONDS, AccelerateConfig, LoraConfig, TrainedConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.training.rollouts import SERVER_SECONDS

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def common_arguments(config: RunConfig, output: Path) -> dict[str, Any]:
    """The arguments that GRPO's, RLOO's and PPO's trainers share.

    What makes resuming exact: the data are one epoch in a fixed order (`prompts.in_training_order`), and
    checkpoints fall between batches of rollouts.
    """
    algorithm = trained(config)
    cpu = on_cpu(config.accelerate)
    update = algorithm.completions_per_step // (config.accelerate.processes * algorithm.minibatches)
    accumulation = update // algorithm.completions_per_device_batch
    updates = algorithm.updates_per_step
    return {
        "output_dir": str(output),
        "max_steps": algorithm.steps * updates,
        "per_device_train_batch_size": algorithm.completions_per_device_batch,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * algorithm.minibatches,
        "num_iterations": algorithm.epochs,
        "num_generations": algorithm.group_size,
        "max_completion_length": algorithm.max_completion_tokens,
        "temperature": algorithm.temperature,
        "top_p": algorithm.top_p,
        "top_k": 0,
        "learning_rate": algorithm.learning_rate,
        "lr_scheduler_type": SCHEDULES[algorithm.learning_rate_schedule],
        "warmup_steps": algorithm.warmup_steps * updates,
        "beta": algorithm.kl_coefficient,
        "epsilon": algorithm.clip_range,
        "weight_decay": algorithm.weight_decay,
        "max_grad_norm": algorithm.max_grad_norm,
        "shuffle_dataset": False,
        "save_strategy": "steps",
        # The last step is saved too, by TRL, whatever the interval.
        "save_steps": algorithm.checkpoint_every * updates,
        "save_total_limit": 2,
        "logging_steps": updates,
        "report_to": list(algorithm.report_to) or "none",
        "run_name": output.parents[2].name,
        "seed": config.seed,
        "disable_tqdm": True,
        "use_cpu": cpu,
        "ddp_timeout": COLLECTIVE_SECONDS,
        "ddp_find_unused_parameters": False,
        "bf16": config.accelerate.mixed_precision == "bf16",
        "gradient_checkpointing": not cpu
        if config.accelerate.gradient_checkpointing is None
        else config.accelerate.gradient_checkpointing,
        **_reference_arguments(config),
        **_rollout_arguments(config, cpu),
    }


def on_cpu(accelerate: AccelerateConfig) -> bool:
    """Whether this machine trains without GPUs."""
    import torch

    return accelerate.device == "cpu" or not torch.cuda.is_available()


def trained(config: RunConfig) -> TrainedConfig:
    """The configuration of an algorithm that trains."""
    assert isinstance(config.algorithm, TrainedConfig)
    return config.algorithm


def peft_config(lora: LoraConfig | None, revision: str | None, task: str = "CAUSAL_LM") -> Any:
    """What PEFT makes adapters by; None where all weights are trained.

    Args:
        revision: of the model that they are for. It is stored in adapter_config.json: otherwise loaders put
            the adapters on the hub's latest.
    """
    if lora is None:
        return None
    from peft import LoraConfig as PeftLoraConfig

    modules = lora.target_modules
    return PeftLoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides it by the rank
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type=task,  # type: ignore[arg-type]
        revision=revision,
    )


def _reference_arguments(config: RunConfig) -> dict[str, Any]:
    """TRL loads the reference by the policy's name; its revision would otherwise be the hub's latest."""
    revision = config.policy.revision
    return {"model_init_kwargs": {"revision": revision}} if revision else {}


def _rollout_arguments(config: RunConfig, cpu: bool) -> dict[str, Any]:
    rollout = trained(config).rollout
    if rollout.engine == "transformers":
        return {}
    if rollout.engine == "vllm_server":
        return {
            "use_vllm": True,
            "vllm_mode": "server",
            "vllm_server_base_url": rollout.server_url,
            "vllm_server_timeout": SERVER_SECONDS,
        }
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": rollout.tensor_parallel,
        "vllm_gpu_memory_utilization": rollout.gpu_memory_share,
        # Else vLLM plans for the longest text that the policy can read: 131,072 tokens of Llama 3.1.
        "vllm_max_model_length": context_tokens(config),
        # Its memory is given back while the policy trains; on the CPU vLLM cannot.
        "vllm_enable_sleep_mode": not cpu,
    }


def context_tokens(config: RunConfig) -> int:
    """Tokens of the longest rollout, prompt and completion."""
    return config.prompts.max_prompt_tokens + trained(config).max_completion_tokens
