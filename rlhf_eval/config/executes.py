"""What a configuration has this machine execute beside rlhf_eval, and where it sends texts and keys.

Somebody else may have written it.
"""

from collections.abc import Iterator

from rlhf_eval.config.inputs import judges, nested
from rlhf_eval.config.schema import RunConfig

LAB_JUDGE = ("python", "-m", "rlhf_eval.lab.judge_server")


def executes(config: RunConfig) -> dict[str, str]:
    """Field → the command, interpreter, Python or repository with code of its own that it names."""
    return dict(_executes(config))


def sends(config: RunConfig) -> dict[str, str]:
    """Field → the server that is asked, and the environment variable whose value it is sent; a judge that the
    run starts itself is none."""
    return {
        field: f"{address}, with the value of {variable}" if variable else address
        for field, address, variable in _sends(config)
    }


def _executes(config: RunConfig) -> Iterator[tuple[str, str]]:
    for field, judge in judges(config).items():
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


def _sends(config: RunConfig) -> Iterator[tuple[str, str, str | None]]:
    for field, judge in judges(config).items():
        if judge.base_url or judge.api_key_variable or not judge.serve:
            yield f"{field}.base_url", judge.base_url or "the OpenAI API", judge.api_key_variable
    generation, rollout = config.generation, getattr(config.algorithm, "rollout", None)
    if generation.base_url or generation.api_key_variable:
        address = generation.base_url or "the run's own server"
        yield "generation.base_url", address, generation.api_key_variable
    if rollout and rollout.server_url:
        yield "algorithm.rollout.server_url", rollout.server_url, None
    for root in ("reward_model", "gold_reward_model"):
        for field, reward_model in nested(root, getattr(config, root)):
            if endpoint := reward_model.endpoint:
                yield f"{field}.endpoint.base_url", endpoint.base_url, endpoint.api_key_variable
