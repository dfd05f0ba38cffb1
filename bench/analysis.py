"""Figures of the analysis: table, ranking and report of experiments with 1,000 and 3,000 runs.

    python bench/analysis.py                 # makes the experiments in a temporary folder, and times
    python bench/analysis.py --folder DIR    # keeps them there and takes them from there the next time

Every figure is that of a fresh process. *Cold* is without the cache that reading leaves in the experiment.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
ALPACA_EVAL, ARENA_HARD, CHECKPOINTS = 805, 500, 11
BASE_MODELS = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-8B", "google/gemma-2-27b", "mistralai/Mistral-7B-v0.3")
CONTROLS = {"random": "random", "length_only": "length", "untrained": "untrained"}
TABLE = "from rlhf_eval.analysis import runs_table; import sys; runs_table(sys.argv[1])"
MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to make, or find, the experiments")
    parser.add_argument("--no-report", action="store_true", help="leave the report out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="analysis-") as temporary:
        folder = options.folder or Path(temporary)
        large = experiment(folder / "large", reward_models=200, seeds=5)
        wide = experiment(folder / "wide", reward_models=3000, seeds=1)
        rows = [*figures(large, "1,000 runs (200 reward models × 5 seeds)", not options.no_report)]
        rows += figures(wide, "3,000 runs (3,000 reward models)", False, limits=False)
    width = max(len(label) for label, *_ in rows)
    print(f"{'':{width}}  measured    limit")
    for label, measured, limit, unit in rows:
        print(f"{label:{width}}  {measured:6.2f} {unit:3}  {f'{limit} {unit}' if limit else '–':>6}")
    return int(any(limit and measured > limit for _, measured, limit, _ in rows))


def figures(
    folder: Path, what: str, with_report: bool, limits: bool = True
) -> Iterator[tuple[str, float, int | None, str]]:
    """Label, figure, limit and unit."""
    commands: dict[str, tuple[list[str], int]] = {
        "table": (["-c", TABLE, str(folder)], 5),
        "rank": (["-m", "rlhf_eval", "rank", str(folder), "--json"], 10),
    }
    for name, (command, limit) in commands.items():
        for state in ("cold", "warm"):
            if state == "cold":
                shutil.rmtree(folder / ".cache", ignore_errors=True)
            yield f"{what}: {name}, {state}", timed(command), limit if limits else None, "s"
    cache = sum(file.stat().st_size for file in (folder / ".cache").glob("*"))
    yield f"{what}: size of the cache", cache / MIB, None, "MiB"
    if with_report:
        page = folder / "report.html"
        words = ["-m", "rlhf_eval", "report", str(folder), "--output", str(page)]
        yield f"{what}: report", timed(words), 30, "s"
        yield f"{what}: size of the report", page.stat().st_size / 1e6, 15, "MB"


def timed(words: list[str]) -> float:
    """Seconds of a Python command, its start included."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began


def experiment(folder: Path, reward_models: int, seeds: int) -> Path:
    """An experiment of finished runs; that of an earlier call if it is there."""
    if (folder / "complete").exists():
        return folder
    from rlhf_eval.config.compose import compose

    words = "reward_model=skywork_v2_llama_8b policy=tulu3_8b_sft +benchmark@benchmarks.judgebench=judgebench"
    config = compose([*words.split(), "+benchmark@benchmarks.rm_bench=rm_bench"])
    rng = np.random.default_rng(0)
    names = [*CONTROLS, *(f"rm_{number:04}" for number in range(reward_models - len(CONTROLS)))]
    answers = Answers(folder / "shared" / "answers")
    for number, name in enumerate(names):
        card = replace(config.reward_model.card, base_model=BASE_MODELS[number % len(BASE_MODELS)])
        model = replace(config.reward_model, name=name, card=card)
        if name in CONTROLS:
            model = replace(model, kind=CONTROLS[name], model="", control=True)
        quality = rng.normal(0.55, 0.08)
        for seed in range(seeds):
            own = replace(config, reward_model=model, seed=seed, experiment=folder.name)
            write_run(folder, own, quality + rng.normal(0, 0.01), answers, rng)
    (folder / "complete").touch()
    return folder


def write_run(
    folder: Path, config: Any, quality: float, answers: "Answers", rng: np.random.Generator
) -> None:
    """A finished run in the format of `runs/stages.py`."""
    from rlhf_eval.config.compose import freeze, run_name

    path = folder / run_name(config)
    for name in ("benchmark", "generate", "judge", "score"):
        (path / "stages" / name).mkdir(parents=True)
    (path / "config.yaml").write_text(freeze(config), encoding="utf-8")
    write(path / "status.json", {"state": "done", "stage": None, "attempt": 1, "error": None})
    write(
        path / "manifest.json",
        {
            "written_at": "2026-11-25T14:58:04+00:00",
            "code": {"commit": "2b87305" + "0" * 33, "dirty": False},
            "packages": {"torch": "2.13.0", "trl": "1.16.0"},
            "accelerators": {"cuda": "13.0", "gpus": ["NVIDIA H100 80GB HBM3"] * 8},
            "seeds": {"run": config.seed},
            "sha256": {"reference_outputs": "7d" * 32, "questions": "99" * 32},
        },
    )
    if config.reward_model.kind != "untrained":
        write_metrics(path / "metrics.jsonl", quality, rng)
        accuracies = {"judgebench": (350, 50 + 60 * (quality - 0.4)), "rm_bench": (1327, 75.0)}
        write(path / "stages/benchmark/results.json", {name: result(*a) for name, a in accuracies.items()})
    alpaca, arena = (np.clip(rng.normal(quality, 0.35, n), 0, 1) for n in (ALPACA_EVAL, ARENA_HARD))
    with (path / "stages/score/per_prompt.jsonl").open("w", encoding="utf-8") as stream:
        for evaluation, values in (("alpaca_eval", alpaca), ("arena_hard", arena)):
            lengths = rng.integers(300, 4000, len(values)).tolist()
            rows = zip(
                answers.ids[evaluation], values.tolist(), (values * 0.98).tolist(), lengths, strict=True
            )
            stream.writelines(
                f'{{"evaluation": "{evaluation}", "prompt_id": "{id}", "value": {value!r}, '
                f'"length_controlled": {controlled!r}, "characters": {characters}, "gold": null}}\n'
                for id, value, controlled, characters in rows
            )
    write(path / "stages/score/scores.json", scores(alpaca, arena))
    write(path / "stages/score/done.json", {"input_hash": "0", "outputs": {}})
    answers.link_into(path, rng)


def write_metrics(path: Path, quality: float, rng: np.random.Generator) -> None:
    steps = np.linspace(0, 200, CHECKPOINTS).astype(int).tolist()
    with path.open("w", encoding="utf-8") as stream:
        for step in range(201):
            if step in steps:
                distance = np.sqrt(step / 10)
                row = {"kind": "checkpoint", "step": step, "kl": float(distance**2 * rng.uniform(0.9, 1.1))}
                row |= {"proxy_reward": float(distance * quality), "gold_reward": None}
                row |= {"length_tokens": 300.0 + step, "entropy": 0.9, "reward_variance": 0.4, "n": 512}
                stream.write(json.dumps(row) + "\n")
            train = {"kind": "train", "step": step + 1, "loss": 0.109104990959, "reward": 0.0829789564013}
            train |= {
                "reward_std": 1.0006554126,
                "kl": 0.01967,
                "grad_norm": 0.6666,
                "completion_length": 301.5,
            }
            train |= {"invalid_rewards": 0.0, "tokens": 77184, "seconds": 61.0, "generation_seconds": 40.0}
            stream.write(json.dumps(train) + "\n")


def scores(alpaca: np.ndarray, arena: np.ndarray) -> dict[str, Any]:
    def error(values: np.ndarray) -> float:
        return 100 * float(values.std(ddof=1) / np.sqrt(len(values)))

    shares = {
        "empty": 0.0,
        "constant": 0.0,
        "repeats itself": 0.2,
        "addresses the judge": 0.0,
        "truncated": 0.4,
    }
    return {
        "judge": {"name": "gpt41", "model": "gpt-4.1-2025-04-14"},
        "alpaca_eval": {
            "n": len(alpaca),
            "failed": 0,
            "baseline": "gpt4_1106_preview",
            "win_rate": 100 * float(alpaca.mean()),
            "standard_error": error(alpaca),
            "length_controlled_win_rate": 98 * float(alpaca.mean()),
            "length_controlled_standard_error": error(alpaca),
            "length_control": "without regulariser",
            "regularised": False,
            "mean_characters": 2011.5,
            "leaderboard": None,
        },
        "arena_hard": {
            "n": len(arena),
            "failed": 0,
            "baseline": "o3-mini",
            "score": 100 * float(arena.mean()),
            "standard_error": error(arena),
            "style_controlled_score": 98 * float(arena.mean()),
            "style_controlled_standard_error": error(arena),
            "position_consistency": {"n": len(arena), "share": 82.5},
            "mean_characters": 3120.4,
        },
        "suspicious_answers": {"alpaca_eval": shares, "arena_hard": shares},
    }


def result(n: int, accuracy: float) -> dict[str, Any]:
    spread = 196 * np.sqrt(0.25 / n)
    return {
        "benchmark": "",
        "n": n,
        "accuracy": accuracy,
        "low": accuracy - spread,
        "high": accuracy + spread,
        "subsets": {"knowledge": accuracy, "reasoning": accuracy},
        "metrics": {},
        "invalid": 0,
        "notes": [],
    }


class Answers:
    """Answers and verdicts, a few sets of them, which runs share by hard links: only a few are read."""

    SETS = 5

    def __init__(self, folder: Path) -> None:
        ids = {"alpaca_eval": ALPACA_EVAL, "arena_hard": ARENA_HARD}
        self.ids = {
            name: [hashlib.sha256(f"{name} {i}".encode()).hexdigest()[:16] for i in range(count)]
            for name, count in ids.items()
        }
        self.folder = folder
        folder.mkdir(parents=True)
        chance = random.Random(0)
        words = [f"{chance.choice('bcdfgklmnprst')}{chance.choice('aeiou')}{i}" for i in range(3000)]
        for number in range(self.SETS):
            for name, prompt_ids in self.ids.items():
                texts = [" ".join(chance.choices(words, k=300)) for _ in prompt_ids]
                write_lines(
                    folder / f"generate-{name}-{number}.jsonl",
                    [
                        {"prompt_id": id, "instruction": f"Task {id}", "text": text}
                        | {"tokens": 300, "finish": "stop"}
                        for id, text in zip(prompt_ids, texts, strict=True)
                    ],
                )
                write_lines(
                    folder / f"judge-{name}-{number}.jsonl",
                    [
                        {"evaluation": name, "prompt_id": id, "game": 0, "policy_first": True}
                        | {"key": hashlib.sha256(text.encode()).hexdigest(), "preference": 0.5}
                        | {"label": "A>B", "error": None, "text": text[:200]}
                        for id, text in zip(prompt_ids, texts, strict=True)
                    ],
                )

    def link_into(self, path: Path, rng: np.random.Generator) -> None:
        number = rng.integers(self.SETS)
        for stage in ("generate", "judge"):
            for name in self.ids:
                os.link(
                    self.folder / f"{stage}-{name}-{number}.jsonl", path / "stages" / stage / f"{name}.jsonl"
                )


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
