"""The whole story of one run, on one page.

    benchmark   how accurate is the reward model on pairs of answers?
    train       train the policy against it
    generate    let the trained policy answer the evaluation prompts
    judge       have a judge compare the answers with the reference answers
    score       turn verdicts into numbers

Each stage writes into its own folder and is skipped when it is done and neither its inputs nor its files
have changed. The same command therefore continues whatever was interrupted, at any moment; and stages that
want different machines can be executed by different jobs, one after the other.
"""

import gc
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.determinism import make_deterministic
from rlhf_eval.errors import StageError
from rlhf_eval.files import read_jsonl, write_json
from rlhf_eval.interruption import Interrupted
from rlhf_eval.lab.build import ensure, world_path
from rlhf_eval.progress import Progress
from rlhf_eval.rewards.stored import scores_folder
from rlhf_eval.runs.directory import LOCK_PATIENCE_SECONDS, RunDirectory, now
from rlhf_eval.runs.environment import environment
from rlhf_eval.runs.protocol import hold
from rlhf_eval.runs.provenance import made_from, who_and_where, write_manifest
from rlhf_eval.runs.revisions import pinned, resolved
from rlhf_eval.runs.stage_inputs import NEEDS, files_of, input_hash, is_ready
from rlhf_eval.sources import local_hashes, localise
from rlhf_eval.training.checkpoints import discard

UNTRAINED = "untrained"


@dataclass(frozen=True)
class Run:
    """One run being executed. `config` is localised: its `lab:` references are paths of this machine.

    Attributes:
        shared: folder of what all runs of the experiment share.
        scores: folder in it with the reward model's answers.
        logs: folder of this attempt's logs.
    """

    config: RunConfig
    directory: RunDirectory
    progress: Progress
    shared: Path
    scores: Path
    logs: Path

    def stage(self, name: str) -> Path:
        return self.directory.path / "stages" / name

    def advance(self, done: int, total: int, text: str = "") -> None:
        self.directory.update_status(step=done, steps=total)
        self.progress.advance(done, total, text)

    @property
    def trains(self) -> bool:
        return self.config.reward_model.kind != UNTRAINED


def execute(
    config: RunConfig,
    path: Path,
    progress: Progress,
    stages: Collection[str] | None = None,
    patience: float = LOCK_PATIENCE_SECONDS,
) -> None:
    """Execute whatever of a run is missing.

    Args:
        stages: names of those to execute; what they need must be done. None is all.
        patience: seconds to wait for another process that works on the run.

    Raises:
        RlhfEvalError: what a user can cause; status.json says `failed` with the same words.
        Interrupted: SIGTERM came; status.json says `interrupted`, and the same command continues.
    """
    hold(path.parent, config)
    directory = RunDirectory.open(path, config)
    with directory.locked(patience):
        logs = directory.begin_attempt()
        try:
            left = _execute(config, directory, logs, progress, NEEDS if stages is None else stages)
        except (Interrupted, KeyboardInterrupt):
            directory.update_status(state="interrupted")
            raise
        except BaseException as error:
            directory.fail(str(error) or type(error).__name__)
            raise
        if left:
            directory.update_status(state="pending", stage=left[0], step=0, steps=0)
        else:
            directory.update_status(state="done", stage=None)


def is_finished(config: RunConfig, path: Path) -> bool:
    """Whether every stage is done with today's inputs. Loads nothing heavy and changes nothing."""
    directory = RunDirectory(path)
    if not directory.config_file.exists() or directory.status()["state"] != "done":
        return False
    return not open_stages(config, path)


def open_stages(config: RunConfig, path: Path) -> list[str]:
    """Names of the stages that are not done with today's inputs, in order. Loads nothing heavy and changes
    nothing."""
    world = world_path(config.lab) if config.lab else None
    chosen, outputs = fingerprint(config), dict[str, str]()
    files = files_of(config, path.parent / "shared", world)
    for name, _ in STAGES:
        stage = RunDirectory(path).stage(name)
        if is_ready(name, outputs) and stage.is_done(input_hash(name, chosen, files, outputs)):
            outputs[name] = stage.output_hash
    return [name for name, _ in STAGES if name not in outputs]


def _execute(
    config: RunConfig, directory: RunDirectory, logs: Path, progress: Progress, chosen: Collection[str]
) -> list[str]:
    """Execute the chosen stages; the names of those that are still open."""
    from rlhf_eval.generation.base_answers import answers_file, make, uses_base, with_answers

    free()  # of what a run held that failed in this process
    world = ensure(config.lab, 2, progress) if config.lab else None
    scores = scores_folder(
        directory.path.parent, config.reward_model, local_hashes(config.reward_model, world)
    )
    shared = directory.path.parent / "shared"
    revisions = resolved(config, shared)
    run = Run(pinned(localise(config, world), revisions), directory, progress, shared, scores, logs)
    if config.deterministic:  # before anything computes
        make_deterministic()
    if uses_base(config):  # before anything that is compared with it
        file = answers_file(shared, config, world)
        make(run.config, file, run.advance)
        free()
        run = replace(run, config=with_answers(run.config, file))

    def record() -> None:
        write_manifest(directory, made_from(config, run.config, world, revisions))

    if not directory.manifest_file.exists():
        record()
    fields, outputs = fingerprint(config), dict[str, str]()
    for name, work in STAGES:
        if not is_ready(name, outputs):
            if name in chosen:
                raise StageError(
                    f"{name} of {directory.path} needs {' and '.join(NEEDS[name])}, not done with today's "
                    f"inputs, and only {', '.join(chosen)} was asked for.",
                    "Leave out --stages, or let `rlhf-eval sweep --resume` submit what is missing.",
                )
            continue
        stage = directory.stage(name)
        # Anew for every stage: it may begin days after the last.
        inputs = input_hash(name, fields, files_of(config, shared, world), outputs)
        if not stage.is_done(inputs):
            if name not in chosen:
                continue
            record()  # not where nothing is executed: it would say that this attempt had made the run
            note = stage.begin(inputs)
            progress.stage(name, note or "running")
            if note:
                progress.stage(name, "running")
            directory.update_status(stage=name, stage_attempt=stage.attempts, step=0, steps=0)
            files = work(run)
            free()  # before the next stage or its server wants the GPU
            stage.finish(files, who_and_where() | {"finished_at": now()}, environment())
            record()  # again: by now the hub's files are here, and the judge has said who it is
            progress.stage(name, "done")
        outputs[name] = stage.output_hash
        if name == "train":  # its marker is on the disk: nothing will continue from them
            discard(stage.path / "checkpoints")
    return [name for name, _ in STAGES if name not in outputs]


def free() -> None:
    """Free the weights that nothing uses any more.

    TRL's trainer and what it holds refer to each other, so Python frees them only when it looks for such
    cycles; and vLLM in the training process froze the garbage collector (`gc.freeze`) when it started.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # importing it takes seconds, and a finished run loads nothing
        return
    gc.unfreeze()
    gc.collect()
    gc.collect()  # what vLLM's engine held until the first call ended it
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _benchmark(run: Run) -> list[Path]:
    from rlhf_eval.benchmarks.evaluate import evaluate, load_benchmark
    from rlhf_eval.rewards.stored import StoredRewardModel

    folder = run.stage("benchmark")
    results: dict[str, Any] = {}
    files: list[Path] = []
    if run.trains and run.config.benchmarks:
        reward_model = StoredRewardModel(run.config.reward_model, run.scores, run.progress)
        loaded = [load_benchmark(benchmark) for benchmark in run.config.benchmarks.values()]
        for name, measured in zip(run.config.benchmarks, evaluate(reward_model, loaded), strict=True):
            results[name] = measured.as_json()
            files += measured.write(folder)
    write_json(folder / "results.json", results)
    return [folder / "results.json", *files]


def _train(run: Run) -> list[Path]:
    folder = run.stage("train")
    if not run.trains:
        write_json(folder / "untrained.json", {"policy": run.config.policy.name})
        return [folder / "untrained.json"]
    if run.config.algorithm.kind == "best_of_n":
        from rlhf_eval.training.best_of_n import measure

        return measure(run.config, folder, run.directory.metrics_file, run.advance)
    from rlhf_eval.training.launch import launch

    log = run.logs / "train.log"
    announce = partial(run.progress.stage, "train")
    launch(run.config, folder, run.directory.metrics_file, log, run.advance, announce)
    return [folder / "policy", folder / "reward_normaliser.json"]


def _generate(run: Run) -> list[Path]:
    import torch

    from rlhf_eval.generation.engines import answer_sets
    from rlhf_eval.judging.stage import evaluation_prompts

    torch.set_num_threads(run.config.threads)
    policy, folder = run.config.policy, run.stage("generate")
    sets, limit = evaluation_prompts(run.config.prompts), run.config.prompts.max_prompt_tokens
    if run.trains and run.config.algorithm.kind == "best_of_n":
        from rlhf_eval.training.best_of_n import answer

        return answer(run.config, sets, folder, run.shared / "samples", run.advance)
    if run.trains:
        policy = replace(policy, model=str(run.stage("train") / "policy"), revision=None)
    return answer_sets(policy, run.config.generation, sets, run.config.seed, limit, folder, run.advance)


def _judge(run: Run) -> list[Path]:
    from rlhf_eval.judging.stage import judge

    answers, folder = _answers(run), run.stage("judge")
    announce = partial(run.progress.stage, "judge")
    judge(run.config, answers, folder, run.shared / "verdicts", run.progress.advance, announce)
    folders = [folder, *(folder / name for name in run.config.second_judges)]
    return [place / f"{evaluation}.jsonl" for place in folders for evaluation in answers]


def _score(run: Run) -> list[Path]:
    from rlhf_eval.judging.scoring import score
    from rlhf_eval.rewards.interface import load_reward_model

    gold = run.config.gold_reward_model
    measure = load_reward_model(gold).score if gold else None
    score(run.config, _answers(run), run.stage("judge"), run.stage("score"), measure, _truncated(run))
    return [run.stage("score") / "scores.json", run.stage("score") / "per_prompt.jsonl"]


STAGES: tuple[tuple[str, Callable[[Run], list[Path]]], ...] = (
    ("benchmark", _benchmark),
    ("train", _train),
    ("generate", _generate),
    ("judge", _judge),
    ("score", _score),
)


def _answers(run: Run) -> dict[str, dict[str, str]]:
    folder = run.stage("generate")
    return {
        evaluation: {row["prompt_id"]: row["text"] for row in read_jsonl(folder / f"{evaluation}.jsonl")}
        for evaluation in ("alpaca_eval", "arena_hard")
    }


def _truncated(run: Run) -> dict[str, set[str]]:
    """Ids of the answers that were cut at the token limit, by evaluation."""
    folder = run.stage("generate")
    return {
        evaluation: {
            row["prompt_id"]
            for row in read_jsonl(folder / f"{evaluation}.jsonl")
            if row["finish"] == "length"
        }
        for evaluation in ("alpaca_eval", "arena_hard")
    }
