"""What every engine needs to know of a policy before any weights are loaded: parts, prompts, stop tokens."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import read_json
from rlhf_eval.records import Completion, Prompt, as_json

NO_CODE: dict[str, Any] = {"trust_remote_code": False}
"""For `from_pretrained`: where nothing is said, transformers asks at the terminal."""
SAFELY: dict[str, Any] = {**NO_CODE, "use_safetensors": True}
"""For `from_pretrained` of a policy, its critic or its reference: neither Python nor pickles of theirs."""
ADAPTER = "adapter_model.safetensors"


@dataclass(frozen=True)
class Parts:
    """Where the parts of a policy stand.

    Attributes:
        base: hub name or folder of the full weights, at `revision`.
        adapter: folder of a LoRA adapter on top of them; None where the policy is full weights.
        rank: largest rank of the adapter's matrices; 0 without one.
        tokenizer: hub name or folder of the tokenizer, at `tokenizer_revision`.
    """

    base: str
    revision: str | None
    adapter: str | None
    rank: int
    tokenizer: str
    tokenizer_revision: str | None


def parts_of(policy: PolicyConfig) -> Parts:
    """The parts of a policy; an `adapter_config.json` in its folder or repository makes it an adapter.

    An adapter without a tokenizer of its own uses that of its base.

    Raises:
        DataError: the policy cannot be reached, or its adapter is not LoRA, or a pickle.
    """
    from transformers.utils.hub import cached_file
    from transformers.utils.peft_utils import find_adapter_config_file

    name, revision = policy.model, policy.revision
    with loading(policy):
        file = find_adapter_config_file(name, revision=revision)
    if file is None:
        return Parts(name, revision, None, 0, name, revision)
    config = read_json(Path(file))
    if config.get("peft_type") != "LORA":
        raise DataError(
            f"The adapter of policy '{name}' is {config.get('peft_type')}, not LoRA.", "Merge it first."
        )
    base, base_revision = config["base_model_name_or_path"], config.get("revision")
    with loading(policy):
        own = cached_file(
            name, "tokenizer_config.json", revision=revision, _raise_exceptions_for_missing_entries=False
        )
        folder = _folder(name, revision)
    if not (Path(folder) / ADAPTER).is_file():
        raise DataError(
            f"The adapter of policy '{name}' cannot be loaded: it has no {ADAPTER}.",
            "Save it with PEFT's save_pretrained(): reading a pickle can run code.",
        )
    return Parts(
        base,
        base_revision,
        folder,
        max([config["r"], *(config.get("rank_pattern") or {}).values()]),
        name if own else base,
        revision if own else base_revision,
    )


@contextmanager
def loading(policy: PolicyConfig) -> Iterator[None]:
    """Turns what transformers raises about a policy that cannot be loaded into a DataError."""
    try:
        yield
    except (OSError, ValueError) as error:
        text = str(error).strip()
        first = next(iter(text.splitlines()), type(error).__name__)
        cure = (
            "Check policy.model and .revision (of an adapter, its base too), network and HF_TOKEN, or give a "
            "local folder."
        )
        if "trust_remote_code" in text or "custom code" in text:
            cure = "Choose a policy that transformers knows: Python that comes with weights is not run here."
        elif "safetensors" in text:
            cure = "Save it as safetensors: reading a pickle can run code."
        raise DataError(f"Policy '{policy.model}' cannot be loaded: {first}", cure) from error


def load_tokenizer(policy: PolicyConfig, parts: Parts) -> Any:
    """The policy's tokenizer, padding left.

    Raises:
        DataError: it cannot be loaded, or has no chat template.
    """
    from transformers import AutoTokenizer

    with loading(policy):
        tokenizer = AutoTokenizer.from_pretrained(
            parts.tokenizer, revision=parts.tokenizer_revision, padding_side="left", **NO_CODE
        )
    if tokenizer.chat_template is None:
        raise DataError(f"The tokenizer of '{policy.model}' has no chat template.", "Choose a chat model.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def prompt_ids(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt with the assistant's turn opened."""
    return tokenizer.apply_chat_template(
        as_json(prompt.messages), add_generation_prompt=True, return_dict=False
    )


def stop_tokens(generation_config: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a turn: those of the model's generation config and the tokenizer's own."""
    configured = generation_config.eos_token_id
    configured = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in [*configured, tokenizer.eos_token_id] if token is not None})


def published_stop_tokens(policy: PolicyConfig, parts: Parts, tokenizer: Any) -> list[int]:
    """`stop_tokens` of a policy whose weights are not loaded here.

    Raises:
        DataError: the model's configuration cannot be loaded.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        own = GenerationConfig.from_pretrained(parts.base, revision=parts.revision or "main")
    except OSError:  # there is no generation_config.json; transformers then asks the model's config
        with loading(policy):
            model = AutoConfig.from_pretrained(parts.base, revision=parts.revision, **NO_CODE)
        own = GenerationConfig.from_model_config(model)
    return stop_tokens(own, tokenizer)


def completion(prompt_id: str, sampled: Sequence[int], stops: Collection[int], tokenizer: Any) -> Completion:
    """The answer that sampled tokens make, up to and with the first stop token."""
    end = next((place for place, token in enumerate(sampled) if token in stops), None)
    tokens = sampled if end is None else sampled[: end + 1]
    text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return Completion(prompt_id, text, len(tokens), "length" if end is None else "stop")


def _folder(name: str, revision: str | None) -> str:
    """The local folder of an adapter, downloaded if it stands on the hub."""
    from huggingface_hub import snapshot_download

    return name if Path(name).is_dir() else snapshot_download(name, revision=revision)
