"""TRL's trainers; completions that do not end and vLLM's rollouts are treated alike by GRPO, RLOO and PPO."""

from functools import cache
from math import nan
from typing import Any

from rlhf_eval.config.algorithm_schema import GRPOConfig, RLOOConfig, TrainedConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.generation.policy import SAFELY, loading
from rlhf_eval.training.rollouts import prepare

ALIKE = 1e-6
"""Standardised rewards that differ by less teach nothing."""


def load_trainable(policy: PolicyConfig) -> Any:
    """The policy's whole weights in `policy.train_dtype`; the trainer puts them where they belong.

    Raises:
        DataError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with loading(policy):
        return AutoModelForCausalLM.from_pretrained(
            policy.model,
            revision=policy.revision,
            dtype=getattr(torch, policy.train_dtype),
            **SAFELY,
        )


def grpo_trainer(algorithm: GRPOConfig, arguments: dict[str, Any], policy: PolicyConfig, **parts: Any) -> Any:
    """The trainer of a configuration.

    Args:
        arguments: `common_arguments`.
        parts: what TRL's trainers are given besides: reward_funcs, train_dataset, peft_config, seed of the
            run, …
    """
    from trl.trainer.grpo_config import GRPOConfig as Arguments
    from trl.trainer.grpo_trainer import GRPOTrainer

    own: dict[str, Any] = {
        "scale_rewards": algorithm.scale_rewards,
        "loss_type": algorithm.loss_type,
        "epsilon_high": algorithm.clip_range_high,
        "importance_sampling_level": algorithm.importance_sampling,
        "mask_truncated_completions": algorithm.mask_truncated,
        **corrected(algorithm),
    }
    # A model that is loaded after them is split at once under ZeRO-3.
    made = one_gpu(Arguments(**arguments, **own))
    return sharing(GRPOTrainer)(algorithm, args=made, model=load_trainable(policy), **parts)


def rloo_trainer(algorithm: RLOOConfig, arguments: dict[str, Any], policy: PolicyConfig, **parts: Any) -> Any:
    """The trainer of a configuration; see `grpo_trainer`."""
    from trl.trainer.rloo_config import RLOOConfig as Arguments

    own: dict[str, Any] = {
        "normalize_advantages": algorithm.normalize_advantages,
        "mask_truncated_completions": algorithm.mask_truncated,
    }
    made = one_gpu(Arguments(**arguments, **own))
    return _rloo_class()(algorithm, args=made, model=load_trainable(policy), **parts)


def corrected(algorithm: TrainedConfig) -> dict[str, Any]:
    """The correction for vLLM's probabilities as arguments of TRL's GRPOTrainer."""
    rollout = algorithm.rollout
    if rollout.importance_correction == "none":
        return {"vllm_importance_sampling_correction": False}
    return {
        "vllm_importance_sampling_mode": rollout.importance_correction,
        "vllm_importance_sampling_clip_max": rollout.importance_cap,
    }


def one_gpu(arguments: Any) -> Any:
    """TRL's arguments for one GPU a process. A process that sees several and was not started by a launcher
    would train on all of them with `nn.DataParallel`, which TRL refuses."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


@cache
def sharing(kind: Any) -> Any:
    """A subclass of one of TRL's trainers with what all of ours treat alike."""
    import torch

    class SharingTrainer(kind):
        """See the module.

        Attributes:
            rewards_N: rewards of the completions of all processes, shape (completions,), NaN where invalid.
        """

        algorithm: TrainedConfig
        rewards_N: Any  # noqa: N815

        def __init__(self, algorithm: TrainedConfig, seed: int, **parts: Any) -> None:
            super().__init__(**parts)
            self.algorithm = algorithm
            if self.use_vllm:
                prepare(self, seed)

        def _calculate_rewards(
            self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
        ) -> Any:
            rewards_N1 = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
            cut = [ids[-1] not in ends for ids in completion_ids_list]
            cut_N = self.accelerator.gather(torch.tensor(cut, device=rewards_N1.device))
            if self.algorithm.missing_eos_penalty is not None:
                most = -self.algorithm.missing_eos_penalty
                # `minimum` keeps NaN: an invalid score stays invalid.
                rewards_N1[cut_N] = torch.minimum(rewards_N1[cut_N], torch.full_like(rewards_N1[cut_N], most))
            self.rewards_N = rewards_N1[:, 0]
            masked = getattr(self.algorithm, "mask_truncated", False)
            counted_N = ~cut_N if masked else torch.ones_like(cut_N)
            taught = teaches(self.rewards_N, counted_N, self.completions_compared())
            self._metrics["train"]["no_gradient"].append(float(not taught))
            return rewards_N1

        def completions_compared(self) -> int:
            """Completions that share a baseline: among them rewards must differ to teach."""
            return self.num_generations

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            output = super()._generate_and_score_completions(inputs)
            if (ratio_B1 := output.get("importance_sampling_ratio")) is not None:
                stats = torch.stack([ratio_B1.mean(), (ratio_B1 == 0).float().mean()])
                ratio, masked = self.accelerator.reduce(stats, "mean").tolist()
                self._metrics["train"]["importance_ratio"].append(ratio)
                self._metrics["train"]["importance_masked_share"].append(masked)
            return output

    return SharingTrainer


def teaches(rewards_N: Any, counted_N: Any, group: int) -> bool:
    """Whether rewards give a policy anything to learn: a completion that counts in the loss differs in reward
    from its group's mean.

    Args:
        rewards_N: shape (completions,), those of a group side by side, NaN where invalid.
        counted_N: which completions enter the loss.
        group: completions of a group.
    """
    rewards_PG = rewards_N.view(-1, group)
    away_PG = (rewards_PG - rewards_PG.nanmean(dim=1, keepdim=True)).abs() > ALIKE  # False where NaN
    return bool((away_PG & counted_N.view(-1, group)).any())


@cache
def _rloo_class() -> Any:
    import torch
    from trl.trainer.rloo_trainer import RLOOTrainer

    class CorrectedRLOOTrainer(RLOOTrainer):
        """TRL's RLOOTrainer with the correction for vLLM's probabilities that its GRPOTrainer has."""

        algorithm: RLOOConfig
        _sampled: list[Any]

        def __init__(self, **parts: Any) -> None:
            super().__init__(**parts)
            if not self.use_vllm:
                return
            self.vllm_generation.logprobs = 0
            generate = self.vllm_generation.generate

            def generating(*words: Any, **named: Any) -> Any:
                result = generate(*words, **named)
                self._sampled = result[2]
                return result

            self.vllm_generation.generate = generating

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            rollout = self.algorithm.rollout
            if self.use_vllm and rollout.importance_correction != "none":
                sums = [sum(nan if t[0] is None else t[0] for t in sampled) for sampled in self._sampled]
                sampled_B = torch.tensor(sums, device=output["old_logps"].device)
                # RLOO's loss has one probability ratio a completion: so has the correction.
                ratio_B = torch.exp(output["old_logps"] - sampled_B).nan_to_num(1.0)
                if rollout.importance_correction == "sequence_mask":
                    ratio_B = ratio_B.masked_fill(ratio_B > rollout.importance_cap, 0.0)
                ratio_B = ratio_B.clamp(max=rollout.importance_cap)
                # A completion that was left out for being cut has no probability to correct.
                ratio_B = torch.where(output["completion_mask"].any(1), ratio_B, 1.0)
                output["advantages"] = output["advantages"] * ratio_B
                output["importance_sampling_ratio"] = ratio_B[:, None]
            return output

    return sharing(CorrectedRLOOTrainer)
