"""What a stage depends on: a change of it makes the stage's work stale."""

from pathlib import Path
from typing import Any

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import BASE, RunConfig
from rlhf_eval.files import sha256_json, sha256_known
from rlhf_eval.generation.base_answers import answers_file, uses_base
from rlhf_eval.sources import local_hashes, texts_in

NEEDS: dict[str, tuple[str, ...]] = {
    "benchmark": (),
    "train": (),
    "generate": ("train",),
    "judge": ("generate",),
    "score": ("generate", "judge"),
}
"""The earlier stages that a stage takes something from."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "benchmark": ("reward_model", "benchmarks", "lab"),
    "train": (
        "reward_model",
        "gold_reward_model",
        "policy",
        "algorithm",
        "accelerate",
        "prompts",
        "seed",
        "lab",
    ),
    "generate": ("policy", "prompts", "generation", "seed", "lab"),
    "judge": ("judge", "second_judges", "prompts", "lab"),
    "score": ("judge", "second_judges", "prompts", "gold_reward_model", "lab"),
}
"""The sections of the configuration that a stage depends on; earlier stages count by their outputs."""


def is_ready(name: str, outputs: dict[str, str]) -> bool:
    """Whether all that a stage needs is done."""
    return all(need in outputs for need in NEEDS[name])


def files_of(config: RunConfig, shared: Path, world: Path | None) -> dict[str, str]:
    """SHA-256 of the local files that a configuration names, and of the policy base's answers if it does."""
    files = local_hashes(fingerprint(config), world)
    if uses_base(config) and (answers := answers_file(shared, config, world)).exists():
        files[BASE] = sha256_known(answers)
    return files


def input_hash(name: str, chosen: dict[str, Any], files: dict[str, str], outputs: dict[str, str]) -> str:
    """What a stage depends on.

    Args:
        chosen: the configuration's fingerprint.
        files: SHA-256 of the local files that it names.
        outputs: output hash of every stage that is done.
    """
    sections = {section: chosen.get(section) for section in SECTIONS[name]}
    named = {text: files[text] for text in texts_in(sections) if text in files}
    earlier = {need: outputs[need] for need in NEEDS[name]}
    return sha256_json({"sections": sections, "files": named, "earlier": earlier})
