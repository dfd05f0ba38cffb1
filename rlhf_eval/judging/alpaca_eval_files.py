"""AlpacaEval's published files: annotations rescored without a network, and what their scores need.

An annotations file is a list of objects with `instruction`, `output_1` (the baseline's answer), `output_2`
(the policy's), `preference` (1 the first is better … 2 the second) and, where it was published, `annotator`,
`generator_1` and `generator_2`. Verdicts that failed are null or not there: of the files in the project's
repository some have nulls, and some have 802 to 804 rows. A preference of 0 is an old way to write a draw
between two equal texts.

The *assets* are files of AlpacaEval's data set on the hub. `index` in them counts the rows of the 805
prompts, so they mean something only beside those prompts, by which everything is joined here.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.config.schema import AlpacaEvalConfig, JudgeConfig
from rlhf_eval.errors import DataError, JudgeError
from rlhf_eval.judging import alpaca_eval
from rlhf_eval.judging.alpaca_eval import Item, Scores, examples, finite
from rlhf_eval.judging.length_control import Regulariser
from rlhf_eval.records import user_prompt
from rlhf_eval.sources import read_rows

PROMPTS = ("alpaca_eval_gpt4_baseline.json", "alpaca_eval_gpt4_baseline.json.gz")
DIFFICULTY = "instruction_difficulty.csv"
GAMED = "df_gamed.csv"
"""The assets by the names that they have on the hub; the difficulties stand in `df_gamed.csv` too."""

FITTED_ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
FITTED_MODEL = "gpt-4-1106-preview"
FITTED_BASELINE = "gpt4_1106_preview"
"""What `df_gamed.csv` was judged with: two gamed versions of this baseline against itself."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row: two answers to an instruction, and the preference for the policy's in [0, 1] or None."""

    instruction: str
    baseline_answer: str
    answer: str
    preference: float | None


@dataclass(frozen=True, slots=True)
class Annotations:
    """A published file; names are None where it does not say them."""

    annotator: str | None
    baseline: str | None
    model: str | None
    rows: Sequence[Annotation]


@dataclass(frozen=True, slots=True)
class Rescored:
    """The scores of an annotations file.

    Attributes:
        failed: prompts without a preference, be it null or a row that is not there.
        regularised: whether the fit of the length-controlled win rate held the regulariser.
        mean_characters: of the policy's answers that were scored.
    """

    annotations: Annotations
    scores: Scores
    failed: int
    regularised: bool
    mean_characters: float

    def as_json(self) -> dict[str, Any]:
        """What `rlhf-eval score alpaca-eval --json` prints; rates and errors in percent."""
        controlled = self.scores.length_controlled
        return {
            "model": self.annotations.model,
            "judge": self.annotations.annotator,
            "baseline": self.annotations.baseline,
            "n": len(self.scores.prompt_ids),
            "failed": self.failed,
            "win_rate": 100 * self.scores.win_rate,
            "standard_error": 100 * self.scores.standard_error,
            "length_controlled_win_rate": 100 * controlled.win_rate if controlled else None,
            "length_controlled_standard_error": 100 * controlled.standard_error if controlled else None,
            "regularised": self.regularised,
            "length_control": controlled.fit if controlled else "not fitted: too few prompts",
            "mean_characters": self.mean_characters,
        }


def score_annotations(source: str, assets: Path | None, max_failed_share: float) -> Rescored:
    """Score a published annotations file.

    With the assets, rows are joined to the 805 prompts by instruction and fitted in their order; without
    them the fit has neither difficulty nor regulariser, and the rows are taken in the order of their ids,
    so that no result depends on the order in the file.

    Args:
        source: the file, `.json` or `.jsonl`, each also `.gz`.
        assets: folder of local copies of the assets.
        max_failed_share: above this share of prompts without a preference the score is refused.

    Raises:
        DataError: a file is missing or malformed, or the instructions are not those of the set.
        JudgeError: too many prompts have no preference.
    """
    annotations = read_annotations(source)
    fitted = fitted_to(annotations.annotator, annotations.baseline)
    regulariser = read_regulariser(str(_asset(assets, GAMED))) if assets and fitted else None
    items = _published_set(assets) if assets else _own_set(annotations)
    by_id = {alpaca_eval.prompt_id(row.instruction): row for row in annotations.rows}
    _require_same_set(source, items, by_id)
    preferences = {key: row.preference for key, row in by_id.items() if row.preference is not None}
    _require_verdicts(source, len(items), len(preferences), len(items) - len(by_id), max_failed_share)
    answers = {key: row.answer for key, row in by_id.items()}
    scored = [
        replace(item, reference=by_id[item.prompt.id].baseline_answer)
        for item in items
        if item.prompt.id in preferences
    ]
    return Rescored(
        annotations,
        alpaca_eval.score_preferences(scored, answers, preferences, regulariser),
        failed=len(items) - len(preferences),
        regularised=regulariser is not None,
        mean_characters=sum(len(answers[key]) for key in preferences) / len(preferences),
    )


def fitted_to(annotator: str | None, baseline: str | None, model: str = FITTED_MODEL) -> bool:
    """Whether the regulariser belongs to preferences of this annotator, asked of this model."""
    return (annotator, model, baseline) == (FITTED_ANNOTATOR, FITTED_MODEL, FITTED_BASELINE)


def regulariser_for(config: AlpacaEvalConfig, judge: JudgeConfig, baseline: str) -> Regulariser | None:
    """The regulariser of a run's length-controlled fit; None where there is none, or for another judge.

    Args:
        baseline: who wrote the reference outputs, as `alpaca_eval.baseline` says it.

    Raises:
        DataError: the source is missing or malformed.
    """
    fitted = fitted_to(config.annotator, baseline, judge.model)
    return read_regulariser(config.regulariser) if config.regulariser and fitted else None


def read_regulariser(source: str) -> Regulariser:
    """The rows of `df_gamed.csv`, in its order.

    Raises:
        DataError: the file is missing, lacks a column, holds what is no number, or is not complete.
    """
    rows = read_rows(source)
    try:
        columns = [
            np.array([finite(row[name]) for row in rows])
            for name in ("preference", "std_delta_len", "instruction_difficulty")
        ]
        prompts = Counter(int(row["index"]) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"'{source}' is no table of gamed answers: {error!r}.",
            f"Give AlpacaEval's {GAMED}, with preference, index, std_delta_len and instruction_difficulty.",
        ) from None
    if not rows or sorted(prompts) != list(range(len(prompts))) or len(set(prompts.values())) != 1:
        raise DataError(
            f"'{source}' is not complete: its {len(rows)} rows do not hold every prompt equally often.",
            f"Fetch AlpacaEval's {GAMED} again; it has two rows for each of 805 prompts.",
        )
    return Regulariser(*columns)


def read_annotations(source: str) -> Annotations:
    """An annotations file, checked row by row.

    Raises:
        DataError: malformed, a row without its texts, a preference out of [1, 2], an instruction that stands
            twice, or rows of several annotators, baselines or models.
    """
    rows = read_rows(source)
    if not rows:
        raise DataError(f"'{source}' holds no annotations.", "Give AlpacaEval's annotations.json.")
    read = [_annotation(row, f"Row {number} of '{source}'") for number, row in enumerate(rows)]
    repeated = [text for text, count in Counter(row.instruction for row in read).items() if count > 1]
    if repeated:
        raise DataError(
            f"{len(repeated)} instructions stand more than once in '{source}': {examples(repeated)}.",
            "Keep one row per instruction, of one model.",
        )
    return Annotations(
        annotator=_one_name(source, rows, "annotator"),
        baseline=_one_name(source, rows, "generator_1"),
        model=_one_name(source, rows, "generator_2"),
        rows=read,
    )


def _annotation(row: Mapping[str, Any], where: str) -> Annotation:
    fields = ("instruction", "output_1", "output_2")
    texts = [row[field] for field in fields if isinstance(row.get(field), str)]
    if len(texts) < len(fields):
        raise DataError(
            f"{where} has no texts `instruction`, `output_1` and `output_2`.",
            "Give a list of objects with these and `preference`, as AlpacaEval's annotations.json.",
        )
    if "preference" not in row:
        raise DataError(f"{where} has no `preference`.", "Write null where the annotation failed.")
    instruction, baseline_answer, answer = texts
    return Annotation(
        instruction, baseline_answer, answer, _share(row["preference"], baseline_answer == answer, where)
    )


def _share(preference: Any, same_texts: bool, where: str) -> float | None:
    """The preference for the second answer in [0, 1]."""
    if preference is None:
        return None
    is_number = isinstance(preference, int | float) and not isinstance(preference, bool)
    if is_number and preference == 0 and same_texts:
        return 0.5
    if not (is_number and 1 <= preference <= 2):
        raise DataError(
            f"{where}: the preference {preference!r} is no number from 1 (the first is better) to 2.",
            "Correct it, or write null where the annotation failed.",
        )
    return float(preference) - 1


def _one_name(source: str, rows: Sequence[Mapping[str, Any]], field: str) -> str | None:
    names = sorted({str(row[field]) for row in rows if row.get(field) is not None})
    if len(names) > 1:
        raise DataError(
            f"'{source}' mixes {len(names)} values of `{field}`: {', '.join(names[:3])}.",
            "Give one file for each.",
        )
    return names[0] if names else None


def _published_set(assets: Path) -> list[Item]:
    prompts = next((path for name in PROMPTS if (path := assets / name).is_file()), assets / PROMPTS[0])
    difficulty = next((path for name in (DIFFICULTY, GAMED) if (path := assets / name).is_file()), None)
    return alpaca_eval.load(
        AlpacaEvalConfig(str(_asset(assets, prompts.name)), str(difficulty or _asset(assets, DIFFICULTY)))
    )


def _own_set(annotations: Annotations) -> list[Item]:
    by_id = {alpaca_eval.prompt_id(row.instruction): row for row in annotations.rows}
    return [
        Item(user_prompt(key, row.instruction), row.baseline_answer, annotations.baseline or "", None)
        for key, row in sorted(by_id.items())
    ]


def _asset(assets: Path, name: str) -> Path:
    path = assets / name
    if not path.is_file():
        raise DataError(
            f"There is no {name} in the folder of assets '{assets}'.",
            "Put a copy there: `hf download tatsu-lab/alpaca_eval --repo-type dataset --local-dir "
            f"{assets} {name}`.",
        )
    return path


def _require_same_set(source: str, items: Sequence[Item], by_id: Mapping[str, Annotation]) -> None:
    """Refuse rows on other prompts; rows that are missing count as failed."""
    known = {item.prompt.id for item in items}
    strange = [row.instruction for key, row in by_id.items() if key not in known]
    if strange:
        missing = len(known - by_id.keys())
        raise DataError(
            f"'{source}' is not about the {len(items)} prompts of the assets: {len(strange)} instructions "
            f"are strange to them, such as {examples(strange)}; {missing} are missing.",
            "Give the prompts that these annotations were made on, or score without --assets.",
        )


def _require_verdicts(source: str, n: int, judged: int, missing: int, max_failed_share: float) -> None:
    failed = n - judged
    if failed > max_failed_share * n or not judged:
        raise JudgeError(
            f"'{source}' has no preference for {failed} of {n} prompts ({failed / n:.1%}, allowed are "
            f"{max_failed_share:.1%}): {failed - missing} are null, {missing} have no row.",
            "Have these annotated again, or raise --max-failed-share.",
        )
