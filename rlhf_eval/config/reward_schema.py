"""Group `reward_model`: every field of a reward model's configuration, whatever its kind."""

from dataclasses import field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen
from pydantic.dataclasses import dataclass

from rlhf_eval.config.fields import STRICT, DType, NonNegative, Positive, Share, unfingerprinted


@dataclass(frozen=True, config=STRICT)
class ModelCard:
    """What is known of a reward model beside its weights. It is shown with results and changes no score."""

    base_model: str | None = None
    """Model it was initialised from: its lineage. Reward models of one lineage are no independent points."""
    licence: str | None = None
    """Licence of the weights."""
    open_weights: bool | None = None
    """Whether the weights can be had; null where it is not known, as in the next two."""
    open_data: bool | None = None
    """Whether all training data can be had; without them contamination cannot be tested."""
    open_code: bool | None = None
    """Whether the training code can be had."""
    open_recipe: bool | None = None
    """Whether a paper or report tells how it was trained: data mixture, filtering, hyperparameters."""
    training_data: tuple[str, ...] = ()
    """Names of the data sets it was trained on, as far as published."""
    training_sources: tuple[str, ...] = ()
    """Sources (files or folders) of its training data, for `rlhf-eval audit` to search."""


@dataclass(frozen=True, config=STRICT)
class GoldenScore:
    """A published score that the loaded model must reproduce (`rlhf-eval validate reward_model=<name>`)."""

    prompt: str
    """The user's turn."""
    completion: str
    """The assistant's turn."""
    score: float
    """The published score."""
    tolerance: Annotated[float, Gt(0)]
    """Largest difference that number format and kernels explain."""


@dataclass(frozen=True, config=STRICT)
class VerdictConfig:
    """How a generative reward model or a judge is asked, and how its answer is read."""

    prompt: str
    """Name of a prompt in `rlhf_eval/rewards/prompts/`, or path of a file of that form: Jinja with
    `instruction`, `answer_a` and `answer_b` (pairwise) or `answer` (pointwise)."""
    style: Literal["comparison", "rating"] = "comparison"
    """Which of two answers is better, or how good one is."""
    system: str | None = None
    """System turn before it; null for models that were trained without."""
    labels: Annotated[tuple[str, ...], MinLen(2)] = ("A", "B")
    """What the verdict says: for comparisons the labels of the first and the second answer, for ratings the
    labels from worst to best."""
    pattern: str = r"\[\[([AB])\]\]"
    """Regular expression whose first group is the label; the last match in the text is the verdict."""
    read: Literal["probabilities", "text"] = "probabilities"
    """`probabilities` compares the probabilities of the labels as the next token after `opening`; `text`
    lets the model write and reads the verdict from it."""
    opening: str = "[["
    """What the model is made to begin its answer with where probabilities are read."""
    both_orders: bool = True
    """Ask each comparison in both orders and take the mean: a judge that prefers the first answer is then
    undecided instead of wrong."""
    max_tokens: Positive = 1024
    """Longest text of a verdict."""
    temperature: Annotated[float, Ge(0)] | None = 0.0
    """Sampling temperature; null leaves it out (reasoning models accept none)."""


@dataclass(frozen=True, config=STRICT)
class EndpointConfig:
    """A server that scores, compares or answers."""

    base_url: str = unfingerprinted("")
    """Address, such as `http://host:8700` or `https://api.openai.com/v1`."""
    protocol: Literal["rlhf_eval", "openrlhf", "vllm_classify", "vllm_pooling", "nemotron"] = "rlhf_eval"
    """What a remote reward model speaks: our own server's `/score`, OpenRLHF's `/get_reward`, vLLM's
    `/classify` or `/pooling`, or chat completions whose log-probabilities are Nemotron-4's attributes."""
    api_key_variable: str | None = unfingerprinted(None)
    """Environment variable that holds the key or token; the key itself is never stored."""
    timeout_seconds: Annotated[float, Gt(0)] = unfingerprinted(60.0)
    """Limit of one request."""
    deadline_seconds: Annotated[float, Gt(0)] = unfingerprinted(600.0)
    """How long a batch may take with all retries; what is not scored by then is invalid. With several
    training processes, deadlines longer than they wait for each other are rejected."""
    concurrency: Positive = unfingerprinted(16)
    """Requests under way at once."""
    max_output_tokens: Positive | None = None
    """`max_completion_tokens` for reasoning models, whose thinking counts; null sends `max_tokens`."""


@dataclass(frozen=True, config=STRICT)
class MemberConfig:
    """One member of an ensemble. Its scores are scaled by constants that were fixed beforehand."""

    reward_model: "RewardModelConfig"
    """The member."""
    weight: float = 1.0
    """Weight in a weighted sum."""
    offset: float = 0.0
    """Subtracted from the member's scores: its minimum, or its mean."""
    scale: Annotated[float, Gt(0)] = 1.0
    """Divides them then: its range, or its standard deviation."""
    clip: bool = False
    """Keep the scaled score within [0, 1]."""


@dataclass(frozen=True, config=STRICT)
class EnsembleConfig:
    """How several reward models become one."""

    combine: Literal["mean", "minimum", "mean_minus_std", "weighted"]
    """`minimum` and `mean_minus_std` are the conservative ones of Coste et al. 2024 (arXiv:2310.02743)."""
    members: Annotated[dict[str, MemberConfig], MinLen(1)]
    """Members by name."""
    std_coefficient: Annotated[float, Ge(0)] = 1.0
    """Times the standard deviation over members is subtracted by `mean_minus_std`."""


@dataclass(frozen=True, config=STRICT)
class GroupConfig:
    """How a reward model that only compares scores the completions of one prompt."""

    schedule: Literal["round_robin", "random", "reference", "knockout"] = "round_robin"
    """Who is compared with whom: all pairs (n(n−1)/2), `opponents` random ones each, each with the first
    completion (n−1), or a knock-out (n−1)."""
    opponents: Positive = 3
    """Opponents of each completion under `random`."""
    ridge: Annotated[float, Gt(0)] = 0.1
    """Penalty on squared Bradley-Terry strengths: it keeps the strength of a completion that won or lost
    every comparison finite."""


@dataclass(frozen=True, config=STRICT)
class RewardModelConfig:
    """Group `reward_model`: what is under evaluation."""

    name: str
    """Name in tables, plots and run directories."""
    kind: str
    """Key in the registry of reward models (`rlhf_eval/rewards/kinds.py`)."""
    model: str = ""
    """Hub name, local folder or `lab:` folder of the weights; model name at an endpoint; empty for kinds
    that have none."""
    revision: str | None = None
    """Commit or branch on the hub; the manifest records the commit it resolved to."""
    dtype: DType = "float32"
    """Number format of weights and forward pass."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Implementation of attention. Gemma-2 needs `eager` or `flash_attention_2`: its soft cap is lost in
    `sdpa`."""
    device_map: Literal["auto", "balanced", "sequential"] | None = unfingerprinted(None)
    """How weights are spread over several GPUs (accelerate); null puts all on one."""
    size: str | None = unfingerprinted(None)
    """Its class of size, such as 70b, by which `cluster.sizes` gives the jobs of a sweep their resources."""
    max_length: Positive = 4096
    """Longest conversation in tokens of the reward model's own tokenizer."""
    overlong: Literal["mask", "truncate_left", "error"] = "mask"
    """A longer conversation is invalid, loses its oldest tokens, or stops the run."""
    chat_template: str | None = None
    """File with a Jinja chat template; null takes the tokenizer's own."""
    bos: Literal["once", "template", "none"] = "once"
    """Beginning-of-sequence token: exactly one even where template and tokenizer both write it, as the
    template writes it, or none."""
    system: Literal["keep", "drop", "merge"] = "keep"
    """System turns are rendered, left out, or put before the first user turn."""
    head_weights: tuple[float, ...] = ()
    """Weights of the heads of a model with several; empty for a single head or a learned gate."""
    token: NonNegative = 0
    """Vocabulary id whose logit is the score (`token_logit`)."""
    reference: str = ""
    """Reference policy of an implicit reward model: hub name, local folder or `lab:` folder."""
    reference_revision: str | None = None
    """Its commit or branch on the hub."""
    comparability: Literal["global", "prompt", "pair"] = "global"
    """Whether scores compare across prompts (`global`) or only within one (`prompt`); `pair` for those that
    only compare two answers. Beyond `global`, rewards are centred on each prompt's group."""
    verdict: VerdictConfig | None = None
    """How a generative reward model or judge is asked."""
    endpoint: EndpointConfig | None = None
    """The server of a remote reward model or judge."""
    ensemble: EnsembleConfig | None = None
    """Members and rule of an ensemble."""
    group: GroupConfig = field(default_factory=GroupConfig)
    """How a comparing reward model scores a group of completions."""
    function: str = ""
    """Rule function in Python, `package.module:function` or `path/to/file.py:function`: it takes a prompt's
    text and a completion and returns a number."""
    constant: float = 0.0
    """What the control `constant` answers."""
    batch_tokens: Positive = unfingerprinted(16384)
    """Tokens per forward pass, padding included. Scores do not depend on it."""
    max_invalid_share: Share = 0.1
    """Above this share of invalid scores in training the run stops; the same command continues it."""
    remote_code: bool = False
    """Allow the model's repository to run its own Python here; it takes a `revision` that is a commit."""
    pickle: bool = False
    """Allow weights as pickles, which can run code when they are read, beside safetensors."""
    control: bool = False
    """True for a reward model that is no candidate (random, length-only, flipped): shown apart."""
    inner: "RewardModelConfig | None" = None
    """The reward model that this one wraps (`flipped`)."""
    card: ModelCard = unfingerprinted(ModelCard())
    """Lineage, licence, openness, training data."""
    golden: tuple[GoldenScore, ...] = unfingerprinted(())
    """Published scores to check the loaded model against."""
