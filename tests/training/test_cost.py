"""What a run asks of its reward model, as told beforehand and as counted."""

from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.compose import compose
from rlhf_eval.config.reward_schema import (
    EnsembleConfig,
    GroupConfig,
    MemberConfig,
    RewardModelConfig,
    VerdictConfig,
)
from rlhf_eval.progress import SilentProgress
from rlhf_eval.runs.stages import execute
from rlhf_eval.training.cost import group_calls, reward_calls

RULE = """
from pathlib import Path

def counted(prompt, completion):
    with open(Path(__file__).with_name("calls"), "a") as file:
        file.write(".")
    return len(completion)
"""


def test_a_run_asks_exactly_as_often_as_told(small_lab: list[str], tmp_path: Path) -> None:
    (tmp_path / "rule.py").write_text(RULE)
    words = [
        "reward_model=rule",
        f"reward_model.function={tmp_path}/rule.py:counted",
        "lab.benchmark_pairs=32",
    ]
    config = compose([*small_lab, *words])
    execute(config, tmp_path / "run", SilentProgress())
    told = reward_calls(config)
    benchmarks = 2 * 2 * 32  # the public and the private one, two answers a pair
    assert len((tmp_path / "calls").read_text()) == benchmarks + told["total"]
    assert told == {"standardising": 8 * 4, "training": 6 * 2 * 4, "checkpoints": 4 * 8, "total": 112}


def test_comparisons_cost_by_schedule_and_orders() -> None:
    asked = VerdictConfig("pairwise")
    judge = RewardModelConfig("judge", "judge", comparability="pair", verdict=asked)
    assert group_calls(judge, 8) == 2 * 28
    assert group_calls(replace(judge, verdict=replace(asked, both_orders=False)), 8) == 28
    assert group_calls(replace(judge, group=GroupConfig("knockout")), 8) == 2 * 7
    scorer = RewardModelConfig("scorer", "classifier")
    members = {name: MemberConfig(scorer) for name in ("a", "b", "c")}
    ensemble = RewardModelConfig("three", "ensemble", ensemble=EnsembleConfig("mean", members))
    assert group_calls(RewardModelConfig("flipped", "flipped", inner=ensemble), 4) == 12
