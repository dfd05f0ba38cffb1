"""What GRPO, RLOO and PPO treat alike, seen in short trainings on the small lab and computed by hand."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_jsonl
from rlhf_eval.training import trainers
from rlhf_eval.training.arguments import common_arguments
from rlhf_eval.training.gradients import clip_apart
from rlhf_eval.training.launch import launch

ALGORITHMS = ("grpo", "rloo", "ppo")
SHORT = ("algorithm.steps=2", "algorithm.checkpoint_every=2", "prompts.held_out_limit=2")
CUT = "algorithm.max_completion_tokens=2"
"""No answer of the lab's policy ends as early."""
NAN = float("nan")


def rows(config: RunConfig, run: Path) -> list[dict[str, Any]]:
    (run / "stages" / "train").mkdir(parents=True)
    launch(config, run / "stages" / "train", run / "metrics.jsonl", run / "log", lambda *_: None)
    return [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"]


@pytest.mark.parametrize(
    ("rewards", "counted", "group", "taught"),
    [
        ([1.0, 1.0, 2.0, 2.0], [1, 1, 1, 1], 2, False),  # each group is constant
        ([1.0, 1.0, 2.0, 2.0], [1, 1, 1, 1], 4, True),
        ([1.0, 2.0, 5.0, 5.0], [1, 1, 1, 1], 2, True),
        ([1.0, 2.0, 5.0, 5.0], [0, 0, 1, 1], 2, False),  # what differs was left out of the loss
        ([1.0, 2.0, 5.0, 5.0], [0, 1, 0, 0], 2, True),
        ([NAN, 2.0, 5.0, 5.0], [1, 1, 1, 1], 2, False),  # one valid reward has nothing to differ from
        ([NAN, NAN, NAN, NAN], [1, 1, 1, 1], 2, False),
        ([0.1 + 0.2, 0.3, 7.0, 7.0], [1, 1, 1, 1], 2, False),  # rounding
    ],
)
def test_rewards_teach_where_one_that_counts_differs_from_its_groups_mean(
    rewards: list[float], counted: list[int], group: int, taught: bool
) -> None:
    import torch

    found = trainers.teaches(torch.tensor(rewards), torch.tensor(counted).bool(), group)
    assert found == taught


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_completion_that_was_cut_has_at_most_the_penalty(
    training: Callable[..., RunConfig], algorithm: str, tmp_path: Path
) -> None:
    words = (f"algorithm={algorithm}_lab", *SHORT, CUT)
    free = rows(training(*words), tmp_path / "free")
    punished = rows(training(*words, "algorithm.missing_eos_penalty=3"), tmp_path / "punished")
    assert all(row["truncated_share"] == 1 for row in [*free, *punished])
    assert all(row["reward"] > -2.9 for row in free)
    assert all(row["reward"] <= -3 for row in punished)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_training_of_completions_that_are_all_left_out_says_that_it_teaches_nothing(
    training: Callable[..., RunConfig], algorithm: str, tmp_path: Path
) -> None:
    words = (f"algorithm={algorithm}_lab", *SHORT, CUT)
    assert not any(row["no_gradient"] for row in rows(training(*words), tmp_path / "counted"))
    masked = rows(training(*words, "algorithm.mask_truncated=true"), tmp_path / "masked")
    assert [row["no_gradient"] for row in masked] == [True, True]
    assert all(row["grad_norm"] == 0 for row in masked)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_constant_reward_teaches_nothing(
    training: Callable[..., RunConfig], algorithm: str, tmp_path: Path
) -> None:
    found = rows(training(f"algorithm={algorithm}_lab", *SHORT, "reward_model=constant"), tmp_path / "run")
    assert [row["no_gradient"] for row in found] == [True, True]


def test_a_process_that_sees_several_gpus_and_is_alone_trains_on_one(
    training: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node with two GPUs, `accelerate=single`: what transformers counts is stood in for."""
    from transformers import TrainingArguments

    counted = TrainingArguments._setup_devices

    def two_seen(self: Any) -> Any:
        device = counted.__get__(self)
        if "_counted" not in self.__dict__:
            self.__dict__["_counted"] = True
            self._n_gpu = 2
        return device

    monkeypatch.setattr(TrainingArguments, "_setup_devices", property(two_seen))
    config = training("algorithm=grpo_lab", *SHORT)
    assert len(rows(config, tmp_path / "run")) == 2


def corrected(monkeypatch: pytest.MonkeyPatch, correction: str) -> dict[str, Any]:
    """What RLOO's trainer makes of four completions of which vLLM gave other probabilities than the trainer:
    ratios of 1, 2, 4 and one that is unknown."""
    import torch
    from trl.trainer.rloo_trainer import RLOOTrainer

    made = {
        "old_logps": torch.tensor([-2.0, -2.0, -2.0, -2.0]),
        "advantages": torch.tensor([1.0, -1.0, 1.0, 1.0]),
        "completion_mask": torch.ones(4, 2),
    }
    monkeypatch.setattr(RLOOTrainer, "_generate_and_score_completions", lambda self, inputs: made)
    kind = trainers._rloo_class()
    trainer = object.__new__(kind)
    trainer.use_vllm = True
    rollout = SimpleNamespace(importance_correction=correction, importance_cap=3.0)
    trainer.algorithm = SimpleNamespace(rollout=rollout)
    sums = [-2.0, -2.0 - torch.tensor(2.0).log().item(), -2.0 - torch.tensor(4.0).log().item()]
    trainer._sampled = [[[total / 2], [total / 2]] for total in sums] + [[[None], [-1.0]]]
    trainer.accelerator = SimpleNamespace(reduce=lambda value, _: value)
    trainer._metrics = {"train": {"importance_ratio": [], "importance_masked_share": []}}
    return trainer._generate_and_score_completions(None) | {"metrics": trainer._metrics["train"]}


@pytest.mark.parametrize(
    ("correction", "advantages", "masked"),
    [
        ("sequence_mask", [1, -2, 0, 1], 0.25),
        ("sequence_truncate", [1, -2, 3, 1], 0),
        ("none", [1, -1, 1, 1], None),
    ],
)
def test_rloo_corrects_for_vllms_probabilities_as_the_others_do(
    monkeypatch: pytest.MonkeyPatch, correction: str, advantages: list[float], masked: float | None
) -> None:
    output = corrected(monkeypatch, correction)
    assert output["advantages"].tolist() == pytest.approx(advantages, abs=1e-5)
    assert output["metrics"]["importance_masked_share"] == ([] if masked is None else [masked])


def test_gradients_of_each_owner_are_clipped_by_their_own_norm() -> None:
    import torch

    policy, critic = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    groups = [{"params": [policy]}, {"params": [critic]}]
    optimizer = SimpleNamespace(optimizer=torch.optim.AdamW(groups))
    policy.grad, critic.grad = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0])
    assert clip_apart(optimizer, ["policy", "critic"], 1.0) == pytest.approx({"policy": 0.5, "critic": 50})
    assert policy.grad.tolist() == pytest.approx([0.3, 0.4])
    assert critic.grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-4)


def test_decay_schedule_and_nucleus_reach_the_trainer(
    training: Callable[..., RunConfig], tmp_path: Path
) -> None:
    words = ("algorithm.learning_rate_schedule=linear", "algorithm.weight_decay=0.1", "algorithm.top_p=0.9")
    arguments = common_arguments(training("algorithm=grpo_lab", *words), tmp_path / "a" / "b" / "c" / "d")
    assert (arguments["lr_scheduler_type"], arguments["weight_decay"], arguments["top_p"]) == (
        "linear",
        0.1,
        0.9,
    )
    plain = common_arguments(training("algorithm=grpo_lab"), tmp_path / "a" / "b" / "c" / "d")
    assert (plain["lr_scheduler_type"], plain["weight_decay"]) == ("constant_with_warmup", 0)


def test_ppo_decays_weights_but_neither_biases_nor_norms(
    training: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhf_eval.training import ppo

    seen: list[tuple[list[str], list[dict[str, Any]]]] = []
    kind = ppo._trainer_class()
    create = kind.create_optimizer

    def creating(self: Any, model: Any = None) -> Any:
        optimizer = create(self, model)
        seen.append((self.owners, optimizer.param_groups))
        return optimizer

    monkeypatch.setattr(kind, "create_optimizer", creating)
    words = ("algorithm=ppo_lab", "algorithm.weight_decay=0.1", "algorithm.critic_learning_rate=0.002")
    rows(training(*words, *SHORT), tmp_path / "run")
    [(owners, groups)] = seen
    found = {
        (owner, group["weight_decay"], all(value.dim() == 2 for value in group["params"]))
        for owner, group in zip(owners, groups, strict=True)
    }
    assert ("policy", 0.1, True) in found
    assert ("policy", 0.0, False) in found
    assert ("critic", 0.1, True) in found
    rates = {(owner, group["lr"]) for owner, group in zip(owners, groups, strict=True)}
    assert rates == {("policy", 5e-4), ("critic", 0.002)}
