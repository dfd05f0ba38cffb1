"""Reading `manifest.json`: what a run was made from and with what; empty where it was not recorded."""

from typing import Any

MAIN_PACKAGES = (
    "torch",
    "trl",
    "transformers",
    "accelerate",
    "deepspeed",
    "peft",
    "vllm",
    "alpaca-eval",
    "numpy",
)
"""Those that numbers hang on most."""


def environment_of(manifest: dict[str, Any], stage: str) -> dict[str, Any]:
    """The environment that made a stage; of an unfinished one that of the newest attempt."""
    made_by = manifest.get("stages", {}).get(stage, manifest)
    return manifest.get("environments", {}).get(made_by.get("environment"), {})


def main_packages(environment: dict[str, Any]) -> dict[str, str]:
    """Version of rlhf_eval, Python and the packages that numbers hang on most."""
    packages = environment.get("packages", {})
    found = {name: environment[name] for name in ("rlhf_eval", "python") if name in environment}
    return found | {name: packages[name] for name in MAIN_PACKAGES if name in packages}
