"""PPO trains on TRL's rollouts with a critic: what reaches its loss, and what it leaves on the disk.

Short trainings for real on the small lab; what passes through the trainer is recorded and computed again,
slowly, from the definitions.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlhf_eval.config.algorithm_schema import PPOConfig
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_jsonl
from rlhf_eval.training import ppo
from rlhf_eval.training.critic import FILE, attach_critic, hearing, load_critic, save_critic, split_off
from rlhf_eval.training.launch import launch
from rlhf_eval.training.reward_function import RewardFunction

ONE_UPDATE = ("algorithm.epochs=1", "algorithm.minibatches=1")
LORA = ("algorithm.lora={rank: 4}",)
CASES = {
    "head": ("algorithm.critic=value_head",),
    "trunk": ("algorithm.critic=policy",),
    "head and adapters": ("algorithm.critic=value_head", *LORA, *ONE_UPDATE),
    "trunk and adapters": ("algorithm.critic=policy", *LORA),
}
"""Both critics, full and with adapters; with one update, TRL does not compute the old log-probabilities."""
INVALID = 0
"""The completion of each batch that the reward model gives no score."""


@dataclass
class Trained:
    """A finished training, and what was seen in it.

    Attributes:
        rollouts: what each batch of rollouts handed to the loss, with the raw rewards of the completions.
        values: each batch's values of completion tokens, computed text by text before the first update on it.
        losses: loss of each micro-batch, and the same from loops.
    """

    config: RunConfig
    folder: Path
    rollouts: list[dict[str, Any]] = field(default_factory=list)
    values: list[list[list[float]]] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)

    @property
    def algorithm(self) -> PPOConfig:
        assert isinstance(self.config.algorithm, PPOConfig)
        return self.config.algorithm

    @property
    def checkpoint(self) -> Path:
        return max((self.folder / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))


@pytest.fixture(scope="module", params=CASES)
def trained(
    request: pytest.FixtureRequest,
    training: Callable[..., RunConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    words = ["algorithm=ppo_lab", "algorithm.steps=3", "algorithm.checkpoint_every=3"]
    config = training(*words, *CASES[request.param], "prompts.held_out_limit=2")
    folder = tmp_path_factory.mktemp("ppo") / "stages" / "train"
    folder.mkdir(parents=True)
    made = Trained(config, folder)
    kind = ppo._trainer_class()
    generate, compute = kind._generate_and_score_completions, kind._compute_loss
    score = RewardFunction.__call__

    def generating(trainer: Any, inputs: Any) -> dict[str, Any]:
        output = generate(trainer, inputs)
        seen = {name: value.clone() for name, value in output.items() if hasattr(value, "clone")}
        made.rollouts.append(seen | {"rewards": trainer.rewards_N.clone()})
        made.values.append(slow_values(trainer, output))
        return output

    def computing(trainer: Any, model: Any, inputs: dict[str, Any]) -> Any:
        loss = compute(trainer, model, inputs)
        made.losses.append((loss.item(), slow_loss(trainer, inputs)))
        return loss

    def rewarding(reward: RewardFunction, *words: Any, **named: Any) -> list[float | None]:
        rewards = score(reward, *words, **named)
        rewards[INVALID] = None
        return rewards

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardFunction, "__call__", rewarding)
        patch.setattr(kind, "_generate_and_score_completions", generating)
        patch.setattr(kind, "_compute_loss", computing)
        metrics = folder.parents[1] / "metrics.jsonl"
        launch(config, folder, metrics, folder / "log", lambda *_: None)
    return made


def texts_of(inputs: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Token ids of prompts and completions without padding."""
    found = []
    for row in range(len(inputs["prompt_ids"])):
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist()
        answer = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()].tolist()
        found.append((prompt, answer))
    return found


def slow_values(trainer: Any, inputs: dict[str, Any]) -> list[list[float]]:
    """V of the text before each completion token: the head on the last hidden state of just that text."""
    import torch

    policy, critic = trainer.accelerator.unwrap_model(trainer.model), trainer.critic
    trunk = policy.get_base_model().base_model if hasattr(policy, "peft_config") else policy.base_model
    trunk = critic.trunk or trunk
    values = []
    with torch.no_grad():
        for prompt, answer in texts_of(inputs):
            row = []
            for t in range(len(answer)):
                hidden = trunk(input_ids=torch.tensor([prompt + answer[:t]])).last_hidden_state[0, -1]
                row.append((critic.head.weight[0] @ hidden + critic.head.bias[0]).item())
            values.append(row)
    return values


def slow_loss(trainer: Any, inputs: dict[str, Any]) -> float:
    """Schulman et al. 2017, equations 7 and 9 without the entropy, token by token; the mean over the update's
    tokens, of which this micro-batch has a part."""
    import torch

    options: PPOConfig = trainer.algorithm
    policy = trainer.accelerator.unwrap_model(trainer.model)
    values, total = slow_values(trainer, inputs), 0.0
    for row, (prompt, answer) in enumerate(texts_of(inputs)):
        with torch.no_grad():
            logits = policy(input_ids=torch.tensor([prompt + answer])).logits[0]
        for t, token in enumerate(answer):
            if not inputs["loss_mask"][row, t]:
                continue
            log_probability = logits[len(prompt) + t - 1].log_softmax(-1)[token]
            ratio = (log_probability - inputs["old_per_token_logps"][row, t]).exp().item()
            advantage = inputs["advantages"][row, t].item()
            low, high = 1 - options.clip_range, 1 + options.clip_range
            surrogate = min(ratio * advantage, max(low, min(high, ratio)) * advantage)
            old, target = inputs["values"][row, t].item(), inputs["returns"][row, t].item()
            step = max(-options.value_clip_range, min(options.value_clip_range, values[row][t] - old))
            error = max((values[row][t] - target) ** 2, (old + step - target) ** 2) / 2
            total += -surrogate + options.value_coefficient * error
    return total / (inputs["num_items_in_batch"].item() / options.minibatches)


def test_values_are_those_of_the_text_before_each_token(trained: Trained) -> None:
    for rollout, expected in zip(trained.rollouts, trained.values, strict=True):
        for row, values in enumerate(expected):
            assert rollout["values"][row, : len(values)].tolist() == pytest.approx(values, abs=1e-4)
    assert trained.rollouts[0]["values"].abs().max() == 0  # a critic begins knowing nothing
    assert trained.rollouts[-1]["values"].abs().max() > 1e-3


def test_advantages_come_from_rewards_kl_and_values(trained: Trained) -> None:
    """From the recorded log-probabilities and rewards in loops; whitened over the batch's tokens."""
    options = trained.algorithm
    for rollout in trained.rollouts:
        expected: list[float] = []
        found: list[float] = []
        for row, length in enumerate(rollout["loss_mask"].sum(1).tolist()):
            if row == INVALID:
                continue
            now, then, values, returns, whitened = (
                rollout[name][row, :length].tolist()
                for name in ("old_per_token_logps", "ref_per_token_logps", "values", "returns", "advantages")
            )
            rewards = [-options.kl_coefficient * (p - q) for p, q in zip(now, then, strict=True)]
            rewards[-1] += rollout["rewards"][row].item()
            after = [*values[1:], 0.0]
            deltas = [r + options.gamma * w - v for r, v, w in zip(rewards, values, after, strict=True)]
            decay = options.gamma * options.gae_lambda
            advantages = [
                sum(decay ** (later - t) * deltas[later] for later in range(t, length)) for t in range(length)
            ]
            targets = [a + v for a, v in zip(advantages, values, strict=True)]
            assert returns == pytest.approx(targets, abs=1e-4)
            expected += advantages
            found += whitened
        mean = sum(expected) / len(expected)
        deviation = (sum((a - mean) ** 2 for a in expected) / len(expected)) ** 0.5
        assert found == pytest.approx([(a - mean) / deviation for a in expected], abs=1e-3)


def test_a_completion_without_a_reward_teaches_nothing(trained: Trained) -> None:
    for rollout in trained.rollouts:
        others = rollout["completion_mask"].clone()
        others[INVALID] = 0
        assert rollout["rewards"][INVALID].isnan()
        assert rollout["loss_mask"].equal(others)
        assert rollout["advantages"][INVALID].eq(0).all()
        assert rollout["num_items_in_batch"] == others.sum()


def test_the_loss_is_the_papers(trained: Trained) -> None:
    options = trained.algorithm
    # Two completions at a time, of eight.
    assert len(trained.losses) == options.steps * options.epochs * 4
    for loss, expected in trained.losses:
        assert loss == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_policy_is_published_without_its_critic(trained: Trained) -> None:
    """And loads with plain transformers, or PEFT, in whole."""
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    adapters = trained.algorithm.lora is not None
    name = "adapter_model.safetensors" if adapters else "model.safetensors"
    for folder in (trained.checkpoint, trained.folder / "policy"):
        with safe_open(folder / name, "pt") as file:
            assert file.keys()
            assert not [key for key in file.keys() if "critic" in key]  # noqa: SIM118
        if not adapters:
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
            assert not any(loaded[1].values()), loaded[1]
    if adapters:
        from peft import PeftModel

        base = AutoModelForCausalLM.from_pretrained(trained.config.policy.model)
        model = PeftModel.from_pretrained(base, str(trained.folder / "policy"))
        assert any(value.abs().max() > 0 for name, value in model.named_parameters() if "lora_B" in name)


def test_the_checkpoint_holds_all_of_the_critic_that_trains(trained: Trained) -> None:
    from safetensors.torch import load_file

    held = load_file(trained.checkpoint / FILE)
    assert held["head.weight"].abs().max() > 0
    trunk = {name for name in held if name.startswith("trunk.")}
    assert bool(trunk) == (trained.algorithm.critic == "policy")
    if trained.algorithm.lora is not None:
        assert all("lora" in name for name in trunk)


def test_the_curves_tell_of_the_critic(trained: Trained) -> None:
    rows = [row for row in read_jsonl(trained.folder.parents[1] / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["value_loss"] >= 0
        assert row["explained_variance"] <= 1
        assert 0 <= row["clipped_share"] <= 1
        assert row["entropy"] > 0


def options(**changes: Any) -> PPOConfig:
    needed: dict[str, Any] = dict.fromkeys(("steps", "prompts_per_step", "max_completion_tokens"), 1)
    return PPOConfig(
        kind="ppo", name="p", group_size=2, learning_rate=1e-3, kl_coefficient=0.1, **needed, **changes
    )


@pytest.fixture
def policy_folder(tmp_path: Path, tiny_llama: Callable[..., Any]) -> Path:
    from transformers import LlamaForCausalLM

    LlamaForCausalLM(tiny_llama(tmp_path / "policy")).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def with_critic(folder: Path, kind: str, adapters: bool) -> tuple[Any, Any]:
    """A policy and its critic, every weight that trains moved at random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from rlhf_eval.config.algorithm_schema import LoraConfig as Lora

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if adapters:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    chosen = options(critic=kind, lora=Lora(rank=2) if adapters else None)
    policy: Any = SimpleNamespace(model=str(folder), revision=None, train_dtype="float32")
    critic = attach_critic(model, chosen, policy, checkpointing=False)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value) * 0.1)
    return model, critic


def values_of(model: Any, critic: Any) -> Any:
    import torch

    ids = torch.tensor([[0, 2, 7, 9, 3, 11], [2, 8, 9, 10, 3, 12]])
    with torch.no_grad(), hearing(critic) as heard:
        model(input_ids=ids, attention_mask=(ids != 0).long())
    [values] = heard
    return values


@pytest.mark.parametrize("adapters", [False, True])
@pytest.mark.parametrize("kind", ["value_head", "policy"])
def test_a_critic_comes_back_from_the_disk_as_it_was(
    policy_folder: Path, tmp_path: Path, kind: str, adapters: bool
) -> None:
    model, critic = with_critic(policy_folder, kind, adapters)
    policy_weights, critic_weights = split_off(model.state_dict())
    assert critic_weights.keys() == critic.state_dict().keys()
    assert not any("critic" in name for name in policy_weights)
    assert len(policy_weights) + len(critic_weights) == len(model.state_dict())
    trained = {name for name, value in critic.named_parameters() if value.requires_grad}
    save_critic(tmp_path, {name: value for name, value in critic_weights.items() if name in trained})

    fresh, other = with_critic(policy_folder, kind, adapters)
    fresh.load_state_dict(policy_weights, strict=False)
    assert not values_of(fresh, other).allclose(values_of(model, critic), atol=1e-3)
    load_critic(other, tmp_path)
    assert values_of(fresh, other).equal(values_of(model, critic))


def test_nobody_listening_keeps_no_values(policy_folder: Path) -> None:
    import torch

    model, critic = with_critic(policy_folder, "value_head", False)
    with hearing(critic) as heard:
        pass
    with torch.no_grad():
        model(input_ids=torch.tensor([[2, 3]]))
    assert heard == []
    assert critic.heard is None
