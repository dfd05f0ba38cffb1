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

from annotated_types import Ge, Gt, Le
from pydantic.dataclasses import dataclass

from rlhf_eval.config.algorithm_schema import AccelerateConfig, AlgorithmConfig
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
    """Number format in which a trained policy is written and answers."""
    train_dtype: DType = "float32"
    """Number format of the weights in training. Small updates vanish in 16 bits: keep float32, and compute in
    accelerate.mixed_precision=bf16."""
    size: str | None = unfingerprinted(None)
    """Its class of size, such as 8b, by which `cluster.sizes` gives the jobs of a sweep their resources."""


@dataclass(frozen=True, config=STRICT)
class AlpacaEvalConfig:
    """AlpacaEval's prompts with the reference answers that a policy is compared to."""

    reference_outputs: str
    """Source in AlpacaEval's format: a list of `instruction`, `output`, `generator`."""
    difficulty: str | None = None
    """Source with `instruction` (or `index` into the reference outputs) and `instruction_difficulty`; the
    length-controlled fit goes without that term where there is none."""
    regulariser: str | None = None
    """Source of AlpacaEval's `df_gamed.csv`. It joins the length-controlled fit only where the judge is the
    one that it was fitted to: weighted_alpaca_eval_gpt4_turbo asked of gpt-4-1106-preview, against the
    reference outputs of gpt4_1106_preview."""
    annotator: str = "weighted_alpaca_eval_gpt4_turbo"
    """Which of the `alpaca-eval` package's annotators asks the judge, whatever model that is: one that
    answers with a single token, or with a text that holds one verdict (such as alpaca_eval_gpt4)."""
    limit: Positive | None = None
    """Take only the first prompts; null takes all."""


BASE = "base"
"""In the place of a source of baseline answers: those of the run's own policy before training."""


@dataclass(frozen=True, config=STRICT)
class ArenaHardConfig:
    """Arena-Hard's questions with the answers of the baseline, the published one or any other policy's, such
    as those of the policy base (`stages/generate/arena_hard.jsonl` of its run)."""

    questions: str
    """Source in Arena-Hard's format: `uid`, `prompt`, `category`."""
    baseline_answers: str
    """Source in Arena-Hard's format: `uid`, `messages` with the assistant's turn last, `model`; or a run's
    own answers: `prompt_id`, `text`; or `base`: the policy base answers, once for all runs."""
    category_baseline_answers: dict[str, str] = field(default_factory=dict)
    """Other baselines for single categories, a source by category: v2.0 compares creative writing to another
    model than hard prompts."""
    style_normalisation: str | None = None
    """Source of frozen style constants (`judging/style_normalisation.py`); null reads style-controlled scores
    off at answers of equal style."""
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
    held_out_samples: Annotated[int, Ge(2)] = 4
    """Completions of each, between which the variance of rewards within a prompt is taken."""
    max_prompt_tokens: Positive = 2048
    """Longer training prompts are left out (counted in the log); longer evaluation prompts are an error."""


@dataclass(frozen=True, config=STRICT)
class GenerationConfig:
    """Group `generation`: how the trained policy answers the evaluation prompts."""

    name: str
    """Name of the setting."""
    engine: Literal["transformers", "vllm", "openai"] = "transformers"
    """What generates: `transformers` in this process, `vllm` in a process of its own, or `openai`, a server
    with the completions endpoint of the OpenAI API that takes token ids (vLLM, SGLang)."""
    max_tokens: Positive = 2048
    """Longest answer in tokens."""
    temperature: Annotated[float, Ge(0)] = 0.7
    """0 is greedy."""
    top_p: Annotated[float, Gt(0)] = 1.0
    """Nucleus sampling."""
    batch_size: Positive = 64
    """Prompts per batch of `transformers`. Batches are seeded one by one, so this changes which samples are
    drawn; the other engines seed every prompt by itself."""
    python: str | None = unfingerprinted(None)
    """Interpreter of the environment that holds vLLM; null is the one that runs rlhf_eval."""
    tensor_parallel: Positive = unfingerprinted(1)
    """GPUs that vLLM splits the policy over."""
    gpu_memory_share: Annotated[float, Gt(0), Le(1)] = unfingerprinted(0.9)
    """Share of each GPU's memory that vLLM takes."""
    enforce_eager: bool = unfingerprinted(False)
    """Run vLLM without compilation and CUDA graphs: slower answers, much faster start; wanted on the CPU."""
    base_url: str | None = unfingerprinted(None)
    """Address, ending in `/v1`, of a server that has the policy; null starts vLLM's own server for the length
    of the stage. Of the engine `openai`."""
    served_model: str | None = unfingerprinted(None)
    """Name of the policy on the server at `base_url`; null is the policy's hub name or folder, which vLLM's
    server takes by itself."""
    api_key_variable: str | None = unfingerprinted(None)
    """Environment variable that holds the key of the server at `base_url`; null where none is needed."""
    concurrency: Positive = unfingerprinted(128)
    """Calls to the server under way at once."""
    timeout_seconds: Annotated[float, Gt(0)] = unfingerprinted(1800.0)
    """Deadline of one call to the server, waiting in its queue included."""


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
    """Source of the Arena-Hard judge's system prompt, or a `.json` of one for each category (name → text);
    null takes the one in `rlhf_eval/judging`."""
    max_failed_share: Share = 0.02
    """Above this share of failed verdicts the score is refused."""
    input_price: Annotated[float, Ge(0)] | None = unfingerprinted(None)
    """Price of a million tokens that the judge reads, in any currency; null where nothing is paid."""
    output_price: Annotated[float, Ge(0)] | None = unfingerprinted(None)
    """Price of a million tokens that it writes."""
    budget: Annotated[float, Gt(0)] | None = unfingerprinted(None)
    """Most that one call of the command may cost by these prices: refused beforehand by the estimate, stopped
    on the way by the tokens that the endpoint reports."""
    context_tokens: Positive | None = unfingerprinted(None)
    """Longest question and verdict that the judge takes; null if it need not be checked."""
    verdict_tokens: Positive = unfingerprinted(600)
    """Usual length of a text verdict, for the estimate."""
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
    accelerate: AccelerateConfig = field(default_factory=AccelerateConfig)
    """On which processes it is trained."""
    second_judges: dict[str, JudgeConfig] = field(default_factory=dict)
    """Further judges of the same answers, by name: their scores and their agreement with `judge` stand beside
    its, and do not enter the ranking. Add one with +judge@second_judges.<name>=<choice>."""
    experiment: str = unfingerprinted("default")
    """Folder below `output` in which the run stands; runs that are ranked together share it."""
    grid: dict[str, tuple[bool | float | int | str, ...]] = field(
        default_factory=dict, metadata={"fingerprint": False}
    )
    """Fields of the algorithm in which runs of the experiment may differ, such as algorithm.kl_coefficient,
    and the values that each takes. Every reward model gets the same grid, and is ranked at its best point."""
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
    deterministic: bool = unfingerprinted(False)
    """Let GPU kernels add in the same order every time, at the price of speed: the same machine then gives
    the same bits again, as a CPU always does."""
