"""Synthetic run directories in the format that runs/stages.py writes."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.intervals import wilson

CONFIG = {
    "reward_model": {"name": "clean", "kind": "classifier", "model": "lab:rm/clean"},
    "policy": {"name": "lab_policy", "model": "lab:policy"},
    "algorithm": {
        "name": "grpo",
        "kind": "grpo",
        "steps": 40,
        "prompts_per_step": 8,
        "group_size": 8,
        "max_completion_tokens": 32,
        "learning_rate": 5e-4,
        "kl_coefficient": 0.04,
    },
    "prompts": {
        "name": "lab",
        "train": "lab:train.jsonl",
        "held_out": "lab:held_out.jsonl",
        "alpaca_eval": {"reference_outputs": "lab:alpaca.json"},
        "arena_hard": {"questions": "lab:questions.jsonl", "baseline_answers": "lab:answers.jsonl"},
    },
    "generation": {"name": "sample"},
    "judge": {"name": "lab_judge", "model": "lab-judge-1"},
    "seed": 0,
    "experiment": "lab",
}


def write_run(
    folder: Path,
    name: str = "clean",
    seed: int = 0,
    values: Sequence[float] | np.ndarray = (0.5, 0.7),
    arena: Sequence[float] | np.ndarray | None = None,
    control: bool = False,
    kind: str = "classifier",
    benchmarks: dict[str, tuple[int, float]] | None = None,
    gold: float | None = None,
    answers: Callable[[int], str] = lambda i: f"answer {i}",
    prompt_ids: Sequence[str] | None = None,
    failed: int = 0,
    kl: float | None = 4.0,
    finished: bool = True,
    state: dict[str, Any] | None = None,
    hash8: str = "0a1b2c3d",
    **overrides: Any,
) -> Path:
    """A run whose AlpacaEval preferences are `values`; `overrides` replace parts of the configuration."""
    config = json.loads(json.dumps(CONFIG))
    config["reward_model"] |= {"name": name, "kind": kind, "control": control}
    config["seed"] = seed
    for key, value in overrides.items():
        merged = isinstance(value, dict) and key in config and value.get("kind") != "best_of_n"
        config[key] = config[key] | value if merged else value
    slug = "".join(c if c.isalnum() else "_" for c in name)
    path = folder / f"{slug}--lab_policy--grpo--s{seed}--{hash8}"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), "utf-8")
    write(path / "status.json", state or {"state": "done" if finished else "running", "stage": "score"})
    write(
        path / "manifest.json",
        {
            "seeds": {"run": seed},
            "environment": "e1",
            "environments": {
                "e1": {"code": {"commit": "abc123", "dirty": True}, "packages": {"trl": "1.16.0"}}
            },
        },
    )
    write(
        path / "stages/benchmark/results.json", {b: result(*pair) for b, pair in (benchmarks or {}).items()}
    )
    if kl is not None:
        write_lines(path / "metrics.jsonl", curve(kl, gold, float(np.mean(values))))
    if not finished:
        return path
    values = np.asarray(values, dtype=float)
    arena = values if arena is None else np.asarray(arena, dtype=float)
    ids = list(prompt_ids or [f"p{i}" for i in range(len(values))])
    rows = []
    for evaluation, column in (("alpaca_eval", values), ("arena_hard", arena)):
        for i, value in enumerate(column):
            rows.append(
                {
                    "evaluation": evaluation,
                    "prompt_id": ids[i],
                    "value": None if np.isnan(value) else value,
                    "length_controlled": value
                    if evaluation == "alpaca_eval" and not np.isnan(value)
                    else None,
                    "characters": 80 + i,
                    "gold": gold,
                }
            )
        write_lines(
            path / f"stages/generate/{evaluation}.jsonl",
            [
                {
                    "prompt_id": ids[i],
                    "instruction": f"list {i} fruits",
                    "text": answers(i),
                    "tokens": 9,
                    "finish": "stop",
                }
                for i in range(len(column))
            ],
        )
        write_lines(path / f"stages/judge/{evaluation}.jsonl", verdicts(evaluation, ids, failed))
    write_lines(path / "stages/score/per_prompt.jsonl", rows)
    summary = {"n": len(values), "failed": failed, "baseline": "lab_policy", "mean_characters": 83.1}
    win_rate = 100 * float(np.nanmean(values))
    scores: dict[str, Any] = {
        "judge": {"name": "lab_judge", "model": "lab-judge-1"},
        "alpaca_eval": summary
        | {"win_rate": win_rate, "standard_error": 2.0, "length_controlled_win_rate": win_rate}
        | {"length_controlled_standard_error": 2.0, "length_control": "without regulariser"},
        "arena_hard": summary | {"score": 100 * float(np.nanmean(arena)), "standard_error": 2.0},
    }
    if gold is not None:
        scores["gold"] = {"n": 2 * len(values), "mean": gold}
    write(path / "stages/score/scores.json", scores)
    write(path / "stages/score/done.json", {"inputs": "x"})
    return path


def result(n: int, accuracy: float) -> dict[str, Any]:
    low, high = wilson(n * accuracy / 100, n)
    return {"n": n, "accuracy": accuracy, "low": 100 * low, "high": 100 * high, "subsets": {"all": accuracy}}


def curve(kl: float, gold: float | None, quality: float) -> list[dict[str, Any]]:
    """Proxy reward that rises, gold that follows and then bends, after Gao et al. 2023."""
    rows: list[dict[str, Any]] = [{"kind": "train", "step": 1, "loss": 0.1}]
    for step in range(0, 41, 10):
        distance = np.sqrt(kl * step / 40)
        rows.append(
            {
                "kind": "checkpoint",
                "step": step,
                "kl": distance**2,
                "proxy_reward": distance * (0.9 + 0.4 * quality) - 0.05 * distance**2,
                "gold_reward": None
                if gold is None
                else 0.49 + distance * (quality - 0.5) - 0.01 * distance**2,
                "length_tokens": 12.0,
                "n": 128,
            }
        )
    return rows


def verdicts(evaluation: str, ids: list[str], failed: int) -> list[dict[str, Any]]:
    base = {"evaluation": evaluation, "game": 0, "policy_first": True, "label": None, "text": ""}
    return [
        base
        | {"prompt_id": id, "key": f"k{i}"}
        | (
            {"preference": None, "error": "time-out after 5 retries"}
            if i < failed
            else {"preference": 0.5, "error": None}
        )
        for i, id in enumerate(ids)
    ]


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), "utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


LAB = (
    # name, control, kind, quality, public, private, gold, final KL
    ("clean", False, "classifier", 0.71, 82.0, 83.0, 0.71, 9.0),
    ("noisy", False, "classifier", 0.66, 80.0, 78.0, 0.69, 10.0),
    ("clean_small", False, "classifier", 0.64, 70.0, 72.0, 0.67, 8.0),
    ("contaminated", False, "classifier", 0.56, 95.0, 74.0, 0.58, 14.0),
    ("length_biased", False, "classifier", 0.24, 53.0, 49.0, 0.23, 22.0),
    ("random", True, "random", 0.50, 50.0, 51.0, 0.51, 0.4),
    ("length_only", True, "length", 0.10, 53.0, 52.0, 0.08, 26.0),
    ("flipped", True, "flipped", 0.06, 18.0, 17.0, 0.04, 12.0),
)


def write_lab(folder: Path, seeds: int = 2, prompts: int = 300) -> Path:
    """An experiment with the shape of the embedded lab's."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 0.15, prompts)
    for name, control, kind, quality, public, private, gold, kl in LAB:
        for seed in range(seeds):
            luck = rng.normal(0, 0.015)
            values = np.clip(quality + luck + hardness + rng.normal(0, 0.2, prompts), 0, 1)
            write_run(
                folder,
                name,
                seed,
                values,
                np.clip(values + rng.normal(0, 0.1, prompts), 0, 1),
                control,
                kind,
                {"lab_public": (300, public), "lab_private": (300, private)},
                gold + luck,
                kl=kl * (1 + luck),
            )
    values = np.clip(0.5 + hardness + rng.normal(0, 0.2, prompts), 0, 1)
    write_run(folder, "untrained", 0, values, None, True, "untrained", gold=0.49, kl=None)
    return folder


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Path]:
    """Adds a run to one experiment folder; see `write_run`."""
    folder = tmp_path / "runs" / "lab"
    folder.mkdir(parents=True)
    return partial(write_run, folder)


@pytest.fixture
def renamed() -> Callable[[list[RunRecord], str], list[RunRecord]]:
    """Runs under a reward model name that the schema would refuse today."""

    def rename(run: RunRecord, name: str) -> RunRecord:
        return replace(
            run, config=replace(run.config, reward_model=replace(run.config.reward_model, name=name))
        )

    return lambda runs, name: [rename(run, name) for run in runs]


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lab(tmp_path_factory.mktemp("runs") / "lab")
