"""PPO with a critic, as a subclass of TRL's GRPOTrainer: its rollouts, reward functions and checkpoints, with
advantages of each token from a critic (generalised advantage estimation) and a clipped value loss.

TRL's own PPOTrainer was removed after 1.12; it could not resume, had no vLLM, and took only reward models
with the policy's tokenizer.
"""

from functools import cache
from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import PPOConfig
from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.training.advantages import generalised_advantages, token_rewards, whitened
from rlhf_eval.training.critic import attach_critic, hearing, load_critic, save_critic, split_off
from rlhf_eval.training.gradients import clip_apart, clip_apart_in_deepspeed
from rlhf_eval.training.trainers import corrected, load_trainable, one_gpu, sharing


def ppo_trainer(algorithm: PPOConfig, arguments: dict[str, Any], policy: PolicyConfig, **parts: Any) -> Any:
    """The trainer of a configuration; see `grpo_trainer`."""
    from trl.trainer.grpo_config import GRPOConfig as Arguments

    own: dict[str, Any] = {
        "loss_type": "dapo",
        "scale_rewards": "none",
        "mask_truncated_completions": algorithm.mask_truncated,
        **corrected(algorithm),
    }
    # A model that is loaded after them is split at once under ZeRO-3.
    made = one_gpu(Arguments(**arguments, **own))
    return _trainer_class()(algorithm, policy, args=made, model=load_trainable(policy), **parts)


@cache
def _trainer_class() -> Any:
    import torch
    from accelerate.utils import reduce
    from transformers import TrainerCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    class ClippingApart(TrainerCallback):
        """Changes DeepSpeed's optimiser as soon as there is one."""

        def __init__(self, trainer: Any) -> None:
            self.trainer = trainer

        def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
            if optimizer is not None and hasattr(optimizer.optimizer, "unscale_and_clip_grads"):
                clip_apart_in_deepspeed(optimizer.optimizer, self.trainer.owners)

    class PPOTrainer(sharing(GRPOTrainer)):
        """See the module. `beta`, TRL's name of the KL coefficient, weighs KL in the reward here, not in the
        loss."""

        algorithm: PPOConfig
        model: Any
        args: Any
        owners: list[str]

        def __init__(self, algorithm: PPOConfig, policy: PolicyConfig, **parts: Any) -> None:
            super().__init__(algorithm, **parts)
            self._values: list[Any] = []
            self.critic = attach_critic(self.model, algorithm, policy, self.args.gradient_checkpointing)
            self.add_callback(ClippingApart(self))

        def completions_compared(self) -> int:
            """All: the critic's values are not of a prompt's group."""
            return len(self.rewards_N)

        def create_optimizer(self, model: Any = None) -> Any:
            """AdamW with groups of the critic's own, which have a learning rate of their own."""
            if self.optimizer is None:
                kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
                rate = self.algorithm.critic_learning_rate or self.args.learning_rate
                critic = {id(value) for value in self.critic.parameters()}
                decaying = self.get_decay_parameter_names(self.model) if self.args.weight_decay else []
                groups: dict[tuple[bool, bool], list[Any]] = {}
                for name, value in self.model.named_parameters():
                    if value.requires_grad:
                        groups.setdefault((id(value) in critic, name in decaying), []).append(value)
                ordered = sorted(groups.items(), key=lambda group: group[0])
                self.owners = ["critic" if of_critic else "policy" for (of_critic, _), _ in ordered]
                self.optimizer = kind(
                    [
                        {
                            "params": values,
                            "lr": rate if of_critic else self.args.learning_rate,
                            "weight_decay": self.args.weight_decay if decays else 0.0,
                        }
                        for (of_critic, decays), values in ordered
                    ],
                    **options,
                )
            return self.optimizer

        def _clip_grad_norm(self, model: Any) -> Any:
            """Clip the gradients of policy and critic, each by its own norm; the policy's norm is reported.

            A loud value loss would otherwise shrink the policy's step, and how loud it is depends on the
            reward model.
            """
            norms = clip_apart(self.optimizer, self.owners, self.args.max_grad_norm)
            self._metrics["train"]["critic_grad_norm"].append(norms["critic"])
            return norms["policy"]

        def _get_per_token_logps_and_entropies(self, *words: Any, **named: Any) -> Any:
            """TRL's; the values of the same forward passes are kept."""
            with hearing(self.critic) as heard:
                result = super()._get_per_token_logps_and_entropies(*words, **named)
            if heard:
                self._values.append(torch.cat(heard))
            return result

        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
            """TRL's rollouts, with advantages, returns and values of shape (batch, tokens) of this
            process."""
            self._values.clear()
            output = super()._generate_and_score_completions(inputs)
            mask_BT = output["completion_mask"]
            if "old_per_token_logps" not in output:
                self._values.clear()
                with torch.no_grad():
                    output["old_per_token_logps"], _, _ = self._log_probabilities(self.model, output)
            # The policy's pass comes first; with adapters the reference's follows.
            values_BT = _of_tokens(self._values[0], mask_BT)
            first = self.accelerator.process_index * len(mask_BT)
            rewards_B = self.rewards_N[first : first + len(mask_BT)]
            reference_BT = output.get("ref_per_token_logps", output["old_per_token_logps"])
            kl_BT = (output["old_per_token_logps"] - reference_BT) * mask_BT
            # A completion without a valid reward teaches nothing, neither policy nor critic.
            loss_mask_BT = mask_BT * torch.isfinite(rewards_B)[:, None]
            rewards_BT = token_rewards(rewards_B, kl_BT, mask_BT, self.beta)
            advantages_BT = generalised_advantages(
                rewards_BT, values_BT, mask_BT, self.algorithm.gamma, self.algorithm.gae_lambda
            )
            output["returns"] = advantages_BT + values_BT * mask_BT
            output["values"] = values_BT
            output["loss_mask"] = loss_mask_BT
            output["advantages"] = (
                whitened(advantages_BT, loss_mask_BT) if self.algorithm.whiten_advantages else advantages_BT
            )
            output["num_items_in_batch"] = reduce(loss_mask_BT.sum().float(), "sum")
            if self.beta:
                self._note("kl", kl_BT, loss_mask_BT)
            self._note_explained_variance(output)
            return output

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            """Clipped surrogate and clipped value loss, each a mean over the tokens of the update in all
            processes (Schulman et al. 2017, eq. 7 and 9)."""
            options, mask_BT = self.algorithm, inputs["loss_mask"]
            self._values.clear()
            logps_BT, entropies_BT, _ = self._log_probabilities(model, inputs, compute_entropy=True)
            values_BT = _of_tokens(self._values[0], inputs["completion_mask"])
            ratio_BT = torch.exp(logps_BT - inputs["old_per_token_logps"])
            clipped_BT = ratio_BT.clamp(1 - options.clip_range, 1 + options.clip_range)
            policy_BT = -torch.min(ratio_BT * inputs["advantages"], clipped_BT * inputs["advantages"])
            policy_BT = policy_BT * inputs.get("importance_sampling_ratio", 1.0)
            near_BT = inputs["values"] + (values_BT - inputs["values"]).clamp(
                -options.value_clip_range, options.value_clip_range
            )
            value_BT = 0.5 * torch.max(
                (values_BT - inputs["returns"]) ** 2, (near_BT - inputs["returns"]) ** 2
            )
            # `num_items_in_batch` counts a whole batch of rollouts; an update is a share of it.
            share = self.current_gradient_accumulation_steps / self.args.steps_per_generation
            tokens = inputs["num_items_in_batch"].clamp(min=1) * share / self.accelerator.num_processes
            total_BT = policy_BT + options.value_coefficient * value_BT
            self._note("entropy", entropies_BT, mask_BT)
            self._note("value_loss", value_BT, mask_BT)
            self._note("clip_ratio/region_mean", (ratio_BT != clipped_BT).float(), mask_BT)
            return (total_BT * mask_BT).sum() / tokens

        def _log_probabilities(
            self, model: Any, inputs: dict[str, Any], compute_entropy: bool = False
        ) -> Any:
            return self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
                torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
                inputs["completion_ids"].shape[1],
                batch_size=self.args.per_device_train_batch_size,
                compute_entropy=compute_entropy,
            )

        def _note(self, name: str, values_BT: Any, mask_BT: Any) -> None:
            """Record a mean over the tokens of all processes as one of TRL's metrics."""
            total, count = reduce(
                torch.stack([(values_BT.detach() * mask_BT).sum(), mask_BT.sum().float()]), "sum"
            )
            self._metrics["train"][name].append((total / count.clamp(min=1)).item())

        def _note_explained_variance(self, output: dict[str, Any]) -> None:
            """1 − Var(returns − values) / Var(returns): how much the critic knows beforehand."""
            mask_BT, returns_BT = output["loss_mask"], output["returns"]
            errors_BT = (returns_BT - output["values"]) * mask_BT
            sums = [mask_BT, returns_BT * mask_BT, returns_BT**2 * mask_BT, errors_BT, errors_BT**2]
            reduced: Any = reduce(torch.stack([part.sum().double() for part in sums]), "sum")
            count, total, squares, error, error_squares = reduced.tolist()
            variance = squares / count - (total / count) ** 2 if count else 0.0
            left = error_squares / count - (error / count) ** 2 if count else 0.0
            explained = 1 - left / variance if variance > 1e-12 else float("nan")
            self._metrics["train"]["explained_variance"].append(explained)

        def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
            """The policy alone, and the critic in a file of its own."""
            state = self.model.state_dict() if state_dict is None else state_dict
            policy, critic = split_off(state)
            super()._save(output_dir, policy)
            trained = {name for name, value in self.critic.named_parameters() if value.requires_grad}
            folder = Path(output_dir or str(self.args.output_dir))
            save_critic(folder, {name: value for name, value in critic.items() if name in trained})

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            load_critic(self.critic, Path(resume_from_checkpoint))

    return PPOTrainer


def _of_tokens(values_BL: Any, mask_BT: Any) -> Any:
    """V(s_t) of the completion's tokens: the value at the position before each. (batch, all) → (batch,
    tokens)."""
    tokens = mask_BT.shape[1]
    return values_BL[:, -tokens - 1 : -1]
