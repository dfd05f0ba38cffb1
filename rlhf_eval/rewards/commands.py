"""What `rlhf-eval reward …` and `rlhf-eval validate reward_model=…` do with one reward model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import append_jsonl, read_jsonl, sha256_json, write_jsonl
from rlhf_eval.keys import key_in
from rlhf_eval.progress import Progress
from rlhf_eval.records import Conversation, Message, Prompt, as_messages, user_prompt
from rlhf_eval.rewards.interface import Group, RewardModel, load_reward_model
from rlhf_eval.sources import read_rows

TOKEN_VARIABLE = "RLHF_EVAL_REWARD_TOKEN"  # noqa: S105 - the variable's name, not the token
CHUNK = 256
"""Conversations scored between two writes to the output: what an interruption can cost."""


def check_golden(config: RewardModelConfig) -> list[dict[str, Any]]:
    """Load a reward model and score its golden conversations.

    Returns:
        One row each: `prompt, completion, expected, score` (None if invalid), `tolerance, agrees`.
    """
    reward_model = load_reward_model(config)
    if not config.golden:
        return []
    batch = reward_model.score([user_prompt("", g.prompt).answered(g.completion) for g in config.golden])
    return [
        {
            "prompt": golden.prompt,
            "completion": golden.completion,
            "expected": golden.score,
            "score": float(score) if valid else None,
            "tolerance": golden.tolerance,
            "agrees": bool(valid and abs(score - golden.score) <= golden.tolerance),
        }
        for golden, score, valid in zip(config.golden, batch.scores, batch.valid, strict=True)
    ]


def score_file(config: RewardModelConfig, source: str, output: Path, progress: Progress) -> dict[str, int]:
    """Score every conversation of a file and write one row each, in its order: `id, score, valid`.

    For rows with several completions of a prompt these are lists; a reward model that only compares takes no
    others. Rows are written to `<output>.part` as they come, and the file is renamed when it is complete. The
    same call continues an interrupted one; a part of other conversations or another reward model is refused.

    Args:
        source: rows with `messages`, with `prompt` (text or messages) and `completion`, or with `prompt` and
            `completions`; `id` is optional.

    Returns:
        Counts: rows `scored`, those of them with something `invalid`, and how many were `kept` from before.

    Raises:
        ConfigError: single answers for a reward model that only compares.
        DataError: a row without a conversation (named by its number), rows of both forms, or a part that
            belongs elsewhere.
    """
    rows = read_rows(source)
    grouped = bool(rows) and "completions" in rows[0]
    read = _group if grouped else _conversation
    items: list[Any] = [read(row, number, source) for number, row in enumerate(rows, 1)]
    ids = [row.get("id", number) for number, row in enumerate(rows, 1)]
    part = output.with_name(output.name + ".part")
    header = {"reward_model": sha256_json(fingerprint(config)), "source": sha256_json(_plain(items))}
    done = read_jsonl(part) if part.exists() else []
    if done and done[0] != header:
        raise DataError(
            f"{part} was begun with another reward model or other conversations.",
            "Name another --output, or delete that file.",
        )
    if not done:
        output.parent.mkdir(parents=True, exist_ok=True)
        append_jsonl(part, header)
    kept = max(0, len(done) - 1)
    progress.stage("score", "running")
    progress.advance(kept, len(rows))
    reward_model = load_reward_model(config) if kept < len(rows) else None
    for start in range(kept, len(rows), CHUNK):
        assert reward_model is not None
        end = min(start + CHUNK, len(rows))
        found = _scores(reward_model, items[start:end], grouped)
        append_jsonl(part, *({"id": id} | row for id, row in zip(ids[start:end], found, strict=True)))
        progress.advance(end, len(rows))
    scored = read_jsonl(part)[1:]
    write_jsonl(output, scored)
    part.unlink()
    progress.stage("score", "done")
    return {
        "scored": len(scored),
        "invalid": sum(not np.all(row["valid"]) for row in scored),
        "kept": kept,
    }


def serve(config: RewardModelConfig, host: str, port: int) -> None:
    """Serve a reward model until SIGTERM or SIGINT; then finish what is under way and end.

    Prints `listening on http://host:port` when it is ready; port 0 takes a free one.

    Raises:
        ConfigError: it would listen beyond this machine without a token, or where it cannot.
    """
    import socket

    import uvicorn

    from rlhf_eval.addresses import on_this_machine
    from rlhf_eval.rewards.server import Service, application

    token = key_in(TOKEN_VARIABLE) or None
    if token is None and not on_this_machine(f"http://{host}"):
        raise ConfigError(
            f"Anybody who reaches {host} could use this reward model.",
            f"Set a token in the environment variable {TOKEN_VARIABLE}, or leave out --host.",
        )
    reward_model = load_reward_model(config)
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on: {error}.", "Choose another --port."
        ) from error
    service = Service(reward_model, config.name, config.batch_tokens)
    server = uvicorn.Server(
        uvicorn.Config(application(service, token), log_level="warning", timeout_graceful_shutdown=30)
    )
    print(f"listening on http://{host}:{listening.getsockname()[1]}", flush=True)
    server.run(sockets=[listening])


def _conversation(row: dict[str, Any], number: int, source: str) -> Conversation:
    if row.get("messages"):
        return as_messages(row["messages"])
    if row.get("prompt") and isinstance(row.get("completion"), str):
        return (*as_messages(row["prompt"]), Message("assistant", row["completion"]))
    raise DataError(
        f"'{source}', row {number} has no conversation.", "Give `messages`, or `prompt` and `completion`."
    )


def _group(row: dict[str, Any], number: int, source: str) -> Group:
    texts = row.get("completions")
    if not row.get("prompt") or not isinstance(texts, list) or not texts:
        raise DataError(
            f"'{source}', row {number} has no group of completions, as row 1 has.",
            "Give `prompt` and `completions` (a list of texts) in every row.",
        )
    return Prompt(str(row.get("id", number)), as_messages(row["prompt"])), tuple(texts)


def _scores(reward_model: RewardModel, items: Sequence[Any], grouped: bool) -> list[dict[str, Any]]:
    """`score` and `valid` of each item: numbers, or lists of them for groups."""
    if grouped:
        batches = reward_model.score_groups(items)
        return [{"score": _numbers(batch.scores), "valid": batch.valid.tolist()} for batch in batches]
    batch = reward_model.score(items)
    return [
        {"score": score, "valid": valid}
        for score, valid in zip(_numbers(batch.scores), batch.valid.tolist(), strict=True)
    ]


def _numbers(scores: np.ndarray) -> list[float | None]:
    return [score if np.isfinite(score) else None for score in scores.tolist()]


def _plain(items: Any) -> Any:
    """Prompts, messages and texts as lists, for a hash."""
    if isinstance(items, Prompt):
        return _plain(items.messages)
    if isinstance(items, Message):
        return [items.role, items.content]
    return [_plain(item) for item in items] if isinstance(items, list | tuple) else items
