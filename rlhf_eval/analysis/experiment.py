"""The runs of an experiment that are ranked together: which may be compared, and at which point of a grid."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.run_record import RunRecord, read_runs
from rlhf_eval.analysis.selection import Curve, GridChoice, choose, common_kl
from rlhf_eval.config.grid import TRAINING, Point, grid_points, held_equal
from rlhf_eval.errors import DataError


def load_runs(folder: Path) -> list[RunRecord]:
    """The runs of an experiment that are ranked together, by reward model and seed; the unfinished ones are
    marked, not dropped. With a grid, the finished runs of each reward model are those at the point that was
    chosen on held-out prompts (`grid_choices`); `read_runs` has the others too.

    Raises:
        DataError: the folder is absent or holds no finished run; a file is damaged; or finished runs
            stand in it that must not be compared (see `check_comparable`), or that no point can be chosen of.
        ConfigError: a `config.yaml` is damaged.
    """
    return _ranked_together(read_runs(folder))


def load_by_setting(folder: Path) -> list[list[RunRecord]]:
    """The runs of an experiment by policy base and algorithm, each part as `load_runs` has it; the untrained
    policy stands in every part of its policy base.

    Raises:
        DataError, ConfigError: as `load_runs`, of any part.
    """
    runs = read_runs(folder)
    settings = sorted({(run.policy, run.algorithm) for run in runs if not run.untrained})
    if len(settings) < 2:
        return [_ranked_together(runs)]
    return [
        _ranked_together(
            [run for run in runs if run.policy == policy and (run.untrained or run.algorithm == name)]
        )
        for policy, name in settings
    ]


def _ranked_together(runs: list[RunRecord]) -> list[RunRecord]:
    finished = [run for run in runs if run.finished]
    if not finished:
        states = "; ".join(f"{run.path.name} ({run.state})" for run in runs[:5])
        raise DataError(
            f"None of the {len(runs)} runs in {runs[0].path.parent} is finished: {states}.",
            "Wait for them, or start their commands again: each continues where it stopped.",
        )
    check_comparable(finished)
    choices = grid_choices(finished)
    if unclear := [name for name, choice in choices.items() if choice.point is None]:
        raise DataError(
            f"No point of the grid can be chosen for {', '.join(unclear)}: none of its finished runs has a "
            "checkpoint with a reward in metrics.jsonl.",
            "Delete the folders stages/train of these runs and give their commands again.",
        )
    runs = [replace(run, choice=choices.get(run.reward_model)) for run in runs]
    return [run for run in runs if not run.finished or run.choice is None or run.point == run.choice.point]


def grid_choices(runs: Iterable[RunRecord]) -> dict[str, GridChoice]:
    """The point of the grid at which each reward model is ranked (see `choose`), from its finished runs;
    empty where the runs have no grid. The untrained policy has no choice.

    Args:
        runs: comparable ones.
    """
    trained = [run for run in runs if run.finished and not run.untrained and run.config.grid]
    curves: dict[str, dict[tuple[Point, int], Curve]] = defaultdict(dict)
    for run in trained:
        curves[run.reward_model][run.point, run.seed] = run.curves
    return {name: choose(curves[name], grid_points(trained[0].config)) for name in sorted(curves)}


def experiment_kl(runs: Iterable[RunRecord]) -> float | None:
    """The KL divergence at which runs are compared unless another is asked for: the largest that every
    finished run reaches (`common_kl`), at whatever point of the grid; controls and what trains nothing (the
    untrained policy, best-of-N) have no say in it. Nats per completion; None where there is no such KL."""
    return common_kl(
        run.curves
        for run in runs
        if run.finished and not (run.control or run.untrained or run.config.algorithm.kind == "best_of_n")
    )


def check_comparable(runs: Iterable[RunRecord]) -> None:
    """Refuse to mix what cannot be compared.

    Runs that are ranked together may differ in reward model, seed and the fields of the grid that they all
    have, and in nothing else that enters the fingerprint (judge, prompts, policy, algorithm, …), where the
    untrained policy agrees with any training; one name stands for one reward model; one reward model and seed
    has one run at each point of the grid; and the prompts that were scored are the same.

    Raises:
        DataError: naming two runs and the fields in which they differ.
    """
    runs = list(runs)
    fields = {run.path: held_equal(run.config) for run in runs}
    reference = next((run for run in runs if not run.untrained), runs[0])
    first_of: dict[str, RunRecord] = {}
    seen: dict[tuple[str, int, Point], RunRecord] = {}
    for run in runs:
        first = first_of.setdefault(run.reward_model, run)
        for other, skip in ((reference, ("reward_model.",)), (first, ())):
            _refuse_differences(other, run, fields[other.path], fields[run.path], skip)
        twin = seen.setdefault((run.reward_model, run.seed, run.point), run)
        if twin is not run:
            where = " at the same point of the grid" if run.point else ""
            raise DataError(
                f"{twin.path.name} and {run.path.name} are the same reward model and seed{where}.",
                "Move one of them to another folder.",
            )
    for evaluation in sorted({name for run in runs for name in run.per_prompt}):
        _refuse_other_prompts(runs, evaluation)


def differences(ours: dict[str, Any], theirs: dict[str, Any], skip: tuple[str, ...]) -> str:
    """The fields in which two configurations (`held_equal`) differ, with both values; empty if in none.

    Args:
        skip: beginnings of names that may differ.
    """
    names = [
        name for name in ours | theirs if not name.startswith(skip) and ours.get(name) != theirs.get(name)
    ]
    listed = ", ".join(f"{name} ({ours.get(name)} / {theirs.get(name)})" for name in names[:6])
    return listed + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _refuse_differences(
    one: RunRecord, other: RunRecord, ours: dict[str, Any], theirs: dict[str, Any], skip: tuple[str, ...]
) -> None:
    skip += TRAINING if one.untrained or other.untrained else ()
    if found := differences(ours, theirs, skip):
        raise DataError(
            f"{one.path.name} and {other.path.name} cannot be compared; they differ in {found}.",
            "Rank them in separate folders: give each setting its own `experiment=`.",
        )


def _refuse_other_prompts(runs: list[RunRecord], evaluation: str) -> None:
    """Prompts may be missing from a run by failed verdicts, as many as it reports, and not otherwise."""
    every = {
        id for run in runs if evaluation in run.per_prompt for id in run.per_prompt[evaluation].prompt_ids
    }
    for run in runs:
        scored = len(run.per_prompt[evaluation].prompt_ids) if evaluation in run.per_prompt else 0
        failed = run.scores.get(evaluation, {}).get("failed", 0)
        if scored + failed < len(every):
            raise DataError(
                f"{run.path.name} was scored on {scored} {evaluation} prompts ({failed} more failed), other "
                f"runs in its folder on {len(every)} between them: the prompt sets differ.",
                "Rank runs on different prompts in separate folders.",
            )
