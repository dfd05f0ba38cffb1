"""`rlhf-eval demo`: the whole way once, on the embedded lab."""

from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.checks import check_names
from rlhf_eval.progress import Progress
from rlhf_eval.sweep.grid import points
from rlhf_eval.sweep.local import Outcome, run_all

REWARD_MODELS = (
    "lab_clean",
    "lab_clean_small",
    "lab_noisy",
    "lab_length_biased",
    "lab_contaminated",
    "random",
    "length_only",
    "lab_flipped",
    "untrained",
)


def run_demo(
    lab_seed: int, seeds: int, jobs: int, output: str, experiment: str, progress: Progress
) -> tuple[Path, list[Outcome]]:
    """Build the lab's world and execute every reward model with every seed; what is done is left alone.

    Args:
        lab_seed: seed of the world.
        seeds: number of training seeds, counted from 0.
        jobs: runs side by side.

    Returns:
        The experiment's folder and how each run ended.
    """
    reward_models = f"reward_model={','.join(REWARD_MODELS)}"
    grid = points(["experiment=lab", f"lab.seed={lab_seed}", reward_models, f"seed=range(0,{seeds})"])
    configs = [check_names(replace(config, output=output, experiment=experiment)) for config in grid]
    lab = configs[0].lab
    assert lab is not None
    from rlhf_eval.lab.build import ensure

    ensure(lab, jobs, progress)
    return Path(output) / experiment, run_all(configs, jobs, progress)
