"""Verdicts on disk: every one is written the moment it comes, so a killed run asks none twice.

While judging, each process appends to a segment of its own; `settle` then writes all verdicts in the order
of the questions as `<evaluation>.jsonl` and drops the segments.
"""

import json
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.files import read_jsonl, write_jsonl
from rlhf_eval.judging.question import Question
from rlhf_eval.records import Verdict

SYNC_SECONDS = 0.05


class Segment:
    """An append-only file of verdicts with one writer.

    Each verdict is handed to the operating system at once, which survives the death of the process; it is
    forced to the disk at most every 50 ms and at the end, which survives the death of the machine.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / f"{time.time_ns()}.{os.getpid()}.{secrets.token_hex(4)}.segment").open("xb")
        self._synced = time.monotonic()

    def append(self, verdict: Verdict) -> None:
        """Write one verdict."""
        self._stream.write(json.dumps(asdict(verdict), ensure_ascii=False).encode("utf-8") + b"\n")
        self._stream.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._stream.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> "Segment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync()
        self._stream.close()


def known(folder: Path, evaluations: Iterable[str]) -> dict[str, Verdict]:
    """Every verdict in a folder that holds a preference, by key; failed ones are to be asked again."""
    settled = [path for evaluation in evaluations if (path := file(folder, evaluation)).exists()]
    rows = [row for path in (*settled, *_segments(folder)) for row in read_jsonl(path)]
    return {row["key"]: Verdict(**row) for row in rows if row["preference"] is not None}


def settle(
    folder: Path, evaluation: str, questions: Sequence[Question], verdicts: dict[str, Verdict]
) -> None:
    """Write the verdicts of one evaluation in the order of its questions."""
    write_jsonl(file(folder, evaluation), (asdict(verdicts[question.key]) for question in questions))


def drop_segments(folder: Path) -> None:
    """Remove the segments once all they hold is settled."""
    for path in _segments(folder):
        path.unlink()


def read(folder: Path, evaluation: str, questions: Sequence[Question]) -> list[Verdict]:
    """The verdicts on exactly these questions, in their order.

    Raises:
        DataError: the file is absent or holds verdicts on something else.
    """
    path = file(folder, evaluation)
    by_key = {row["key"]: Verdict(**row) for row in read_jsonl(path)}
    missing = sum(question.key not in by_key for question in questions)
    if missing:
        raise DataError(
            f"{path} lacks the verdicts on {missing} of {len(questions)} comparisons.",
            f"Delete the folder {folder} to have them judged again.",
        )
    return [by_key[question.key] for question in questions]


def refuse_if_too_many_failed(verdicts: Sequence[Verdict], max_failed_share: float) -> None:
    """Refuse to score what a judge failed on too often.

    Raises:
        JudgeError: with the share and the causes.
    """
    causes = Counter(verdict.error for verdict in verdicts if verdict.error is not None)
    share = causes.total() / max(1, len(verdicts))
    if share > max_failed_share or (causes and causes.total() == len(verdicts)):
        most = "; ".join(f"{count}× {cause}" for cause, count in causes.most_common(3))
        raise JudgeError(
            f"The judge failed on {causes.total()} of {len(verdicts)} comparisons ({share:.1%}, allowed are "
            f"{max_failed_share:.1%}): {most}.",
            "Give the same command again to ask only these once more, or raise judge.max_failed_share.",
        )


def file(folder: Path, evaluation: str) -> Path:
    """Where the verdicts of one evaluation stand."""
    return folder / f"{evaluation}.jsonl"


def _segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.segment"))
