"""Every field of the groups `algorithm` and `accelerate`: how a policy is trained, and on how many processes.

An algorithm's fields are those of its `kind` and no others: an option that a trainer lacks is an error.
"""

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field
from pydantic.dataclasses import dataclass

from rlhf_eval.config.fields import STRICT, NonNegative, Positive, Share, added, unfingerprinted

COLLECTIVE_SECONDS = 3600
"""Seconds after which a process of a training that waits for another gives up."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LoraConfig:
    """Train low-rank adapters and leave the policy's own weights alone (Hu et al. 2021); PEFT's names."""

    rank: Positive = 16
    """Rank of the adapters (r in the paper)."""
    alpha: Annotated[float, Gt(0)] = 32.0
    """Adapters are scaled by alpha / rank."""
    dropout: Share = 0.0
    """Dropout before the adapters."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter; "all-linear" is every linear layer but the output's."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RolloutConfig:
    """What samples completions during training."""

    engine: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    """`transformers` in the training processes; vLLM in them, sharing their GPUs; or vLLM's server on GPUs of
    its own."""
    server_url: str | None = unfingerprinted(None)
    """Address of vLLM's server, such as http://node7:8000; of `vllm_server`."""
    tensor_parallel: Positive = unfingerprinted(1)
    """Training processes that share one vLLM; of `vllm_colocate`."""
    gpu_memory_share: Annotated[float, Gt(0), Le(1)] = unfingerprinted(0.3)
    """Share of each GPU's memory that vLLM takes; of `vllm_colocate`."""
    importance_correction: Literal["sequence_mask", "sequence_truncate", "none"] = added("sequence_mask")
    """vLLM's probabilities differ from the trainer's by rounding. A completion's loss is multiplied by the
    ratio of both, π_trainer(y) / π_vllm(y); above `importance_cap` the completion is left out
    (`sequence_mask`) or the ratio is cut (`sequence_truncate`)."""
    # Before 0.2 GRPO alone corrected; no run of RLOO or PPO with vLLM's rollouts reached its first step.
    importance_cap: Annotated[float, Gt(0)] = added(3.0)
    """Highest ratio of probabilities that counts in full."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainedConfig:
    """What GRPO, RLOO and PPO have in common. A *step* is one batch of rollouts and the optimiser updates on
    it, of which there are `epochs * minibatches`."""

    name: str
    """Name in tables, plots and run directories."""
    steps: Positive
    """Batches of rollouts."""
    prompts_per_step: Positive
    """Prompts per step, over all processes."""
    group_size: Annotated[int, Ge(2)]
    """Completions per prompt (G in the paper)."""
    max_completion_tokens: Positive
    """Sampling stops here when the policy has not ended its turn."""
    learning_rate: Annotated[float, Gt(0)]
    """Peak learning rate of AdamW."""
    kl_coefficient: Annotated[float, Ge(0)]
    """Weight of the KL divergence from the initial policy (β in the papers): in GRPO's loss, in the reward of
    RLOO and PPO."""
    epochs: Positive = 1
    """Passes over each batch of rollouts (μ in the GRPO paper)."""
    minibatches: Positive = 1
    """Optimiser updates in each pass."""
    clip_range: Annotated[float, Gt(0)] = 0.2
    """Probability ratios are clipped to 1 ± this (ε in the papers)."""
    warmup_steps: NonNegative = 0
    """Steps over which the learning rate rises from zero."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = added("constant")
    """The learning rate after the warm-up: constant, or falling to zero at the last step."""
    weight_decay: Annotated[float, Ge(0)] = added(0.0)
    """AdamW's weight decay of all weights but biases and norms."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Sampling temperature of the rollouts."""
    top_p: Annotated[float, Gt(0), Le(1)] = added(1.0)
    """Nucleus sampling of the rollouts. Below 1 the ratios and the KL divergence are no longer those of the
    distribution that was sampled from."""
    missing_eos_penalty: Annotated[float, Gt(0)] | None = added(None)
    """A completion that was cut at `max_completion_tokens` has a reward of at most minus this, in standard
    deviations of the reward (Tülu 3 replaces rewards of 0 or 10 by −10, about −3 standard deviations); null
    leaves the reward unchanged."""
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    """Gradient clipping by global norm; PPO clips the gradients of policy and critic each by its own norm."""
    checkpoint_every: Positive = 10
    """Steps between checkpoints; at each, KL, rewards, length and entropy are measured on held-out
    prompts."""
    publish: Literal["last", "peak"] = "last"
    """Which checkpoint is the policy that is scored downstream: the last, or the one with the highest gold
    reward on the held-out prompts (proxy reward where there is no gold reward model)."""
    lora: LoraConfig | None = None
    """Train adapters; null trains all weights."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """What samples completions."""
    completions_per_device_batch: Positive = unfingerprinted(64)
    """Completions in one forward and backward pass of one process. As many of these as are needed make up an
    update: the rest is gradient accumulation."""
    normaliser_prompts: Positive = 64
    """Training prompts on which the initial policy is sampled to standardise rewards."""
    report_to: tuple[Literal["wandb", "mlflow", "trackio", "tensorboard"], ...] = unfingerprinted(())
    """Where the curves go besides metrics.jsonl; each is a package of its name to be installed."""

    @property
    def updates_per_step(self) -> int:
        """Optimiser updates on one batch of rollouts."""
        return self.epochs * self.minibatches

    @property
    def completions_per_step(self) -> int:
        """Completions in one batch of rollouts, over all processes."""
        return self.prompts_per_step * self.group_size


@dataclass(frozen=True, config=STRICT, kw_only=True)
class GRPOConfig(TrainedConfig):
    """TRL's GRPOTrainer (Shao et al. 2024, DeepSeekMath)."""

    kind: Literal["grpo"]
    """Which trainer."""
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """Divide advantages by the standard deviation of the group, of the batch, or not at all. Rewards are
    standardised once on the initial policy's samples, so `none` keeps a reward model's own contrast
    between prompts (Liu et al. 2025, Dr. GRPO)."""
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    """How token losses are averaged; the names are TRL's."""
    clip_range_high: Annotated[float, Gt(0)] | None = None
    """Upper clipping of probability ratios; null is `clip_range` (Yu et al. 2025, DAPO)."""
    importance_sampling: Literal["token", "sequence"] = "token"
    """Level at which probability ratios are taken (Zheng et al. 2025, GSPO)."""
    mask_truncated: bool = False
    """Leave completions that were cut at `max_completion_tokens` out of the loss."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RLOOConfig(TrainedConfig):
    """TRL's RLOOTrainer (Ahmadian et al. 2024): each completion's baseline is the mean of its group's
    others."""

    kind: Literal["rloo"]
    """Which trainer."""
    normalize_advantages: bool = False
    """Divide advantages by their standard deviation over the batch, after subtracting their mean."""
    mask_truncated: bool = False
    """Leave completions that were cut at `max_completion_tokens` out of the loss."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PPOConfig(TrainedConfig):
    """PPO with a critic (Schulman et al. 2017; for language models Ziegler et al. 2019)."""

    kind: Literal["ppo"]
    """Which trainer."""
    critic: Literal["value_head", "policy", "classifier"] = "value_head"
    """What estimates values: a head on the policy's own trunk, a second model initialised from the policy, or
    one initialised from `critic_model`."""
    critic_model: str | None = None
    """Classifier with the policy's tokenizer (hub name, folder or `lab:` folder), such as a reward model's
    trunk; of `critic: classifier`."""
    critic_revision: str | None = None
    """Commit, tag or branch of a `critic_model` on the hub; null is its main branch."""
    critic_learning_rate: Annotated[float, Gt(0)] | None = None
    """Peak learning rate of the critic's own weights; null is `learning_rate`."""
    gamma: Annotated[float, Gt(0), Le(1)] = 1.0
    """Discount of later rewards (γ)."""
    gae_lambda: Annotated[float, Ge(0), Le(1)] = 0.95
    """Weight of longer returns in the advantages (λ; Schulman et al. 2016)."""
    value_coefficient: Annotated[float, Ge(0)] = 0.1
    """Weight of the value loss."""
    value_clip_range: Annotated[float, Gt(0)] = 0.2
    """Values move at most this far from those of the rollout before their loss stops counting."""
    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0 and variance 1 over all tokens of a step."""
    mask_truncated: bool = added(False)
    """Leave completions that were cut at `max_completion_tokens` out of the loss, the critic's too."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BestOfNConfig:
    """No training: the policy samples several answers and the reward model chooses one; the cheap tier before
    reinforcement learning, and a control beside it."""

    kind: Literal["best_of_n"]
    """Which procedure."""
    name: str
    """Name in tables, plots and run directories."""
    samples: Annotated[int, Ge(2)]
    """Answers per prompt (n); the KL divergence from the policy is at most log n − (n − 1) / n nats."""
    max_completion_tokens: Positive
    """Longest answer to held-out prompts and to those on which rewards are standardised."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Sampling temperature on those; the evaluation prompts are answered as the group `generation` says."""
    normaliser_prompts: Positive = 64
    """Training prompts on which the policy is sampled to standardise rewards."""


AlgorithmConfig = Annotated[GRPOConfig | RLOOConfig | PPOConfig | BestOfNConfig, Field(discriminator="kind")]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AccelerateConfig:
    """Group `accelerate`: the processes that train a policy. Evaluation runs in one."""

    name: str = "single"
    """Name of the setting."""
    strategy: Literal["single", "ddp", "zero2", "zero3"] = "single"
    """One process; or several by `accelerate launch`: each with a whole model (DDP), with a share of
    gradients and optimiser state (DeepSpeed ZeRO-2), or with a share of the weights too (ZeRO-3; Rajbhandari
    et al. 2020)."""
    processes: Positive = 1
    """Training processes over all machines, one a GPU. Each samples with random numbers of its own, so
    another number gives another run."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Number format of forward and backward passes; weights are kept as `policy.dtype` says."""
    machines: Positive = unfingerprinted(1)
    """Machines, each with the same number of processes. Under SLURM they are the nodes of the job; elsewhere
    the run shows the command that each of the others is to be given."""
    main_address: str | None = unfingerprinted(None)
    """host:port of the first machine as the others see it; null takes SLURM's first node, or this machine and
    a free port."""
    device: Literal["auto", "cuda", "cpu"] = unfingerprinted("auto")
    """`cuda` refuses to start without a GPU for each process; `auto` takes GPUs where there are some."""
    gradient_checkpointing: bool | None = unfingerprinted(None)
    """Compute activations again in the backward pass instead of keeping them: less memory, about a third more
    computation. null does so on GPUs."""
    offload_optimizer: bool = unfingerprinted(False)
    """Keep DeepSpeed's optimiser state in CPU memory: slower, and room for larger policies."""

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed shares out what a process holds."""
        return self.strategy in ("zero2", "zero3")
