"""What a configuration has this machine execute that is no part of rlhf_eval."""

from collections.abc import Iterator

from rlhf_eval.config.inputs import nested
from rlhf_eval.config.schema import RunConfig

LAB_JUDGE = ("python", "-m", "rlhf_eval.lab.judge_server")


def executes(config: RunConfig) -> dict[str, str]:
    """Field → the command, interpreter, Python or repository with code of its own that it names."""
    return dict(_executes(config))


def _executes(config: RunConfig) -> Iterator[tuple[str, str]]:
    judges = {"judge": config.judge} | {f"second_judges.{n}": j for n, j in config.second_judges.items()}
    for field, judge in judges.items():
        if judge.serve and judge.serve[:3] != LAB_JUDGE:
            yield f"{field}.serve", " ".join(judge.serve)
    if config.generation.python:
        yield "generation.python", config.generation.python
    for root in ("reward_model", "gold_reward_model"):
        for field, reward_model in nested(root, getattr(config, root)):
            if reward_model.function:
                yield f"{field}.function", reward_model.function
            for name in ("remote_code", "pickle"):
                if getattr(reward_model, name):
                    yield f"{field}.{name}", f"{reward_model.model}@{reward_model.revision}"
