"""A reward model whose answers are kept in files, so that nothing is scored twice for an experiment.

Answers stand under a hash of what was asked, one JSON Lines segment per process that wrote. Invalid ones are
not kept: what could not be answered today is asked again. Neither are those of a server (`remote`).
"""

import os
import socket
import time
from collections.abc import Callable, Hashable, Sequence
from copy import copy
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rlhf_eval.config.inputs import nested
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.files import append_jsonl, read_json, read_jsonl, sha256_json, write_json
from rlhf_eval.progress import Progress
from rlhf_eval.records import Comparison, Conversation, PreferenceBatch, ScoreBatch, as_json
from rlhf_eval.rewards.interface import Group, PointwiseRewardModel, RewardModel, load_reward_model
from rlhf_eval.rewards.tournament import play

CHUNK = 512
"""Answers between two writes: what an interruption can cost."""
Key = Callable[[Any], str]
_Asked = TypeVar("_Asked", bound=Hashable)


def scores_folder(experiment: Path, config: RewardModelConfig, files: dict[str, str]) -> Path:
    """Where an experiment keeps one reward model's answers.

    Args:
        experiment: folder of the experiment.
        config: before its `lab:` names are replaced by paths of this machine.
        files: SHA-256 of the local files and folders that it names (`sources.local_hashes`).
    """
    chosen = {field: value for field, value in fingerprint(config).items() if field != "name"}
    identity = sha256_json({"reward_model": chosen, "files": files})[:16]
    return experiment / "shared" / "scores" / f"{config.name}--{identity}"


class StoredRewardModel(RewardModel):
    """Answers from the files in `folder`, and from the reward model itself where there is none yet.

    Args:
        config: the reward model, which is loaded when something new is asked.
        folder: see `scores_folder`.
        progress: told about what is scored anew.
        key: hash of what was asked; private sets give a salted one.
    """

    def __init__(
        self, config: RewardModelConfig, folder: Path, progress: Progress, key: Key = sha256_json
    ) -> None:
        self.config = config
        self.folder = folder
        self.progress = progress
        self.key = key
        # Copies made by `salted` share it, and with it the weights; none of them refers to another.
        self.load = cache(partial(load_reward_model, config))
        self.segment = folder / f"{time.time_ns():x}-{socket.gethostname()}-{os.getpid()}.jsonl"
        # Whoever answers behind an address tomorrow may be another reward model than today's.
        self.keeps = all(part.kind != "remote" for _, part in nested("", config))
        self.known = {
            row["key"]: row["answer"]
            for file in (sorted(folder.glob("*.jsonl")) if self.keeps else ())
            for row in read_jsonl(file)
        }
        about = folder / "reward_model.json"
        if not about.exists():
            write_json(about, {"name": config.name, "only_compares": self.model.only_compares})
        self.only_compares = bool(read_json(about)["only_compares"])

    def salted(self, key: Key) -> "StoredRewardModel":
        """The same files, answers and loaded model, with other hashes."""
        other = copy(self)
        other.key = key
        return other

    @property
    def model(self) -> RewardModel:
        """The reward model itself."""
        return self.load()

    def score(self, conversations: Sequence[Conversation]) -> ScoreBatch:
        def ask(missing: Sequence[Conversation]) -> np.ndarray:
            return self.model.score(missing).scores

        scores = self._answers(
            conversations, lambda c: self.key(as_json(c)), ask, lambda c: sum(len(m.content) for m in c)
        )
        return ScoreBatch(scores, np.isfinite(scores))

    def compare(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        if not self.only_compares:
            return PointwiseRewardModel.compare(self, comparisons)  # type: ignore[arg-type]
        return self._compared(comparisons, "both orders", lambda missing: self.model.compare(missing))

    def compare_as_shown(self, comparisons: Sequence[Comparison]) -> PreferenceBatch:
        if not self.only_compares:
            return self.compare(comparisons)
        return self._compared(comparisons, "as shown", lambda missing: self.model.compare_as_shown(missing))

    def score_groups(self, groups: Sequence[Group]) -> list[ScoreBatch]:
        if not self.only_compares:
            return PointwiseRewardModel.score_groups(self, groups)  # type: ignore[arg-type]
        return play(groups, self.config.group, self.compare)

    def _compared(
        self,
        comparisons: Sequence[Comparison],
        way: str,
        ask: Callable[[Sequence[Comparison]], PreferenceBatch],
    ) -> PreferenceBatch:
        probabilities = self._answers(
            comparisons,
            lambda c: self.key([way, as_json(c.prompt.messages), c.completion_a, c.completion_b]),
            lambda missing: ask(missing).probabilities,
            lambda c: len(c.prompt.instruction) + len(c.completion_a) + len(c.completion_b),
        )
        return PreferenceBatch(probabilities, np.isfinite(probabilities))

    def _answers(
        self,
        asked: Sequence[_Asked],
        key: Callable[[_Asked], str],
        ask: Callable[[Sequence[_Asked]], np.ndarray],
        length: Callable[[_Asked], int],
    ) -> np.ndarray:
        """A number for each of `asked`; what is not known is asked once, longest first, and written down."""
        keys = {item: key(item) for item in dict.fromkeys(asked)}
        missing = sorted((item for item in keys if keys[item] not in self.known), key=length, reverse=True)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            self.progress.advance(start, len(missing))
            answers = {keys[item]: float(x) for item, x in zip(chunk, ask(chunk), strict=True)}
            valid = {k: x for k, x in answers.items() if np.isfinite(x)}
            if valid and self.keeps:
                append_jsonl(self.segment, *({"key": k, "answer": x} for k, x in valid.items()))
            self.known |= valid
        return np.array([self.known.get(keys[item], np.nan) for item in asked], dtype=np.float64)
