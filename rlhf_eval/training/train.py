"""Training a policy against a reward model, in one of the processes that do it together."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from rlhf_eval.config.algorithm_schema import COLLECTIVE_SECONDS, GRPOConfig, PPOConfig, RLOOConfig
from rlhf_eval.config.schema import GenerationConfig, RunConfig
from rlhf_eval.errors import DataError, StageError
from rlhf_eval.files import read_json, read_jsonl, write_json, write_jsonl
from rlhf_eval.generation.policy import load_tokenizer, parts_of, prompt_ids
from rlhf_eval.generation.transformers_engine import load_policy, sample
from rlhf_eval.interruption import Interrupted
from rlhf_eval.records import Prompt, ScoreBatch, as_json
from rlhf_eval.rewards.interface import RewardModel, load_reward_model
from rlhf_eval.training.arguments import common_arguments, on_cpu, peft_config, trained
from rlhf_eval.training.checkpoints import (
    COMPLETE,
    PEAK,
    last_complete,
    publish,
    remove_incomplete,
    saving_said,
    update_of,
)
from rlhf_eval.training.measure import Measurement, Policies
from rlhf_eval.training.prompts import in_training_order, load_prompts
from rlhf_eval.training.recorder import (
    Advance,
    Finished,
    Recording,
    is_measured,
    peak_step,
    recorder,
)
from rlhf_eval.training.reward_function import NORMALISER_SAMPLES, RewardFunction, RewardNormaliser
from rlhf_eval.training.rollouts import engine_of
from rlhf_eval.training.timing import watch
from rlhf_eval.training.waiting import wait_for_everyone

NORMALISER_BATCH = 64
"""Prompts of which completions are sampled together to standardise rewards."""


def train(
    config: RunConfig, folder: Path, metrics: Path, advance: Advance, stop: Callable[[], bool] = lambda: False
) -> None:
    """Train the policy against the reward model and write it to `folder/policy`.

    Continues from the last complete checkpoint in `folder/checkpoints`; the weights that come out are
    those of an undisturbed run. Every process of a training calls this.

    Args:
        metrics: the run's `metrics.jsonl`; rows after the checkpoint continued from are written anew.
        stop: asked after every step; then a checkpoint is saved.

    Raises:
        DataError: the policy is an adapter, or cannot be loaded.
        StageError: the loss is not finite, too many rewards are invalid, or the disk is full.
        Interrupted: `stop` said so, and the checkpoint is on disk.
    """
    from accelerate import PartialState

    algorithm = trained(config)
    # The first to make the processes' group decides how long they wait for each other.
    state = PartialState(cpu=on_cpu(config.accelerate), timeout=timedelta(seconds=COLLECTIVE_SECONDS))
    wait_for_everyone()
    checkpoints = folder / "checkpoints"
    if state.is_main_process:
        remove_incomplete(checkpoints)
    wait_for_everyone()
    checkpoint = last_complete(checkpoints)
    step = 0 if checkpoint is None else update_of(checkpoint) // algorithm.updates_per_step
    if state.is_main_process:
        rows = read_jsonl(metrics) if metrics.exists() and checkpoint else []
        write_jsonl(metrics, [row for row in rows if row["step"] <= step])
    wait_for_everyone()
    if step < algorithm.steps or not is_measured(metrics, step):
        checkpoint = _continue(config, folder, checkpoint, metrics, advance, stop)
    if state.is_main_process:
        assert checkpoint is not None
        last = algorithm.publish == "last" or peak_step(metrics) == algorithm.steps
        chosen = checkpoint if last else _peak(checkpoints, metrics)
        publish(chosen, folder / "policy", config.policy)
    wait_for_everyone()


def _continue(
    config: RunConfig,
    folder: Path,
    checkpoint: Path | None,
    metrics: Path,
    advance: Advance,
    stop: Callable[[], bool],
) -> Path:
    """Train from a checkpoint, or from the beginning, to the end, and return the last checkpoint."""
    from transformers import PrinterCallback, set_seed

    algorithm = trained(config)
    # Before TRL's arguments exist: from then on a model that is loaded under ZeRO-3 is split at once.
    reward_model = load_reward_model(config.reward_model)
    gold = load_reward_model(config.gold_reward_model) if config.gold_reward_model else None
    needs_reference = algorithm.lora is None and algorithm.kl_coefficient == 0
    reference = load_policy(config.policy)[0].eval() if needs_reference else None
    parts = parts_of(config.policy)
    if parts.adapter is not None:
        raise DataError(
            f"policy.model={config.policy.model} is an adapter; training starts from whole weights.",
            "Merge it into its base and name the folder: PeftModel.merge_and_unload(), save_pretrained().",
        )
    tokenizer = load_tokenizer(config.policy, parts)
    limit = config.prompts.max_prompt_tokens
    usable = [p for p in load_prompts(config.prompts.train) if len(prompt_ids(tokenizer, p)) <= limit]
    ordered = in_training_order(usable, algorithm.steps * algorithm.prompts_per_step, config.seed)
    sampling = GenerationConfig(
        name="rollout",
        max_tokens=algorithm.max_completion_tokens,
        temperature=algorithm.temperature,
        top_p=algorithm.top_p,
    )
    set_seed(config.seed)
    reward = RewardFunction(reward_model, None, config.reward_model.max_invalid_share)
    trainer = make_trainer(config, folder / "checkpoints", tokenizer, ordered, reward)
    measurement = Measurement(
        tokenizer,
        load_prompts(config.prompts.held_out)[: config.prompts.held_out_limit],
        config.prompts.held_out_samples,
        sampling,
        reward_model,
        gold,
        config.seed,
        config.reward_model.max_invalid_share,
    )

    def normalise(policies: Policies) -> RewardNormaliser:
        first = ordered[: algorithm.normaliser_prompts]
        file = folder / "reward_normaliser.json"
        return normaliser(file, policies.now, tokenizer, reward_model, first, sampling, config)

    trainer._save_checkpoint = saving_said(trainer._save_checkpoint, folder / "checkpoints")
    # The curves are in metrics.jsonl; TRL's own printing would bury the run's progress.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(
        recorder(
            Recording(
                trainer=trainer,
                stopwatch=watch(trainer),
                measurement=measurement,
                reward=reward,
                normalise=normalise,
                reference=reference,
                metrics=metrics,
                advance=advance,
                stop=stop,
                algorithm=algorithm,
            )
        )
    )
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Finished:  # what reports curves is closed at the end
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
    reached = last_complete(folder / "checkpoints")
    assert reached is not None
    if update_of(reached) < algorithm.steps * algorithm.updates_per_step:
        raise Interrupted("interrupted by SIGTERM; the checkpoint is saved")
    return reached


def _peak(checkpoints: Path, metrics: Path) -> Path:
    """The checkpoint that was kept as the peak, if it is still the one that the curves name."""
    kept, named = read_json(checkpoints / PEAK / COMPLETE)["step"], peak_step(metrics)
    if kept != named:
        raise StageError(
            f"The peak is step {named}, and {checkpoints / PEAK} holds step {kept}: after a restart the "
            "training took another course, as it may on GPUs.",
            "Delete the run's stages/train to train again, or set algorithm.publish=last.",
        )
    return checkpoints / PEAK


def make_trainer(
    config: RunConfig, output: Path, tokenizer: Any, ordered: list[Prompt], reward: Callable[..., Any]
) -> Any:
    """The trainer of the run's algorithm, with the initial policy."""
    from datasets import Dataset

    from rlhf_eval.training.ppo import ppo_trainer
    from rlhf_eval.training.trainers import grpo_trainer, rloo_trainer

    algorithm, arguments = trained(config), common_arguments(config, output)
    parts = {
        "seed": config.seed,
        "reward_funcs": reward,
        "train_dataset": Dataset.from_list([{"prompt": as_json(prompt.messages)} for prompt in ordered]),
        "processing_class": tokenizer,
        "peft_config": peft_config(algorithm.lora, config.policy.revision),
    }
    with engine_of(config, on_cpu(config.accelerate)):
        match algorithm:
            case GRPOConfig():
                return grpo_trainer(algorithm, arguments, config.policy, **parts)
            case RLOOConfig():
                return rloo_trainer(algorithm, arguments, config.policy, **parts)
            case PPOConfig():
                return ppo_trainer(algorithm, arguments, config.policy, **parts)
            case _:
                raise AssertionError(algorithm)


def normaliser(
    file: Path,
    policy: Any,
    tokenizer: Any,
    reward_model: RewardModel,
    prompts: list[Prompt],
    sampling: GenerationConfig,
    config: RunConfig,
) -> RewardNormaliser:
    """The reward normaliser in `file`, or fitted on the initial policy's samples and written there.

    Every process samples and scores a share; what comes out does not depend on how many they are.

    Args:
        policy: the initial policy, unless the file exists.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState()
    share = slice(state.process_index, None, state.num_processes)
    if not file.exists():
        starts = range(0, len(prompts), NORMALISER_BATCH)
        batches = [(start, number) for start in starts for number in range(NORMALISER_SAMPLES)]
        texts: list[Any] = []
        for start, number in batches[share]:
            batch = prompts[start : start + NORMALISER_BATCH]
            seed = 7919 * (config.seed + 1) + start // NORMALISER_BATCH * NORMALISER_SAMPLES + number
            completions, _ = sample(policy, tokenizer, batch, sampling, seed)
            texts += [(start + n, number, completion.text) for n, completion in enumerate(completions)]
        answers: dict[int, list[str]] = {}
        for place, _, text in sorted(gather_object(texts)):
            answers.setdefault(place, []).append(text)
        groups = [(prompts[place], answers[place]) for place in range(len(prompts))]
        scored = [(n, batch.scores) for n, batch in _scored(reward_model, groups, share)]
        scores = [scores for _, scores in sorted(gather_object(scored), key=lambda row: row[0])]
        within_prompt = config.reward_model.comparability != "global"
        fitted = RewardNormaliser.fit(scores, within_prompt)
        wait_for_everyone()
        if state.is_main_process:
            write_json(file, asdict(fitted))
        wait_for_everyone()
    return RewardNormaliser(**read_json(file))


def _scored(reward_model: RewardModel, groups: list[Any], share: slice) -> Iterable[tuple[int, ScoreBatch]]:
    """Scores of this process's share of the groups, with their places."""
    own = list(enumerate(groups))[share]
    scores = reward_model.score_groups([group for _, group in own]) if own else []
    return zip((place for place, _ in own), scores, strict=True)
