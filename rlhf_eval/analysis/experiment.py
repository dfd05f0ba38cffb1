"""Run directories as records: all the analysis knows about a run, and which runs may stand together."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.analysis.selection import GridChoice, choose, common_kl
from rlhf_eval.config.compose import load
from rlhf_eval.config.grid import TRAINING, Point, grid_point, grid_points, held_equal
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import DataError, did_you_mean
from rlhf_eval.files import read_json, read_jsonl


@dataclass(frozen=True, slots=True, eq=False)
class PromptScores:
    """One evaluation's outcome of one run, prompt by prompt; all arrays have shape (prompts,).

    Attributes:
        prompt_ids: the prompts with a verdict; a prompt whose every verdict failed is absent.
        value: in [0, 1], 1 = the policy's answer is better than the baseline's.
        length_controlled: the same with the effect of length taken out; NaN where it does not exist.
        characters: length of the policy's answer.
        gold: the gold reward model's score of the answer; NaN where there is none.
    """

    prompt_ids: tuple[str, ...]
    value: np.ndarray
    length_controlled: np.ndarray
    characters: np.ndarray
    gold: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class RunRecord:
    """One run, finished or not.

    Attributes:
        finished: whether its score stage is done; where it is not, `scores`, `per_prompt` are empty.
        untrained: the run is the policy base itself: the reference line, not a reward model.
        scores: `stages/score/scores.json`.
        per_prompt: by evaluation ("alpaca_eval", "arena_hard").
        curves: the checkpoint rows of `metrics.jsonl`, by step; a resumed run's last word on a step counts.
        benchmarks: `stages/benchmark/results.json`: by benchmark, percent with Wilson interval.
        status: `status.json`; empty where there is none.
        choice: of the point of the grid that its reward model is ranked at; None without a grid, and before
            `load_runs` has made it.
    """

    path: Path
    config: RunConfig
    hash8: str
    finished: bool
    scores: dict[str, Any]
    per_prompt: dict[str, PromptScores]
    curves: tuple[dict[str, Any], ...]
    benchmarks: dict[str, dict[str, Any]]
    status: dict[str, Any]
    choice: GridChoice | None = None

    @property
    def reward_model(self) -> str:
        return self.config.reward_model.name

    @property
    def control(self) -> bool:
        return self.config.reward_model.control

    @property
    def untrained(self) -> bool:
        return self.config.reward_model.kind == "untrained"

    @property
    def policy(self) -> str:
        return self.config.policy.name

    @property
    def algorithm(self) -> str:
        return self.config.algorithm.name

    @property
    def judge(self) -> str:
        return self.config.judge.name

    @property
    def seed(self) -> int:
        return self.config.seed

    @property
    def point(self) -> Point:
        """Where the run is in the experiment's grid; empty without one."""
        return grid_point(self.config)

    @property
    def state(self) -> str:
        """Where the run is, in words: "done", "failed in train: out of memory", "pending" …"""
        if self.finished:
            return "done"
        state = self.status.get("state", "not started")
        stage = f" in {self.status['stage']}" if self.status.get("stage") else ""
        error = f": {self.status['error']}" if self.status.get("error") else ""
        return f"{state}{stage}{error}"


def load_runs(folder: Path) -> list[RunRecord]:
    """The runs of an experiment that are ranked together, by reward model and seed; the unfinished ones are
    marked, not dropped. With a grid, the finished runs of each reward model are those at the point that was
    chosen on held-out prompts (`grid_choices`); `read_runs` has the others too.

    Raises:
        DataError: the folder is absent or holds no finished run; a file is damaged; or finished runs
            stand in it that must not be compared (see `check_comparable`), or that no point can be chosen of.
        ConfigError: a `config.yaml` is damaged.
    """
    runs = read_runs(folder)
    finished = [run for run in runs if run.finished]
    if not finished:
        states = "; ".join(f"{run.path.name} ({run.state})" for run in runs[:5])
        raise DataError(
            f"None of the {len(runs)} runs in {folder} is finished: {states}.",
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


def read_runs(folder: Path) -> list[RunRecord]:
    """All runs of an experiment, comparable or not, by reward model and seed.

    Raises:
        DataError: the folder is absent or empty, or a file is damaged.
        ConfigError: a `config.yaml` is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        raise DataError(
            f"There is no experiment folder {folder}.",
            did_you_mean(folder.name, siblings) if siblings else "Start runs with `rlhf-eval run`.",
        )
    runs = [read_run(path.parent) for path in sorted(folder.glob("*/config.yaml"))]
    if not runs:
        raise DataError(
            f"{folder} holds no runs.",
            "Give the folder of an experiment, such as runs/lab, or start runs with `rlhf-eval run`.",
        )
    return sorted(runs, key=lambda run: (run.reward_model, run.seed))


def read_run(path: Path) -> RunRecord:
    """One run directory.

    Raises:
        ConfigError: its `config.yaml` is damaged.
        DataError: another file is.
    """
    finished = (path / "stages/score/done.json").exists()
    return RunRecord(
        path=path,
        config=load(path / "config.yaml"),
        hash8=path.name.rsplit("--", 1)[-1],
        finished=finished,
        scores=read_json(path / "stages/score/scores.json") if finished else {},
        per_prompt=_per_prompt(path / "stages/score/per_prompt.jsonl") if finished else {},
        curves=_curves(path / "metrics.jsonl"),
        benchmarks=_json_if_there(path / "stages/benchmark/results.json"),
        status=_json_if_there(path / "status.json"),
    )


def grid_choices(runs: Iterable[RunRecord]) -> dict[str, GridChoice]:
    """The point of the grid at which each reward model is ranked (see `choose`), from its finished runs;
    empty where the runs have no grid. The untrained policy has no choice.

    Args:
        runs: comparable ones.
    """
    trained = [run for run in runs if run.finished and not run.untrained and run.config.grid]
    return {
        name: choose(
            {(run.point, run.seed): run.curves for run in trained if run.reward_model == name},
            grid_points(trained[0].config),
        )
        for name in sorted({run.reward_model for run in trained})
    }


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
    reference = next((run for run in runs if not run.untrained), runs[0])
    first_of: dict[str, RunRecord] = {}
    seen: dict[tuple[str, int, Point], RunRecord] = {}
    for run in runs:
        _refuse_differences(reference, run, skip=("reward_model.",))
        _refuse_differences(first_of.setdefault(run.reward_model, run), run)
        twin = seen.setdefault((run.reward_model, run.seed, run.point), run)
        if twin is not run:
            where = " at the same point of the grid" if run.point else ""
            raise DataError(
                f"{twin.path.name} and {run.path.name} are the same reward model and seed{where}.",
                "Move one of them to another folder.",
            )
    for evaluation in sorted({name for run in runs for name in run.per_prompt}):
        _refuse_other_prompts(runs, evaluation)


def _refuse_differences(one: RunRecord, other: RunRecord, skip: tuple[str, ...] = ()) -> None:
    skip += TRAINING if one.untrained or other.untrained else ()
    ours, theirs = held_equal(one.config), held_equal(other.config)
    names = [
        name for name in ours | theirs if not name.startswith(skip) and ours.get(name) != theirs.get(name)
    ]
    if names:
        listed = ", ".join(f"{name} ({ours.get(name)} / {theirs.get(name)})" for name in names[:6])
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        raise DataError(
            f"{one.path.name} and {other.path.name} cannot be compared; they differ in {listed}{more}.",
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


def _per_prompt(path: Path) -> dict[str, PromptScores]:
    rows_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read_jsonl(path):
        rows_of[row["evaluation"]].append(row)
    return {evaluation: _prompt_scores(path, rows) for evaluation, rows in rows_of.items()}


def _prompt_scores(path: Path, rows: list[dict[str, Any]]) -> PromptScores:
    def column(name: str) -> np.ndarray:
        return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)

    prompt_ids = tuple(row["prompt_id"] for row in rows)
    if len(set(prompt_ids)) < len(prompt_ids):
        raise DataError(
            f"{path} holds a prompt twice.", "Delete the run's stages/score folder and run it again."
        )
    return PromptScores(
        prompt_ids, column("value"), column("length_controlled"), column("characters"), column("gold")
    )


def _curves(path: Path) -> tuple[dict[str, Any], ...]:
    rows = read_jsonl(path) if path.exists() else []
    by_step = {row["step"]: row for row in rows if row.get("kind") == "checkpoint"}
    return tuple(by_step[step] for step in sorted(by_step))


def _json_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
