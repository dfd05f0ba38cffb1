"""The words around the words: chat templates, judge prompts and verdict prompts of a run, as hashes."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from rlhf_eval.config.inputs import nested
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import sha256_json
from rlhf_eval.judging import annotators, arena_hard
from rlhf_eval.rewards.verdicts import prompt_file

OWN = ("chat_template.jinja", "tokenizer_config.json")
"""Where a tokenizer may have its chat template; the first one that has it counts."""


def templates(config: RunConfig) -> dict[str, str]:
    """SHA-256 by what they belong to: "chat template of policy", "arena_hard judge prompt" …

    Those of a hub model are known as soon as it was downloaded, those of a model behind an address never. A
    prompt that the configuration names by a source of its own is among the hashed files instead.

    Args:
        config: localised, and its revisions pinned.

    Raises:
        ConfigError: there is no such annotator or verdict prompt.
    """
    texts = {f"chat template of {owner}": text for owner, text in _chat_templates(config)}
    for root in ("reward_model", "gold_reward_model"):
        for owner, reward_model in nested(root, getattr(config, root)):
            if reward_model.verdict is not None:
                file = prompt_file(reward_model.verdict)
                texts[f"verdict prompt of {owner}"] = file.read_text(encoding="utf-8")
    found = {name: sha256(text.encode()).hexdigest() for name, text in texts.items()}
    annotator = annotators.load(config.prompts.alpaca_eval.annotator)
    found[f"alpaca_eval judge prompt ({annotator.name})"] = sha256_json(annotator.messages)
    if any(judge.arena_hard_prompt is None for judge in (config.judge, *config.second_judges.values())):
        found["arena_hard judge prompt"] = sha256_json(arena_hard.own_prompts())
    return found


def _chat_templates(config: RunConfig) -> Iterator[tuple[str, str]]:
    """The models of a run whose tokenizers are at hand, with their chat templates."""
    owners: list[tuple[str, str, str | None]] = [("policy", config.policy.model, config.policy.revision)]
    for root in ("reward_model", "gold_reward_model"):
        for owner, reward_model in nested(root, getattr(config, root)):
            if _has_tokenizer(reward_model):
                owners.append((owner, reward_model.model, reward_model.revision))
    for owner, model, revision in owners:
        if (text := _own_template(model, revision)) is not None:
            yield owner, text


def _has_tokenizer(reward_model: RewardModelConfig) -> bool:
    """Whether it renders by its tokenizer's template, not by a file's."""
    return bool(reward_model.model) and reward_model.endpoint is None and reward_model.chat_template is None


def _own_template(model: str, revision: str | None) -> str | None:
    """The chat template in a local folder or in the hub's cache; None where there is none."""
    for name in OWN:
        if (file := _tokenizer_file(model, revision, name)) is None:
            continue
        text = file.read_text(encoding="utf-8")
        template = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
        if template:
            return template if isinstance(template, str) else json.dumps(template)
    return None


def _tokenizer_file(model: str, revision: str | None, name: str) -> Path | None:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except HFValidationError:  # no hub name: loading it will say so
        return None
    return Path(found) if isinstance(found, str) else None
