"""Arena-Hard (Li et al. 2024, arXiv:2406.11939), v0.1 and v2.0: questions, games, verdicts, plain score.

Every question is judged in two games with the sides swapped; game 0 shows the baseline as assistant A. A
game becomes *battle rows*, each 1, ½ or 0 for the policy: one row for a slight win or a tie, three for a
clear one. The score is the mean of all battle rows.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np

from rlhf_eval.config.schema import ArenaHardConfig, JudgeConfig
from rlhf_eval.errors import DataError
from rlhf_eval.judging.alpaca_eval import fill
from rlhf_eval.judging.question import JudgeAnswer, Question, Reading, UnreadableAnswer, sampling
from rlhf_eval.records import Prompt, Verdict, user_prompt
from rlhf_eval.sources import read_rows, resolve

NAME = "arena_hard"
GAMES = (0, 1)
CLEAR_WIN_ROWS = 3
BOOTSTRAPS = 1000
USER_TEMPLATE = (
    "<|User Prompt|>\n{question}\n\n"
    "<|The Start of Assistant A's Answer|>\n{answer_a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{answer_b}\n<|The End of Assistant B's Answer|>"
)
"""Arena-Hard's layout of one game; the marks are part of its format."""

_PREFERENCE_OF_A = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
_PATTERNS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))


@dataclass(frozen=True, slots=True)
class Item:
    """One question with the baseline's answer."""

    prompt: Prompt
    baseline_answer: str
    baseline: str


@dataclass(frozen=True, slots=True)
class Scores:
    """Plain score of one policy; score and error in [0, 1].

    Attributes:
        prompt_ids: the questions whose two games both have a verdict, in set order.
        values: shape (questions,): the share of each question in the score, see `question_values`.
    """

    prompt_ids: list[str]
    values: np.ndarray
    score: float
    standard_error: float


def load(config: ArenaHardConfig) -> list[Item]:
    """The questions in their own order, each with the baseline's answer.

    Raises:
        DataError: a row is not in the published format, an id stands twice, or answers are missing.
    """
    questions = _by_uid(config.questions, "prompt")
    answers = _by_uid(config.baseline_answers, "messages")
    chosen = list(questions.items())[: config.limit]
    missing = [uid for uid, _ in chosen if uid not in answers]
    if missing:
        raise DataError(
            f"'{config.baseline_answers}' lacks {len(missing)} of {len(chosen)} questions, such as "
            f"{', '.join(missing[:3])}.",
            f"Give the baseline's answers to '{config.questions}'.",
        )
    return [
        Item(
            prompt=user_prompt(uid, row["prompt"]),
            baseline_answer=_answer_text(answers[uid], config),
            baseline=str(answers[uid].get("model", "baseline")),
        )
        for uid, row in chosen
    ]


def baseline(items: Sequence[Item]) -> str:
    """Who wrote the baseline's answers (v2.0 has two baselines, one for each kind of question)."""
    return ", ".join(sorted({item.baseline for item in items}))


def system_prompt(judge: JudgeConfig) -> str:
    """The judge's instructions: those named in the configuration, else the project's own."""
    if judge.arena_hard_prompt is not None:
        return resolve(judge.arena_hard_prompt).read_text(encoding="utf-8").strip()
    return (files("rlhf_eval.judging") / "arena_hard_judge.txt").read_text(encoding="utf-8").strip()


def questions(items: Sequence[Item], answers: Mapping[str, str], judge: JudgeConfig) -> list[Question]:
    """Two games per question, the second with the sides swapped.

    Args:
        answers: the policy's answer by prompt id; every prompt has one.
    """
    system = {"role": "system", "content": system_prompt(judge)}
    user = [("user", USER_TEMPLATE)]
    parameters = sampling(judge)

    def question(item: Item, game: int) -> Question:
        policy_first = game == 1
        policy, other = answers[item.prompt.id], item.baseline_answer
        a, b = (policy, other) if policy_first else (other, policy)
        texts = {"question": item.prompt.instruction, "answer_a": a, "answer_b": b}
        return Question(
            evaluation=NAME,
            prompt_id=item.prompt.id,
            game=game,
            policy_first=policy_first,
            messages=[system, *fill(user, texts)],
            parameters=parameters,
            endpoint=judge.serve,
            read=partial(read, policy_first=policy_first),
        )

    return [question(item, game) for item in items for game in GAMES]


def parse_label(text: str) -> str | None:
    """The last known label in double brackets, else the last one in single brackets, else None.

    Text is upper-cased first. Other bracketed letters, as in code (`a[b]`), are no labels.
    """
    for pattern in _PATTERNS:
        known = [label for label in pattern.findall(text.upper()) if label in _PREFERENCE_OF_A]
        if known:
            return known[-1]
    return None


def read(answer: JudgeAnswer, policy_first: bool) -> Reading:
    """The label of an answer and what it says of the policy.

    Raises:
        UnreadableAnswer: there is no label.
    """
    label = parse_label(answer.text)
    if label is None:
        cut = " (cut off at the token limit)" if answer.finish == "length" else ""
        raise UnreadableAnswer(f"no verdict label in the judge's answer{cut}")
    of_a = _PREFERENCE_OF_A[label]
    return Reading(of_a if policy_first else 1 - of_a, label)


def battle_rows(verdict: Verdict) -> int:
    """How many battle rows a verdict counts."""
    return CLEAR_WIN_ROWS if verdict.label in ("A>>B", "B>>A") else 1


def score(items: Sequence[Item], verdicts: Sequence[Verdict]) -> Scores:
    """The plain score over the questions whose two games both have a verdict.

    A question with a failed game is left out whole: one game alone would carry the judge's position bias.
    The standard error comes from a bootstrap that resamples questions, since the rows of one question
    belong together; resampling rows, as the original does, halves it.
    """
    by_question: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.preference is not None:
            by_question.setdefault(verdict.prompt_id, []).append(verdict)
    ids = [item.prompt.id for item in items if len(by_question.get(item.prompt.id, ())) == len(GAMES)]
    rows = np.array([sum(battle_rows(v) for v in by_question[i]) for i in ids], dtype=np.float64)
    wins = np.array([sum(battle_rows(v) * (v.preference or 0.0) for v in by_question[i]) for i in ids])
    draws = np.random.default_rng(0).integers(0, len(ids), size=(BOOTSTRAPS, len(ids)))
    resampled = wins[draws].sum(axis=1) / rows[draws].sum(axis=1)
    return Scores(
        prompt_ids=ids,
        values=question_values(wins, rows),
        score=float(wins.sum() / rows.sum()),
        standard_error=float(resampled.std(ddof=1)),
    )


def question_values(wins: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The share of each question in the score, so that their plain mean *is* the score.

    The official score is a ratio of sums, Σ wins / Σ rows, in which a question with clear verdicts weighs up
    to three times as much as one without. With R the score and r̄ the mean number of rows, question q gets

        v_q = R + (wins_q − R · rows_q) / r̄

    The mean of v is R exactly, and resampling v reproduces, to first order, the sampling error of the ratio
    (Cochran 1977, ratio estimator), so that a paired bootstrap over prompts needs no weights. Where all
    questions have equally many rows, v_q is simply wins_q / rows_q; otherwise it can leave [0, 1].

    Args:
        wins: shape (questions,), sum of the battle rows.
        rows: shape (questions,), number of battle rows.
    """
    ratio = wins.sum() / rows.sum()
    return ratio + (wins - ratio * rows) / rows.mean()


def _by_uid(source: str, field: str) -> dict[str, dict[str, Any]]:
    rows = read_rows(source)
    for number, row in enumerate(rows):
        if not row.get("uid") or not row.get(field):
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


def _answer_text(row: dict[str, Any], config: ArenaHardConfig) -> str:
    """The last message's text; v2.0 and re-released v0.1 files wrap it as {"answer": …}."""
    content = row["messages"][-1].get("content")
    text = content.get("answer") if isinstance(content, dict) else content
    if not isinstance(text, str):
        raise DataError(
            f"The baseline's answer to {row['uid']} in '{config.baseline_answers}' is no text.",
            "The last message must hold a text, or an object with the text as `answer`.",
        )
    return text
