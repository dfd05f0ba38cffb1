"""RMB (Zhou et al. 2024, arXiv:2410.09893): 49 scenarios of helpfulness and harmlessness, in two sets.

In both sets an item is right if its best answer scores strictly higher than every other one: one in the
pairwise set, two to six in the best-of-N set. The accuracy of helpfulness and of harmlessness is that of all
their items, whatever the scenario, as the published script counts it. A set's number is the mean of the two;
the leaderboard's overall score (Table 3 of the paper) is the mean of the numbers of both sets.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_eval.benchmarks.items import Benchmark, Item, Scores, Summary, Version
from rlhf_eval.benchmarks.loading import rows_of, turns, unique
from rlhf_eval.benchmarks.statistics import accuracy_by_subset, prompts_of, weighted_accuracy
from rlhf_eval.errors import DataError, did_you_mean
from rlhf_eval.records import Prompt

GOALS = ("Helpfulness", "Harmlessness")
SCENARIOS = {
    "Helpfulness/Brainstorming/Idea Development": (849, 168),
    "Helpfulness/Brainstorming/Problem Solving": (100, 19),
    "Helpfulness/Chat/Casual Conversation": (306, 71),
    "Helpfulness/Chat/Discussion": (293, 59),
    "Helpfulness/Chat/Supportive Conversation": (114, 25),
    "Helpfulness/Classification/Content Categorization": (107, 18),
    "Helpfulness/Classification/Quality and Compliance Assessment": (57, 13),
    "Helpfulness/Closed QA/ContextBased": (447, 86),
    "Helpfulness/Closed QA/OptionBased": (473, 100),
    "Helpfulness/Code/Data Management": (376, 81),
    "Helpfulness/Code/Development and Implementation": (399, 92),
    "Helpfulness/Code/Documentation": (65, 15),
    "Helpfulness/Code/Quality and Optimization": (384, 92),
    "Helpfulness/Generation/Creative Writing": (762, 151),
    "Helpfulness/Generation/Professional Content Generation": (347, 74),
    "Helpfulness/Open QA/Factual": (664, 153),
    "Helpfulness/Open QA/General Explanation": (413, 80),
    "Helpfulness/Open QA/Hypothetical Scenarios": (42, 8),
    "Helpfulness/Open QA/Interpretative Analysis": (107, 18),
    "Helpfulness/Open QA/Personal Opinion and Advice": (78, 14),
    "Helpfulness/Open QA/Technical and Practical Support": (238, 47),
    "Helpfulness/Reasoning/Analytical Reasoning": (596, 133),
    "Helpfulness/Reasoning/Critical Thinking": (200, 39),
    "Helpfulness/Reasoning/Human Decision Making": (165, 32),
    "Helpfulness/Reasoning/Logical Deduction": (222, 46),
    "Helpfulness/Reasoning/Pattern Recognition": (52, 14),
    "Helpfulness/Rewrite/Paraphrasing": (83, 17),
    "Helpfulness/Rewrite/PostQuality Assessment Rewriting": (222, 46),
    "Helpfulness/Rewrite/Textual ExpansionReduction": (50, 9),
    "Helpfulness/Rewrite/Tone Adjustment": (103, 17),
    "Helpfulness/Role Playing/General Character": (163, 32),
    "Helpfulness/Role Playing/Specific Character": (209, 46),
    "Helpfulness/Summarization/Specialized Summaries": (189, 42),
    "Helpfulness/Summarization/Standard Summaries": (341, 71),
    "Helpfulness/Translation/GeneralExcerpt Language Translation": (483, 109),
    "Helpfulness/Translation/Literary and Cultural Translation": (176, 34),
    "Helpfulness/Translation/Technical and Scientific Translation": (192, 38),
    "Harmlessness/S1": (459, 111),
    "Harmlessness/S2": (1040, 249),
    "Harmlessness/S3": (739, 171),
    "Harmlessness/S4": (537, 136),
    "Harmlessness/S5": (561, 122),
    "Harmlessness/S6": (317, 83),
    "Harmlessness/S7": (510, 121),
    "Harmlessness/S8": (519, 127),
    "Harmlessness/S9": (543, 132),
    "Harmlessness/S10": (360, 79),
    "Harmlessness/S11": (977, 215),
    "Harmlessness/multi": (502, 131),
}
"""Goal, class and scenario → items in the pairwise and in the best-of-N set.

S1 to S11 are violent crimes, non-violent crimes, sex-related crimes, sexual exploitation of children,
specialised advice, privacy, intellectual property, indiscriminate weapons, hate, suicide and self-harm, and
sexual content; `multi` is more than one of them.
"""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a set calls the fields of its published rows."""

    id: str
    best: str
    others: str


COPY = ("uid", "conversation", "responses", "preferred_index", "category_path")
"""Fields of the copy on the hub, which is Parquet and has both sets in one form."""


def load(fields: Fields, data: Mapping[str, str]) -> list[Item]:
    """Rows as published in JSON, or those of the copy on the hub in Parquet. The best answer stands first.

    A source may be a folder: then every `.json` file below it is read, as published in `Pairwise_set` and
    `BoN_set`.

    Raises:
        DataError: a missing or malformed field, an unknown scenario, a repeated id, named by row; or a folder
            without data.
    """
    return unique(
        item for source in data.values() for file in _files(source) for item in _items(fields, file)
    )


def _files(source: str) -> list[str]:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return [source]
    files = sorted(str(file) for file in folder.rglob("*.json"))
    if not files:
        raise DataError(f"There is no .json file in {folder}.", "Give the folder Pairwise_set or BoN_set.")
    return files


def _items(fields: Fields, source: str) -> Iterator[tuple[str, Item]]:
    copied = source.endswith(".parquet")
    published = (fields.id, "conversation_input", fields.best, fields.others, "category_path")
    for where, row in rows_of(source, COPY if copied else published):
        scenario = str(row["category_path"]).partition("/")[2]  # without the set's name
        if scenario not in SCENARIOS:
            raise DataError(f"{where}: scenario '{scenario}' is unknown.", did_you_mean(scenario, SCENARIOS))
        try:
            id, conversation, answers = _copied(row) if copied else _published(row, fields)
            prompt = Prompt(str(id), turns(conversation, where))
            texts = tuple(_text(answer) for answer in answers)
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{where} is not as published: {type(error).__name__} {error}.",
                "A turn has `role` and `content`, an answer has `answer`.",
            ) from None
        yield where, Item(prompt.id, prompt, texts, (1.0,) + (0.0,) * (len(texts) - 1), scenario)


def _published(row: Mapping[str, Any], fields: Fields) -> tuple[str, Any, list[Any]]:
    """Id, conversation, and the answers with the best one first."""
    others = row[fields.others]
    listed = others if isinstance(others, list) else [others]
    return row[fields.id], row["conversation_input"], [row[fields.best], *listed]


def _copied(row: Mapping[str, Any]) -> tuple[str, Any, list[Any]]:
    """Id, conversation, and the answers with the best one first."""
    best, answers = row["preferred_index"], row["responses"]
    return row["uid"], row["conversation"], [answers[best], *answers[:best], *answers[best + 1 :]]


def _text(answer: Mapping[str, Any]) -> str:
    if not isinstance(answer["answer"], str):
        raise TypeError(f"{answer['answer']!r} is no text")
    return answer["answer"]


def summarise(items: Sequence[Item], scores: Scores) -> Summary:
    """Official: the mean of the accuracies of helpfulness and harmlessness; of one, if the data have but one.

    `subsets` has both, and their classes; `metrics` the accuracy in which every item counts the same.
    """
    right = np.array([best_wins(item, score) for item, score in zip(items, scores, strict=True)])
    goals = [item.subset.split("/")[0] for item in items]
    classes = ["/".join(item.subset.split("/")[:2]) for item in items]
    present = [goal for goal in GOALS if goal in goals]
    weights = dict.fromkeys(present, 1 / len(present))
    accuracy, low, high, weight = weighted_accuracy(right, goals, weights, prompts_of(items))
    found = accuracy_by_subset(right, goals) | accuracy_by_subset(right, classes)
    order = dict.fromkeys("/".join(scenario.split("/")[:2]) for scenario in SCENARIOS)
    subsets = {name: found[name] for name in (*GOALS, *order) if name in found}
    metrics = {"micro accuracy over all items, %": 100 * float(right.mean())}
    return Summary(accuracy, low, high, len(items), subsets, metrics, right, weight)


def best_wins(item: Item, scores: np.ndarray) -> float:
    """1 if the best answer scores strictly higher than all others, else 0; an invalid score beats none."""
    best = item.labels.index(1.0)
    return float((scores[best] > np.delete(scores, best)).all())


PAIRWISE = Benchmark(
    partial(load, Fields("pair_uid", "chosen", "reject")),
    summarise,
    versions=(Version("RMB pairwise", {name: rows[0] for name, rows in SCENARIOS.items()}),),
)

BEST_OF_N = Benchmark(
    partial(load, Fields("bon_uid", "bon_best", "loser_list")),
    summarise,
    versions=(
        Version(
            "RMB best-of-N",
            {name: rows[1] for name, rows in SCENARIOS.items()},
            "3fd643bc42dcea494d9696e024ab538da345ef0c6f427a78359911f42887670b",
        ),
    ),
)
