"""Run directories as records: all the analysis knows about a run, read from its files or from the cache."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.cache import Kind, Row, read_cached
from rlhf_eval.analysis.per_prompt import NUMBERS, PromptScores, read_per_prompt
from rlhf_eval.analysis.selection import GridChoice
from rlhf_eval.config.compose import RUN_CONFIG, from_plain, load
from rlhf_eval.config.grid import Point, grid_point
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import DataError, did_you_mean
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.learning import gradient_steps, gradient_warning

BENCHMARK, DONE = "stages/benchmark/results.json", "stages/score/done.json"
SCORES, PER_PROMPT = "stages/score/scores.json", "stages/score/per_prompt.jsonl"
MEASURES = ("kl", "proxy_reward", "gold_reward", "length_tokens")
"""The numbers of a checkpoint that every analysis uses."""
READ_AS_THEY_ARE = (
    *("scores", "curves", "benchmarks", "status", "manifest"),
    *("training_seconds", "training_steps", "no_gradient_steps"),
)


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
        manifest: `manifest.json`; empty where there is none.
        training_seconds: of all training steps together; None where `metrics.jsonl` has none.
        training_steps: those in `metrics.jsonl`.
        no_gradient_steps: those of them in which the rewards gave the policy nothing to learn from.
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
    manifest: dict[str, Any]
    training_seconds: float | None
    training_steps: int
    no_gradient_steps: int
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

    @property
    def warning(self) -> str | None:
        """In words, if more than half of its training steps had no gradient; None otherwise."""
        return gradient_warning(self.no_gradient_steps, self.training_steps)


def read_runs(folder: Path) -> list[RunRecord]:
    """All runs of an experiment, comparable or not, by reward model and seed.

    Raises:
        DataError: the folder is absent or empty, or a file is damaged.
        ConfigError: a `config.yaml` is damaged.
    """
    records = read_records(folder)
    finished = [record for record in records if record.finished]
    per_prompt = read_cached(Path(folder), [record.path for record in finished], PER_PROMPTS)
    found = dict(zip((record.path for record in finished), per_prompt, strict=True))
    return [replace(record, per_prompt=found.get(record.path, {})) for record in records]


def read_records(folder: Path) -> list[RunRecord]:
    """As `read_runs`, without what they scored prompt by prompt: `per_prompt` is empty.

    Raises:
        DataError, ConfigError: as `read_runs`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        raise DataError(
            f"There is no experiment folder {folder}.",
            did_you_mean(folder.name, siblings) if siblings else "Start runs with `rlhf-eval run`.",
        )
    paths = [path.parent for path in sorted(folder.glob("*/config.yaml"))]
    if not paths:
        raise DataError(
            f"{folder} holds no runs.",
            "Give the folder of an experiment, such as runs/lab, or start runs with `rlhf-eval run`.",
        )
    return sorted(read_cached(folder, paths, RECORDS), key=lambda run: (run.reward_model, run.seed))


def read_record(path: Path) -> RunRecord:
    """One run directory, without what it scored prompt by prompt.

    Raises:
        ConfigError: its `config.yaml` is damaged.
        DataError: another file is.
    """
    finished = (path / DONE).exists()
    return RunRecord(
        path=path,
        config=load(path / "config.yaml"),
        hash8=_hash8(path),
        finished=finished,
        scores=_object(path / SCORES) if finished else {},
        per_prompt={},
        benchmarks=_object_if_there(path / BENCHMARK),
        status=_object_if_there(path / "status.json"),
        manifest=_object_if_there(path / "manifest.json"),
        **_metrics(path / "metrics.jsonl"),
    )


def _metrics(path: Path) -> dict[str, Any]:
    """The checkpoint rows by step, and the totals over training steps; the last word on a step counts."""
    rows = _lines(path) if path.exists() else []
    try:
        curve = {row["step"]: row for row in rows if row.get("kind") == "checkpoint"}
        steps = [row for row in rows if row.get("kind") == "train" and "seconds" in row]
        seconds = {row["step"]: row["seconds"] for row in steps}
        no_gradient_steps, training_steps = gradient_steps(rows)
        measured = [row.get(name) for row in curve.values() for name in MEASURES]
        numbers = [*curve, *seconds.values(), *(value for value in measured if value is not None)]
        if wrong := [value for value in numbers if not isinstance(value, int | float)]:
            raise TypeError(f"{wrong[0]!r} is no number")
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds a line that is no step's numbers ({type(error).__name__}: {error}).",
            "Remove that line; or delete the file and the folder stages/train beside it, and give the run's "
            "command again.",
        ) from error
    return {
        "curves": tuple(row for _, row in sorted(curve.items())),
        "training_seconds": sum(seconds.values()) if seconds else None,
        "training_steps": training_steps,
        "no_gradient_steps": no_gradient_steps,
    }


def _lines(path: Path) -> list[Any]:
    """As `read_jsonl`, thrice as fast where nothing is wrong: a long training has thousands of lines."""
    try:
        return json.loads(b"[" + path.read_bytes().rstrip().replace(b"\n", b",") + b"]")
    except ValueError:
        return read_jsonl(path)


def _object_if_there(path: Path) -> dict[str, Any]:
    return _object(path) if path.exists() else {}


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} is no JSON object.", "Delete the file to have it made again, or restore it.")
    return value


def _hash8(path: Path) -> str:
    return path.name.rsplit("--", 1)[-1]


def _record_rows(record: RunRecord) -> list[Row]:
    kept = {name: getattr(record, name) for name in READ_AS_THEY_ARE}
    kept |= {"config": RUN_CONFIG.dump_python(record.config, mode="json"), "finished": record.finished}
    return [{"record": json.dumps(kept)}]


def _record_from(path: Path, rows: list[Row]) -> RunRecord:
    kept = json.loads(rows[0]["record"])
    kept["config"] = from_plain(kept["config"], str(path / "config.yaml"))
    kept["curves"] = tuple(kept["curves"])
    return RunRecord(path=path, hash8=_hash8(path), per_prompt={}, **kept)


RECORDS = Kind(
    name="records",
    files=("config.yaml", "manifest.json", "metrics.jsonl", "status.json", BENCHMARK, DONE, SCORES),
    read=read_record,
    to_rows=_record_rows,
    from_rows=_record_from,
    columns={"record": "text"},
)


def _per_prompt(path: Path) -> dict[str, PromptScores]:
    return read_per_prompt(path / PER_PROMPT)


def _prompt_rows(per_prompt: dict[str, PromptScores]) -> list[Row]:
    return [
        {"evaluation": evaluation, "prompt_ids": json.dumps(scores.prompt_ids)}
        | {name: getattr(scores, name) for name in NUMBERS}
        for evaluation, scores in per_prompt.items()
    ]


def _prompts_from(path: Path, rows: list[Row]) -> dict[str, PromptScores]:
    return {
        row["evaluation"]: PromptScores(_ids(row["prompt_ids"]), *(row[name] for name in NUMBERS))
        for row in rows
    }


@lru_cache(maxsize=64)
def _ids(text: str) -> tuple[str, ...]:
    """Of the prompts that most runs of an experiment share."""
    return tuple(json.loads(text))


PER_PROMPTS = Kind(
    name="per_prompt",
    files=(PER_PROMPT,),
    read=_per_prompt,
    to_rows=_prompt_rows,
    from_rows=_prompts_from,
    columns={"evaluation": "text", "prompt_ids": "text", **dict.fromkeys(NUMBERS, "numbers")},
)
