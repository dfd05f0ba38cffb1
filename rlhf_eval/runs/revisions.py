"""Which commits the hub names of a configuration stand for: resolved once for an experiment, and kept.

A branch moves. The first run of an experiment looks up what `main` is today and writes it down; all its runs,
later attempts included, load those commits, so that they are compared on equal terms and can be reproduced.

    <experiment>/shared/revisions.json      "models/<organisation>/<name>@<revision>" → commit
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rlhf_eval.config.algorithm_schema import PPOConfig
from rlhf_eval.config.inputs import HUB_NAME
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import holding, read_json, write_json
from rlhf_eval.sources import HUB, LAB, rewritten

COMMIT = re.compile("[0-9a-f]{40}")
MODELS, DATASETS = "models/", "datasets/"
_Config = TypeVar("_Config")


def resolved(config: Any, shared: Path) -> dict[str, str]:
    """The commit of every hub name in a configuration or a part of one, as the experiment has it; what the
    experiment does not know yet is looked up and written down. A name that nobody can resolve now (no network
    and nothing in the hub's cache) is left out: loading it will say why.

    Args:
        shared: the experiment's folder of what its runs share.
    """
    names = sorted(set(hub_names(config)))
    file = shared / "revisions.json"
    if not names:
        return {}
    with holding(shared / "revisions.lock"):
        recorded: dict[str, str] = read_json(file) if file.exists() else {}
        # What names a commit stands for it, whatever a file that may come from elsewhere says.
        exact = {name: commit for name in names if COMMIT.fullmatch(commit := name.rpartition("@")[2])}
        known = recorded | exact
        known |= {name: commit for name in names if name not in known and (commit := commit_of(name))}
        if known != recorded:
            write_json(file, dict(sorted(known.items())))
    return {name: known[name] for name in names if name in known}


def adopt(revisions: Mapping[str, str], shared: Path) -> None:
    """Make an experiment load the commits that another had.

    Raises:
        DataError: the experiment has others already.
    """
    theirs = {name: commit for name, commit in revisions.items() if COMMIT.fullmatch(str(commit))}
    if not theirs:
        return
    file = shared / "revisions.json"
    with holding(shared / "revisions.lock"):
        ours: dict[str, str] = read_json(file) if file.exists() else {}
        if other := [name for name in ours if theirs.get(name, ours[name]) != ours[name]]:
            raise DataError(
                f"{file} has {other[0]} at {ours[other[0]]}, the original at {theirs[other[0]]}.",
                "Name another place with --run-dir, such as runs/again/run.",
            )
        write_json(file, dict(sorted((ours | theirs).items())))


def pinned(config: _Config, revisions: Mapping[str, str]) -> _Config:
    """The same configuration with every branch of the hub replaced by its commit; not for a model that brings
    Python of its own, whose commit somebody must have read and named."""

    def at_commit(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(HUB):
            name, file = _dataset(value)
            repository = name.removeprefix(DATASETS).partition("@")[0]
            return f"{HUB}{repository}@{revisions[name]}/{file}" if name in revisions else value
        if isinstance(value, RewardModelConfig) and value.remote_code:
            return value
        if isinstance(value, PPOConfig) and value.critic_model:
            name = _model(value.critic_model, value.critic_revision)
            value = replace(value, critic_revision=revisions.get(name, value.critic_revision))
        if isinstance(value, PolicyConfig | RewardModelConfig):
            name = _model(value.model, value.revision)
            value = replace(value, revision=revisions.get(name, value.revision))
        if isinstance(value, RewardModelConfig):
            name = _model(value.reference, value.reference_revision)
            value = replace(value, reference_revision=revisions.get(name, value.reference_revision))
        return value

    return rewritten(config, at_commit)


def hub_names(config: Any) -> list[str]:
    """Every name in a configuration that is loaded from the hub: `models/<organisation>/<name>@<revision>`,
    `datasets/…`."""
    found: list[str] = []

    def look(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(HUB):
            found.append(_dataset(value)[0])
        if isinstance(value, PolicyConfig) and _on_hub(value.model):
            found.append(_model(value.model, value.revision))
        if isinstance(value, PPOConfig) and _on_hub(value.critic_model or ""):
            found.append(_model(value.critic_model or "", value.critic_revision))
        if isinstance(value, RewardModelConfig) and value.endpoint is None:
            if _on_hub(value.model):
                found.append(_model(value.model, value.revision))
            if _on_hub(value.reference):
                found.append(_model(value.reference, value.reference_revision))
        return value

    rewritten(config, look)
    return found


def commit_of(name: str) -> str | None:
    """The commit that a name of `hub_names` stands for: the hub's word, or, where it cannot be had, what its
    cache on this machine has under that name."""
    kind, _, rest = name.partition("/")
    repository, _, revision = rest.partition("@")
    if COMMIT.fullmatch(revision):
        return revision
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.file_download import repo_folder_name

    kind = kind.removesuffix("s")
    try:
        return HfApi().repo_info(repository, repo_type=kind, revision=revision, timeout=10).sha
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx.TransportError):
        reference = Path(HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind), "refs", revision)
        return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def _on_hub(model: str) -> bool:
    return bool(
        model
        and not model.startswith(LAB)
        and HUB_NAME.fullmatch(model)
        and not Path(model).expanduser().exists()
    )


def _model(name: str, revision: str | None) -> str:
    return f"{MODELS}{name}@{revision or 'main'}"


def _dataset(source: str) -> tuple[str, str]:
    """The name and the file of `hf://datasets/<organisation>/<name>@<revision>/<file>`."""
    organisation, _, rest = source.removeprefix(HUB).partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    return f"{DATASETS}{organisation}/{name}@{revision or 'main'}", file
