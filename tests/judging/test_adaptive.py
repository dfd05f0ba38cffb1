"""Adaptive judging of an experiment whose answers are there, by the lab's judge over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from rlhf_eval.cli import main
from rlhf_eval.commands.adaptive import in_words
from rlhf_eval.config.compose import run_path
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import AlpacaEvalConfig, ArenaHardConfig, JudgeConfig, PromptsConfig, RunConfig
from rlhf_eval.files import read_json, read_jsonl, write_json, write_jsonl
from rlhf_eval.judging import stage
from rlhf_eval.lab.judge_server import MODEL
from rlhf_eval.lab.world import all_tasks, demonstration
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.stage_inputs import files_of, input_hash

PROMPTS = 300
ERRORS = {"careful": 0.02, "usual": 0.18, "hasty": 0.25, "careless": 0.5}
"""How often the policies of each reward model slip."""


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def prompts_in(folder: Path) -> PromptsConfig:
    tasks = Random(0).sample(all_tasks(), PROMPTS)
    random = Random(1)
    alpaca = [
        {"instruction": t.instruction, "output": demonstration(t, random, 0.2), "generator": "base"}
        for t in tasks
    ]
    (folder / "alpaca.json").write_text(json.dumps(alpaca))
    write_jsonl(folder / "questions.jsonl", [{"uid": "q0", "category": "x", "prompt": tasks[0].instruction}])
    write_jsonl(folder / "answers.jsonl", [{"prompt_id": "q0", "text": "cat ."}])
    return PromptsConfig(
        name="small",
        train="-",
        held_out="-",
        alpaca_eval=AlpacaEvalConfig(str(folder / "alpaca.json")),
        arena_hard=ArenaHardConfig(str(folder / "questions.jsonl"), str(folder / "answers.jsonl")),
    )


def answered(config: RunConfig, error_rate: float) -> Path:
    """A run whose answers are there and whose judging is not begun."""
    path, random = run_path(config), Random(f"{config.reward_model.name} {config.seed}")
    directory = RunDirectory.open(path, config)
    outputs: dict[str, str] = {}
    files = files_of(config, path.parent / "shared", None)
    for name in ("train", "generate"):
        folder = directory.stage(name)
        folder.begin(input_hash(name, fingerprint(config), files, outputs))
        made = [folder.path / "weights.json"]
        write_json(made[0], [config.reward_model.name, config.seed])
        if name == "generate":
            by_instruction = {task.instruction: task for task in all_tasks()}
            for evaluation, prompts in stage.evaluation_prompts(config.prompts).items():
                made.append(folder.path / f"{evaluation}.jsonl")
                write_jsonl(
                    made[-1],
                    (
                        {
                            "prompt_id": p.id,
                            "text": demonstration(by_instruction[p.instruction], random, error_rate),
                            "tokens": 9,
                            "finish": "stop",
                        }
                        for p in prompts
                    ),
                )
        folder.finish(made)
        outputs[name] = folder.output_hash
    return path


@pytest.fixture
def experiment(
    tmp_path: Path, make_run_config: Callable[[PromptsConfig, JudgeConfig], RunConfig]
) -> Callable[..., Path]:
    """Makes an experiment's folder for a judge and the reward models named."""

    def make(judge: JudgeConfig, errors: dict[str, float] = ERRORS, seeds: int = 1) -> Path:
        prompts = prompts_in(tmp_path)
        config = make_run_config(prompts, judge)
        algorithm = replace(config.algorithm, completions_per_device_batch=2)
        config = replace(config, algorithm=algorithm, output=str(tmp_path), experiment="lab")
        for name, error in errors.items():
            kind = "untrained" if name == "untrained" else "random"
            for seed in range(seeds):
                model = replace(config.reward_model, name=name, kind=kind)
                answered(replace(config, reward_model=model, seed=seed), error)
        return tmp_path / "lab"

    return make


def judge_at(address: str, **fields: Any) -> JudgeConfig:
    return JudgeConfig("lab", MODEL, base_url=address, concurrency=8, max_retries=1, **fields)


def fully_judged(folder: Path) -> dict[str, float]:
    """Win rate by reward model after the runs' own judging."""
    from rlhf_eval.config.compose import load

    rates: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*/config.yaml")):
        config = load(path)
        answers = {
            e: {r["prompt_id"]: r["text"] for r in read_jsonl(path.parent / f"stages/generate/{e}.jsonl")}
            for e in ("alpaca_eval", "arena_hard")
        }
        out = path.parent / "judged"
        stage.judge(config, answers, out, folder / "shared" / "verdicts", lambda done, total: None)
        found = [row["preference"] for row in read_jsonl(out / "alpaca_eval.jsonl")]
        rates.setdefault(config.reward_model.name, []).append(float(np.mean(found)))
    return {name: float(np.mean(values)) for name, values in rates.items()}


def test_the_best_is_found_with_fewer_calls_and_none_is_paid_twice(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address), seeds=2)
    prices = ["judge.input_price=2", "judge.output_price=8"]
    assert main(["judge", str(folder), "--until", "best", "--batch", "25", *prices, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == read_json(folder / "adaptive.json")
    assert told["first"] == ["careful"]
    assert told["settled"]
    assert told["calls_now"] == told["calls"] == endpoint.good
    assert told["calls"] < 0.5 * PROMPTS * len(ERRORS) * 2
    assert told["calls_saved"] > 0
    assert told["money_saved"] > 0
    by_name = {row["reward_model"]: row for row in told["policies"]}
    assert by_name["careless"]["prompts"] <= by_name["careful"]["prompts"] < PROMPTS
    assert set(by_name["careful"]["better_than"]) <= ERRORS.keys()
    assert by_name["careful"]["n_seeds"] == 2

    rates = fully_judged(folder)
    assert max(rates, key=rates.__getitem__) == "careful"
    games = 2 * len(ERRORS) * 2  # the only Arena-Hard question of every run
    everything = told["calls"] + told["calls_saved"]
    assert everything <= endpoint.good <= everything + games


def test_the_order_of_all_agrees_with_the_whole_judging(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address))
    assert main(["judge", str(folder), "--until", "order"]) == 0
    text = capsys.readouterr().out
    assert "were saved" in text
    assert "probability of at most 0.05" in text
    told, rates = read_json(folder / "adaptive.json"), fully_judged(folder)
    assert [row["reward_model"] for row in told["policies"]] == sorted(
        rates, key=rates.__getitem__, reverse=True
    )


def test_against_the_untrained_policy_only_that_is_asked(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address), {"careful": 0.02, "careless": 0.5, "untrained": 0.2})
    assert main(["judge", str(folder), "--until", "untrained", "--json"]) == 0
    by_name = {row["reward_model"]: row for row in json.loads(capsys.readouterr().out)["policies"]}
    assert by_name["careful"]["better_than"] == ["untrained"]
    assert by_name["untrained"]["better_than"] == ["careless"]


def test_killed_and_given_again_it_says_the_same_and_asks_only_the_rest(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address))
    endpoint.fault = lambda times, number: time.sleep(0.02)
    words = ["judge", str(folder), "--until", "top:2", "--batch", "10", "--json"]
    program = [sys.executable, "-m", "rlhf_eval", *words]
    process = subprocess.Popen(program, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while endpoint.good < 60:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    time.sleep(0.3)  # what the server had begun to answer
    kept = {row["key"] for file in folder.glob("shared/verdicts/*") for row in read_jsonl(file)}
    assert kept
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["calls_now"] == told["calls"] - len(kept)
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == told | {"calls_now": 0}


def test_with_a_judge_that_the_command_serves_itself(experiment, capsys):
    judge = JudgeConfig("lab", MODEL, serve=("python", "-m", "rlhf_eval.lab.judge_server"), concurrency=8)
    folder = experiment(judge, {"careful": 0.02, "careless": 0.5})
    assert main(["judge", str(folder), "--until", "best", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first"] == ["careful"]


def test_failed_verdicts_count_as_ties_and_too_many_stop_it(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address, max_failed_share=0.3), {"careful": 0.02, "careless": 0.5})
    endpoint.fault = lambda times, number: "malformed" if number % 10 == 0 else None
    words = ["judge", str(folder), "--until", "best", "--json"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["first"] == ["careful"]
    assert all(row["failed"] > 0 for row in told["policies"])
    endpoint.fault = lambda times, number: "malformed"
    for file in folder.glob("shared/verdicts/*"):
        file.unlink()
    assert main(words) == 1
    assert "failed" in capsys.readouterr().err


def test_a_budget_stops_it_before_it_is_exceeded(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address))
    words = ["judge.input_price=1000", "judge.output_price=1000", "judge.budget=20"]
    assert main(["judge", str(folder), "--until", "order", "--batch", "5", *words]) == 1
    assert "judge.budget" in capsys.readouterr().err
    assert 0 < endpoint.good < PROMPTS


@pytest.mark.parametrize(
    ("words", "errors", "message"),
    [
        (["--until", "worst"], ERRORS, "no question"),
        (["--until", "top:4"], ERRORS, "no question"),
        (["--until", "best"], {"careful": 0.02}, "too few"),
        (["--until", "untrained"], {"careful": 0.02, "usual": 0.2}, "untrained policy"),
        (["--until", "best", "--level", "0"], {"careful": 0.02}, "--level"),
        (["--until", "best", "judge.model=other"], ERRORS, "would change"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_any_call(
    words, errors, message, experiment, endpoint, capsys
):
    folder = experiment(judge_at(endpoint.address), errors)
    assert main(["judge", str(folder), *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert endpoint.good == 0


def test_runs_without_answers_are_named_and_left_out(experiment, endpoint, capsys):
    folder = experiment(judge_at(endpoint.address))
    [spoilt] = folder.glob("hasty--*")
    (spoilt / "stages/generate/done.json").unlink()
    assert main(["judge", str(folder), "--until", "best", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["left_out"]) == [spoilt.name]
    assert "hasty" not in {row["reward_model"] for row in told["policies"]}


def test_an_absent_folder_is_refused(tmp_path, capsys):
    assert main(["judge", str(tmp_path / "nothing"), "--until", "best"]) == 1
    assert "no experiment folder" in capsys.readouterr().err


@pytest.mark.parametrize(("judged", "exhausted"), [(150, False), (300, True)])
def test_verdicts_that_were_there_are_no_sign_that_all_prompts_were_needed(
    judged: int, exhausted: bool
) -> None:
    report = {
        "question": "best",
        "level": 0.05,
        "first": ["a"],
        "policies": [{"prompts": judged, "failed": 0}, {"prompts": 50, "failed": 0}],
        "prompts": 300,
        "calls": 600,
        "calls_now": 0,
        "calls_saved": 0,
        "money_saved": None,
        "left_out": {},
    }
    assert ("equal scores" in " ".join(in_words(report))) == exhausted
