"""The shipped experiments compose, and the slides' question is planned and priced without a GPU."""

import json
from pathlib import Path

import pytest

from rlhf_eval.cli import main
from rlhf_eval.config.compose import compose
from rlhf_eval.config.folders import groups

CANDIDATES = (
    "skywork_v01_llama_8b,skywork_v02_llama_8b,skywork_v2_llama_8b,skywork_v2_llama_8b_40m,nemotron_70b_served,"
    "armorm_llama3_8b,urm_llama_8b,grm_llama3_8b"
)
CONTROLS = "untrained,random,length_only,flipped_skywork_v2_llama_8b"


@pytest.mark.parametrize("experiment", groups()["experiment"])
@pytest.mark.parametrize("reward_model", ["random", "untrained"])
def test_every_shipped_experiment_composes(experiment: str, reward_model: str) -> None:
    config = compose([f"experiment={experiment}", f"reward_model={reward_model}"])
    assert config.experiment == experiment


@pytest.mark.golden
def test_the_slides_question_is_planned_and_priced(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two policy bases, two algorithms, eight candidates and four controls, three seeds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLHF_EVAL_NEMOTRON", "http://gpu-7:8700")
    monkeypatch.setenv("PATH", "/usr/bin/none")
    data = {
        "prompts.alpaca_eval.reference_outputs": "alpaca_eval/alpaca_eval_gpt4_baseline.json.gz",
        "prompts.alpaca_eval.difficulty": "alpaca_eval/instruction_difficulty.csv",
        "prompts.arena_hard.questions": "arena_hard/question-v0.1.jsonl.gz",
        "prompts.arena_hard.baseline_answers": "arena_hard/answers-v0.1-gpt-4-0314.jsonl.gz",
    }
    words = ["sweep", "experiment=skywork_question", "policy=tulu3_8b_sft,llama31_8b", "algorithm=grpo,ppo"]
    words += [f"reward_model={CANDIDATES},{CONTROLS}", "seed=0,1,2", "cluster=slurm", "--dry-run", "--json"]
    assert main([*words, *(f"{field}={golden / file}" for field, file in data.items())]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["runs"]) == 2 * 2 * (8 + 4) * 3
    assert {(run["policy"], run["algorithm"]) for run in plan["runs"]} == {
        (policy, algorithm) for policy in ("tulu3_8b_sft", "llama31_8b") for algorithm in ("grpo", "ppo")
    }
    train = next(job for job in plan["jobs"] if "train" in job["stages"] and job["gpus"] > 1)
    assert (train["tasks"], train["gpus"], train["gpu_hours"]) == (132, 8, 132 * 8 * 24)
    assert plan["judge_calls"] == len(plan["runs"]) * (805 + 2 * 500)
    assert 1000 < plan["money"] < 1600
    assert plan["judge_calls_unknown"] == {}


def test_the_server_of_the_large_reward_model_is_frozen_as_it_is_at_submission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RLHF_EVAL_NEMOTRON", "http://gpu-7:8700")
    config = compose(["experiment=skywork_question", "reward_model=nemotron_70b_served"])
    assert config.reward_model.endpoint is not None
    assert config.reward_model.endpoint.base_url == "http://gpu-7:8700"
