"""A run's verdicts in the order of its questions, `<evaluation>.jsonl`; until then they are in the cache."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.files import read_jsonl, write_jsonl
from rlhf_eval.judging.question import Question
from rlhf_eval.records import Verdict


def settled(folder: Path, evaluations: Iterable[str]) -> dict[str, Verdict]:
    """Every verdict that a run has settled and that holds a preference, by key."""
    files = [path for evaluation in evaluations if (path := file(folder, evaluation)).exists()]
    rows = [row for path in files for row in read_jsonl(path)]
    return {row["key"]: Verdict(**row) for row in rows if row["preference"] is not None}


def settle(
    folder: Path, evaluation: str, questions: Sequence[Question], verdicts: dict[str, Verdict]
) -> None:
    """Write the verdicts of one evaluation in the order of its questions."""
    write_jsonl(file(folder, evaluation), (asdict(verdicts[question.key]) for question in questions))


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
