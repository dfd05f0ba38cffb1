"""Every field of a run's configuration, with its meaning.

Hydra composes YAML from `conf/`; these dataclasses check it (types, ranges, unknown names) before
anything is loaded. Fields made with `unfingerprinted` say where or how fast a run executes and do not
change its results, so they do not enter `hash8`.

A *source* is a string that names data: a local path (`.json`, `.jsonl`, `.parquet`, `.csv`, `.txt`,
each also `.gz`), `hf://datasets/<org>/<name>@<revision>/<file>` on the Hugging Face hub, or `lab:<file>`
in the embedded lab. A *model* is a hub name, a local folder, or `lab:<folder>`.
"""

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt
from pydantic.dataclasses import dataclass

from rlhf_eval.config.benchmark_schema import BenchmarkConfig
from rlhf_eval.config.fields import STRICT, DType, NonNegative, Positive, Share, unfingerprinted
from rlhf_eval.config.reward_schema import RewardModelConfig


@dataclass(frozen=True, config=STRICT)
class PolicyConfig:
    """Group `policy`: the model that is trained, before training."""

    name: str
    """Name in tables, plots and run directories."""
    model: str
    """Hub name, local folder or `lab:` folder; its tokenizer must have a chat template."""
    revision: str | None = None
    """Commit or branch on the hub."""
    dtype: DType = "float32"
    """Number format in which the weights are loaded and trained."""


@dataclass(frozen=True, config=STRICT)
class AlgorithmConfig:
    """Group `algorithm`: how the policy is trained against the reward model."""

    name: str
    """Name in tables, plots and run directories."""
    kind: Literal["grpo"]
    """Which trainer: `grpo` is TRL's GRPOTrainer (Shao et al. 2024, DeepSeekMath)."""
    steps: Positive
    """Optimiser updates."""
    prompts_per_step: Positive
    """Prompts per update, over all processes."""
    group_size: Annotated[int, Ge(2)]
    """Completions per prompt (G in the paper)."""
    max_completion_tokens: Positive
    """Sampling stops here when the policy has not ended its turn."""
    learning_rate: Annotated[float, Gt(0)]
    """Peak learning rate of AdamW."""
    kl_coefficient: Annotated[float, Ge(0)]
    """Weight of the KL divergence from the initial policy in the loss (β in the paper)."""
    warmup_steps: NonNegative = 0
    """Updates over which the learning rate rises from zero; afterwards it is constant."""
    temperature: Annotated[float, Gt(0)] = 1.0
    """Sampling temperature of the rollouts."""
    scale_rewards: Literal["group", "batch", "none"] = "none"
    """Divide advantages by the standard deviation of the group, of the batch, or not at all. Rewards are
    standardised once on the initial policy's samples, so `none` keeps a reward model's own contrast
    between prompts (Liu et al. 2025, Dr. GRPO)."""
    loss_type: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    """How token losses are averaged; the names are TRL's."""
    max_grad_norm: Annotated[float, Gt(0)] = 1.0
    """Gradient clipping by global norm."""
    checkpoint_every: Positive = 10
    """Updates between checkpoints; at each, KL, proxy reward, gold reward and length are measured on the
    held-out prompts."""
    completions_per_device_batch: Positive = unfingerprinted(64)
    """Completions in one forward and backward pass of one process; a divisor of
    `prompts_per_step * group_size`. The rest is gradient accumulation."""
    normaliser_prompts: Positive = 64
    """Training prompts on which the initial policy is sampled to standardise rewards."""


@dataclass(frozen=True, config=STRICT)
class AlpacaEvalConfig:
    """AlpacaEval's prompts with the reference answers that a policy is compared to."""

    reference_outputs: str
    """Source in AlpacaEval's format: a list of `instruction`, `output`, `generator`."""
    difficulty: str | None = None
    """Source with `instruction` (or `index` into the reference outputs) and `instruction_difficulty`; the
    length-controlled fit goes without that term where there is none."""
    annotator: str = "weighted_alpaca_eval_gpt4_turbo"
    """Which of the `alpaca-eval` package's annotator prompts asks the judge; it must be one that answers
    with the single token m or M."""
    limit: Positive | None = None
    """Take only the first prompts; null takes all."""


@dataclass(frozen=True, config=STRICT)
class ArenaHardConfig:
    """Arena-Hard's questions with one baseline's answers."""

    questions: str
    """Source in Arena-Hard's format: `uid`, `prompt`, `category`."""
    baseline_answers: str
    """Source in Arena-Hard's format: `uid`, `messages` with the assistant's turn last, `model`."""
    limit: Positive | None = None
    """Take only the first questions; null takes all."""


@dataclass(frozen=True, config=STRICT)
class PromptsConfig:
    """Group `prompts`: what the policy is trained on and what it is scored on."""

    name: str
    """Name of the selection."""
    train: str
    """Source of training prompts: rows with `prompt` (text or messages), `messages`, or `instruction`."""
    held_out: str
    """Source of prompts for the curves during training; none of them is trained on."""
    alpaca_eval: AlpacaEvalConfig
    """AlpacaEval."""
    arena_hard: ArenaHardConfig
    """Arena-Hard."""
    held_out_limit: Positive = 128
    """How many held-out prompts are measured at each checkpoint."""
    max_prompt_tokens: Positive = 2048
    """Longer training prompts are left out (counted in the log); longer evaluation prompts are an error."""


@dataclass(frozen=True, config=STRICT)
class GenerationConfig:
    """Group `generation`: how the trained policy answers the evaluation prompts."""

    name: str
    """Name of the setting."""
    engine: Literal["transformers"] = "transformers"
    """What generates."""
    max_tokens: Positive = 2048
    """Longest answer in tokens."""
    temperature: Annotated[float, Ge(0)] = 0.7
    """0 is greedy."""
    top_p: Annotated[float, Gt(0)] = 1.0
    """Nucleus sampling."""
    batch_size: Positive = 64
    """Prompts per batch. Batches are seeded one by one, so this changes which samples are drawn."""


@dataclass(frozen=True, config=STRICT)
class JudgeConfig:
    """Group `judge`: an OpenAI-compatible endpoint that compares two answers."""

    name: str
    """Name in tables."""
    model: str
    """Model name that the endpoint is asked for; name a dated snapshot where there is one."""
    base_url: str | None = unfingerprinted(None)
    """Address ending in `/v1`; null is the OpenAI API, or the server that `serve` starts."""
    api_key_variable: str | None = unfingerprinted(None)
    """Environment variable that holds the key; null where none is needed. The key itself is never stored."""
    serve: tuple[str, ...] = ()
    """Command of a server that the run starts and stops itself; it prints its address `http://…/v1` as the
    first line on standard output and ends when its standard input closes. A first word `python` is the
    interpreter that runs rlhf_eval."""
    temperature: Annotated[float, Ge(0)] = 0.0
    """Sampling temperature of the judge."""
    max_tokens: Positive = 4096
    """Longest verdict text in tokens; AlpacaEval's single-token verdict always takes 1."""
    arena_hard_prompt: str | None = None
    """Source of the Arena-Hard judge's system prompt; null takes the one in `rlhf_eval/judging`."""
    max_failed_share: Share = 0.02
    """Above this share of failed verdicts the score is refused."""
    concurrency: Positive = unfingerprinted(32)
    """Calls under way at once."""
    timeout_seconds: Annotated[float, Gt(0)] = unfingerprinted(120.0)
    """Deadline of one call."""
    max_retries: NonNegative = unfingerprinted(5)
    """Retries of a call that met a time-out, 429 or 5xx, with growing pauses."""


@dataclass(frozen=True, config=STRICT)
class LabConfig:
    """The embedded small world (`rlhf_eval/lab`); everything in it follows from these fields."""

    seed: NonNegative = 0
    """Seed of the world: its prompts, policy, preference data and reward models."""
    cache: str = unfingerprinted(".cache/lab")
    """Folder of built worlds, one sub-folder per world."""
    policy_steps: Positive = 400
    """Supervised updates of the initial policy."""
    clean_pairs: Positive = 12000
    """Preference pairs of the reward model `clean`."""
    noisy_pairs: Positive = 2400
    """Preference pairs of the reward models whose labels are flipped or biased by length."""
    small_pairs: Positive = 600
    """Preference pairs of the reward model `clean_small`."""
    reward_model_steps: Annotated[int, Ge(4)] = 240
    """Updates of the reward model `clean`; the others take a fixed share of them."""
    benchmark_pairs: Positive = 300
    """Pairs of the public and of the private benchmark."""
    evaluation_prompts: Positive = 300
    """Prompts of the lab's AlpacaEval and of its Arena-Hard set."""


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """One run: one reward model, one policy base, one algorithm, one seed."""

    reward_model: RewardModelConfig
    """What is under evaluation."""
    policy: PolicyConfig
    """What is trained."""
    algorithm: AlgorithmConfig
    """How it is trained."""
    prompts: PromptsConfig
    """On which prompts it is trained and scored."""
    generation: GenerationConfig
    """How it answers them."""
    judge: JudgeConfig
    """Who compares the answers."""
    seed: NonNegative
    """Seed of training and sampling."""
    experiment: str = unfingerprinted("default")
    """Folder below `output` in which the run stands; runs that are ranked together share it."""
    output: str = unfingerprinted("runs")
    """Folder of all experiments."""
    gold_reward_model: RewardModelConfig | None = None
    """A held-out reward model that only measures; null where there is none."""
    benchmarks: dict[str, BenchmarkConfig] = field(default_factory=dict)
    """Benchmarks of the reward model itself; the first one is the x-axis of the correlation plot."""
    lab: LabConfig | None = None
    """The embedded world that `lab:` sources and models refer to."""
    threads: Positive = unfingerprinted(1)
    """CPU threads of torch in this run."""
