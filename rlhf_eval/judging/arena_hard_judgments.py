"""Judgments in Arena-Hard's published format.

arena-hard-auto writes `model_judgment/<judge>/<model>.jsonl`, one object a question: `uid`, `category`,
`judge`, `model`, `baseline` and `games`, two objects (or null) with `score`, the label, and `judgment`; game
0 shows the baseline as assistant A.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_eval.errors import DataError
from rlhf_eval.judging.arena_hard import NAME, preference
from rlhf_eval.judging.arena_hard_answers import category_of, questions_by_id
from rlhf_eval.judging.arena_hard_scores import GAMES
from rlhf_eval.records import Verdict
from rlhf_eval.sources import read_rows

QUESTIONS = {"arena-hard-v0.1": 500, "hard_prompt": 500, "creative_writing": 250}
"""How many questions the published sets have, by category."""


@dataclass(frozen=True, slots=True)
class Judgments:
    """One judge's verdicts on one model.

    Attributes:
        categories: of every question that should have been judged, by id, in set order.
        baselines: who the model was compared to, by category.
        verdicts: two for each question, failed ones included.
    """

    source: str
    judge: str
    model: str
    categories: dict[str, str]
    baselines: dict[str, str]
    verdicts: list[Verdict]


def read_judgments(source: str, questions: str | None = None) -> Judgments:
    """One judge's judgments of one model, failed games as failed verdicts.

    Args:
        questions: source of the set's questions. A category that was judged must have been judged whole;
            without a source, this is known for the published sets alone, by their size.

    Raises:
        DataError: a row is not in the published format, an id stands twice, the file holds several judges or
            models, or its questions differ from the set.
    """
    rows = read_rows(source)
    for number, row in enumerate(rows):
        _require_format(row, source, number)
    judge, model = (_only(rows, field, source) for field in ("judge", "model"))
    repeated = [uid for uid, count in Counter(row["uid"] for row in rows).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} questions are judged more than once in '{source}': {', '.join(repeated[:3])}.",
            "Keep one row per question.",
        )
    found = {row["uid"]: category_of(row) for row in rows}
    categories = _checked(found, source, questions)
    baselines = {
        category: _only([row for row in rows if category_of(row) == category], "baseline", source)
        for category in dict.fromkeys(categories.values())
    }
    by_id = {row["uid"]: row for row in rows}
    return Judgments(
        source=source,
        judge=judge,
        model=model,
        categories=categories,
        baselines=baselines,
        verdicts=[_verdict(by_id[uid], game) for uid in categories for game in GAMES],
    )


def _require_format(row: Any, source: str, number: int) -> None:
    fields = ("uid", "judge", "model", "baseline")
    lacking = [f for f in fields if not (isinstance(row, dict) and isinstance(row.get(f), str) and row[f])]
    games = row.get("games") if isinstance(row, dict) else None
    if lacking or not isinstance(games, list) or len(games) > len(GAMES):
        what = f"no text `{lacking[0]}`" if lacking else "no list `games` of two"
        raise DataError(
            f"Row {number} of '{source}' has {what}.",
            "Give a file of arena-hard-auto's folder model_judgment: uid, category, judge, model, baseline, "
            "games.",
        )


def _only(rows: Sequence[dict[str, Any]], field: str, source: str) -> str:
    names = sorted({row[field] for row in rows})
    if len(names) != 1:
        raise DataError(
            f"'{source}' holds {len(names)} different values of `{field}`: {', '.join(names[:3]) or 'none'}.",
            "Score the judgments of one judge on one model against one baseline a category.",
        )
    return names[0]


def _checked(found: dict[str, str], source: str, questions: str | None) -> dict[str, str]:
    """The categories of the judged questions in set order, if the file holds exactly the set's."""
    if questions is None:
        counts = Counter(found.values())
        short = {c: n for c, n in counts.items() if n != QUESTIONS.get(c, n)}
        if short:
            listed = ", ".join(f"{n} of {QUESTIONS[c]} questions of {c}" for c, n in short.items())
            raise DataError(
                f"'{source}' differs from the published set: {listed}.", "Have the missing questions judged."
            )
        return found
    the_set = {uid: category_of(row) for uid, row in questions_by_id(questions).items()}
    judged = set(found.values())
    wanted = {uid: category for uid, category in the_set.items() if category in judged}
    missing = [uid for uid in wanted if uid not in found]
    foreign = [uid for uid, category in found.items() if the_set.get(uid) != category]
    if missing or foreign:
        raise DataError(
            f"'{source}' differs from '{questions}': {len(missing)} of its {len(wanted)} questions are not "
            f"judged{_such_as(missing)}, {len(foreign)} judged ones are not in it with that category"
            f"{_such_as(foreign)}.",
            "Give the questions of the very version that was judged, and have missing ones judged.",
        )
    return wanted


def _such_as(ids: Sequence[str]) -> str:
    return f" (such as {', '.join(ids[:3])})" if ids else ""


def _verdict(row: dict[str, Any], game: int) -> Verdict:
    played = row["games"][game] if game < len(row["games"]) else None
    label, text, cause = None, "", "the game is missing"
    if isinstance(played, dict):
        label, judgment = played.get("score"), played.get("judgment")
        text = str(judgment.get("answer", "") if isinstance(judgment, dict) else judgment or "")
        cause = "no verdict label in the judge's answer" if label is None else f"unknown label '{label}'"
    value = preference(label, policy_first=game == 1) if isinstance(label, str) else None
    return Verdict(
        evaluation=NAME,
        prompt_id=row["uid"],
        game=game,
        policy_first=game == 1,
        key=f"{row['judge']}/{row['model']}/{row['uid']}/{game}",
        preference=value,
        label=label if value is not None else None,
        error=cause if value is None else None,
        text=text,
    )
