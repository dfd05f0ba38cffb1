"""Arena-Hard's question files and answer files, in their published formats and a run's own."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.errors import DataError
from rlhf_eval.judging.style_features import published_style
from rlhf_eval.sources import read_rows

NO_CATEGORY = "arena_hard"
"""Category of questions that name none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to one question.

    Attributes:
        style: shape (4,), from the published counts (`style_features.published_style`); None without.
    """

    model: str
    text: str
    style: np.ndarray | None


def questions_by_id(source: str) -> dict[str, dict[str, Any]]:
    """The rows of a question file by `uid`, in their order.

    Raises:
        DataError: a row is not in the published format, or an id stands twice.
    """
    return _by_id(source, read_rows(source), "prompt")


def category_of(row: dict[str, Any]) -> str:
    """The category of a question's row; sets without categories have one."""
    return str(row.get("category") or NO_CATEGORY)


def answers_by_id(source: str, wanted: Iterable[str]) -> dict[str, Answer]:
    """One model's answers to the wanted questions.

    Args:
        source: rows with `uid`, `messages` and `model`, as arena-hard-auto has them, or a run's own answers,
            rows with `prompt_id` and `text`.

    Raises:
        DataError: a row is in neither format, an id stands twice, or answers are missing.
    """
    rows = read_rows(source)
    own = all(isinstance(row, dict) and "prompt_id" in row for row in rows)
    by_id = _by_id(source, [_published(row, source) for row in rows] if own else rows, "messages")
    wanted = list(wanted)
    missing = [uid for uid in wanted if uid not in by_id]
    if missing:
        raise DataError(
            f"'{source}' lacks {len(missing)} of {len(wanted)} questions, such as {', '.join(missing[:3])}.",
            "Give one model's answers to this very set of questions.",
        )
    return {uid: _answer(by_id[uid], source) for uid in wanted}


def _published(row: dict[str, Any], source: str) -> dict[str, Any]:
    """A run's own answer in the published format; its model is named after the run's folder."""
    message = {"role": "assistant", "content": row.get("text")}
    parents = Path(source).absolute().parents
    model = parents[2].name if len(parents) > 2 else ""
    return {"uid": row.get("prompt_id"), "model": model or "a run", "messages": [message]}


def _by_id(source: str, rows: Sequence[dict[str, Any]], field: str) -> dict[str, dict[str, Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not row.get("uid") or not row.get(field):
            raise DataError(
                f"Row {number} of '{source}' has no `uid` and `{field}`.",
                "Give the file in the format of Arena-Hard v0.1 or v2.0.",
            )
    repeated = [uid for uid, count in Counter(str(row["uid"]) for row in rows).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} ids stand more than once in '{source}': {', '.join(repeated[:3])}.",
            "Keep one row per question.",
        )
    return {str(row["uid"]): row for row in rows}


def _answer(row: dict[str, Any], source: str) -> Answer:
    """The last message's text; v2.0 and re-released v0.1 files wrap it as {"answer": …}."""
    try:
        content = row["messages"][-1]["content"]
        text = content["answer"] if isinstance(content, dict) else content
        style = published_style(row["metadata"]) if row.get("metadata") else None
    except (AttributeError, KeyError, TypeError, ValueError):
        text = style = None
    if not isinstance(text, str):
        raise DataError(
            f"The answer to {row['uid']} in '{source}' is no text.",
            "The last message must hold a text, or an object with the text as `answer`; its `metadata`, if "
            "there, the counts of arena-hard-auto.",
        )
    return Answer(str(row.get("model") or "baseline"), text, style)
