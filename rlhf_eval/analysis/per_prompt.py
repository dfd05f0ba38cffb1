"""A run's outcomes prompt by prompt: `stages/score/per_prompt.jsonl` as arrays.

A thousand runs hold more than a million lines. pyarrow reads them in bulk; a file that it refuses is read
line by line, which mends a torn end and finds the place of a mistake.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.errors import DataError
from rlhf_eval.files import read_jsonl

NUMBERS = ("value", "length_controlled", "characters", "gold")
CURE = "Delete the run's stages/score folder and run it again."


@dataclass(frozen=True, slots=True, eq=False)
class PromptScores:
    """One evaluation's outcome of one run, prompt by prompt; all arrays have shape (prompts,).

    Attributes:
        prompt_ids: the prompts with a verdict; a prompt whose every verdict failed is absent.
        value: in [0, 1], 1 = the policy's answer is better than the baseline's.
        length_controlled: the same with the effect of length taken out; NaN where it does not exist.
        characters: length of the policy's answer.
        gold: the gold reward model's score of the answer; NaN where there is none.
    """

    prompt_ids: tuple[str, ...]
    value: np.ndarray
    length_controlled: np.ndarray
    characters: np.ndarray
    gold: np.ndarray


def read_per_prompt(path: Path) -> dict[str, PromptScores]:
    """The file by evaluation, in the order of its lines.

    Raises:
        DataError: it is absent or damaged, or holds a prompt of an evaluation twice.
    """
    from pyarrow.compute import equal  # type: ignore[attr-defined]

    table = _table(path)
    if table["evaluation"].null_count or table["prompt_id"].null_count:
        raise DataError(f"{path} holds a line without evaluation or prompt_id.", CURE)
    return {
        name: _prompt_scores(path, table.filter(equal(table["evaluation"], name)))
        for name in table["evaluation"].unique().to_pylist()
    }


def _table(path: Path) -> Any:
    import pyarrow as pa
    from pyarrow.json import ParseOptions, ReadOptions, read_json

    schema = pa.schema(
        [("evaluation", pa.string()), ("prompt_id", pa.string()), *((name, pa.float64()) for name in NUMBERS)]
    )
    try:
        found = read_json(
            path,
            read_options=ReadOptions(use_threads=False),
            parse_options=ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
        found.validate(full=True)  # texts that are not UTF-8
    except (ValueError, FileNotFoundError):
        rows = read_jsonl(path)
        try:
            found = pa.Table.from_pylist(rows, schema)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} does not hold the scores of prompts: {error}.", CURE) from error
    return found


def _prompt_scores(path: Path, table: Any) -> PromptScores:
    prompt_ids = tuple(table["prompt_id"].to_pylist())
    if len(set(prompt_ids)) < len(prompt_ids):
        raise DataError(f"{path} holds a prompt twice.", CURE)
    # Missing becomes NaN; a copy, so that no array keeps the whole file in memory.
    return PromptScores(prompt_ids, *(np.array(table[name].to_numpy(), dtype=np.float64) for name in NUMBERS))
