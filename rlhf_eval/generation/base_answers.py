"""Answers of the policy base to Arena-Hard's questions: the baseline where the configuration names `base`.

They are made once for all runs of an experiment that agree in policy, generation and questions, and stand in
`<experiment>/shared/base/<policy>--<key>/s0/generate/arena_hard.jsonl`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import BASE, RunConfig
from rlhf_eval.files import holding, sha256_json
from rlhf_eval.generation.engines import answer_sets
from rlhf_eval.judging.arena_hard_answers import questions_by_id
from rlhf_eval.records import user_prompt
from rlhf_eval.sources import local_hashes

SEED = 0
"""Of the sampling, whatever the runs' own."""


def uses_base(config: RunConfig) -> bool:
    """Whether a run is compared to the answers of its own policy base."""
    return config.prompts.arena_hard.baseline_answers == BASE


def answers_key(config: RunConfig, world: Path | None) -> str:
    """What those answers depend on, hashed."""
    arena = config.prompts.arena_hard
    depends = {
        "policy": fingerprint(config.policy),
        "generation": fingerprint(config.generation),
        "questions": arena.questions,
        "limit": arena.limit,
        "max_prompt_tokens": config.prompts.max_prompt_tokens,
    }
    return sha256_json({"depends": depends, "files": local_hashes(depends, world)})


def answers_file(shared: Path, config: RunConfig, world: Path | None) -> Path:
    """Where the answers stand, made or not.

    Args:
        shared: the experiment's folder of what its runs share.
        config: before its `lab:` names are replaced by paths of this machine.
    """
    name = f"{config.policy.name}--{answers_key(config, world)[:8]}"
    return shared / "base" / name / f"s{SEED}" / "generate" / "arena_hard.jsonl"


def make(config: RunConfig, file: Path, advance: Callable[[int, int], None]) -> None:
    """Have the policy base answer, unless it has; a second process waits for the first.

    Args:
        config: localised.

    Raises:
        DataError, ConfigError, StageError: as `answer_sets`.
    """
    with holding(file.parent / "lock"):
        if file.exists():
            return
        arena = config.prompts.arena_hard
        rows = list(questions_by_id(arena.questions).items())[: arena.limit]
        prompts = {file.stem: [user_prompt(uid, row["prompt"]) for uid, row in rows]}
        limit = config.prompts.max_prompt_tokens
        answer_sets(config.policy, config.generation, prompts, SEED, limit, file.parent, advance)


def with_answers(config: RunConfig, file: Path) -> RunConfig:
    """The configuration with the file in the place of `base`."""
    arena = replace(config.prompts.arena_hard, baseline_answers=str(file))
    return replace(config, prompts=replace(config.prompts, arena_hard=arena))
