"""Scores that somebody already has, matched to a benchmark's items by id."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf_eval.benchmarks.items import Item, Scores
from rlhf_eval.errors import DataError
from rlhf_eval.sources import read_rows

FORMS = (
    "`chosen` and `rejected`, `score_A` and `score_B`, `score_1` … `score_k`, or in JSON Lines `scores: […]` "
    "(all in the order of the benchmark's completions)"
)
SHOWN = 5


def read_scores(source: str, items: Sequence[Item]) -> Scores:
    """Scores of every item from a CSV or JSON Lines file with the ids in `pair_id` or `id`.

    A JSON null is an invalid score, which counts as wrong; `rlhf-eval benchmark` writes such files.

    Raises:
        DataError: an id is missing, doubled or unknown; a score is absent, no number, NaN or infinite; all
            named by row.
    """
    wanted = {item.id: item for item in items}
    found: dict[str, np.ndarray] = {}
    for number, row in enumerate(read_rows(source), 1):
        where = f"'{source}', row {number}"
        id = next((str(row[name]) for name in ("pair_id", "id") if row.get(name) not in (None, "")), None)
        if id is None:
            raise DataError(f"{where} has no `pair_id` or `id`.", "Give every row the id of its item.")
        if id not in wanted and row.get("subset"):  # RewardBench's own ids are unique within a subset only
            id = f"{row['subset']}/{id}"
        if id in found:
            raise DataError(f"{where} repeats the id '{id}'.", "Keep one row per item.")
        if id not in wanted:
            raise DataError(
                f"{where}: the benchmark has no item '{id}'.",
                "Score the same version of the data, or give its file with --data.",
            )
        found[id] = _scores(row, wanted[id], f"{where} ('{id}')")
    if missing := [id for id in wanted if id not in found]:
        names = ", ".join(missing[:SHOWN]) + (" …" if len(missing) > SHOWN else "")
        raise DataError(
            f"'{source}' has no scores for {len(missing)} of {len(items)} items: {names}.",
            "Score these too: a number over a part is no number of this benchmark.",
        )
    return [found[item.id] for item in items]


def _scores(row: Mapping[str, Any], item: Item, where: str) -> np.ndarray:
    values = _values(row, item)
    if values is None:
        raise DataError(f"{where} has no scores in a known form.", f"Give {FORMS}.")
    if values == []:
        raise DataError(
            f"{where} has other numbers of chosen and rejected scores than the item has answers.",
            "Give one score per completion.",
        )
    if len(values) != len(item.completions):
        raise DataError(
            f"{where} has {len(values)} scores for {len(item.completions)} completions.",
            "Give one score per completion.",
        )
    return np.array([_number(value, where) for value in values])


def _values(row: Mapping[str, Any], item: Item) -> list[Any] | None:
    """The scores in the order of the item's completions; None if the row has them in no known form, none if
    `chosen` and `rejected` have other lengths than the item."""
    if isinstance(row.get("scores"), list):
        return row["scores"]
    if "score_A" in row and "score_B" in row:
        return [row["score_A"], row["score_B"]]
    if "chosen" in row and "rejected" in row:
        right, wrong = (_listed(row[name]) for name in ("chosen", "rejected"))
        if (len(right), len(wrong)) != (item.labels.count(1.0), len(item.labels) - item.labels.count(1.0)):
            return []
        rights, wrongs = iter(right), iter(wrong)
        return [next(rights if label == 1 else wrongs) for label in item.labels]
    numbered = {int(m[1]): row[m[0]] for name in row if name and (m := re.fullmatch(r"score_(\d+)", name))}
    whole = set(numbered) == set(range(1, len(numbered) + 1))
    return [numbered[place] for place in sorted(numbered)] if numbered and whole else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _number(value: Any, where: str) -> float:
    if value is None:
        return math.nan
    # What stands there is not shown: a file of texts given by mistake may be a private one.
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: what stands for a score is no number.", "Give numbers.") from None
    if isinstance(value, bool):
        raise DataError(f"{where}: true and false are no scores.", "Give numbers.")
    if not math.isfinite(number):
        raise DataError(
            f"{where}: the score is {value}.",
            "Score the item again, or write null in JSON Lines to have it counted as wrong.",
        )
    return number
