"""The columns of the table of runs (`analysis/table.py`): type, unit and meaning, in the table's order."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a family of them.

    Attributes:
        name: a family's ends in "*", which stands for any name.
        dtype: pandas' nullable type: string, boolean, Int64 or Float64. What is missing is NA.
        unit: empty where there is none.
        place: what it is of: "run" stands in every row of a run, "checkpoint" in the checkpoint's, and
            "result" in the run's final row only, so that no mean over rows counts a run more than once.
    """

    name: str
    dtype: str
    unit: str
    place: str
    meaning: str


def _columns(place: str, *rows: tuple[str, str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(name, dtype, unit, place, meaning) for name, dtype, unit, meaning in rows)


SUSPICIOUS = {
    "empty": "are empty",
    "constant": "are the same for three prompts or more",
    "repeats itself": "for the most part repeat themselves",
    "addresses the judge": "speak to the judge",
    "truncated": "were cut at the token limit",
}


def suspicious_column(evaluation: str, what: str) -> str:
    """Where a share of `suspicious_answers` in `scores.json` stands."""
    return f"{evaluation}.suspicious.{what.replace(' ', '_')}"


def _evaluation(name: str, title: str, *scores: tuple[str, str, str, str]) -> tuple[Column, ...]:
    return _columns(
        "result",
        *((f"{name}.{field}", dtype, unit, meaning) for field, dtype, unit, meaning in scores),
        (f"{name}.n", "Int64", "prompts", f"{title} prompts with a verdict"),
        (f"{name}.failed", "Int64", "prompts", f"{title} prompts whose every verdict failed"),
        (f"{name}.mean_characters", "Float64", "characters", "mean length of the answers"),
        (f"{name}.baseline", "string", "", "whose answers the policy's were compared to"),
        *(
            (suspicious_column(name, what), "Float64", "%", f"share of answers that {meaning}")
            for what, meaning in SUSPICIOUS.items()
        ),
    )


COLUMNS = (
    *_columns(
        "run",
        ("experiment", "string", "", "name of the folder in which the run stands"),
        ("run", "string", "", "name of the run's directory"),
        ("run_directory", "string", "", "the run's directory, relative to the folder that was read"),
        ("reward_model", "string", "", "what is under evaluation"),
        ("control", "boolean", "", "whether it is a control, no candidate"),
        ("kind", "string", "", "its kind; `untrained` is the policy base itself"),
        ("base_model", "string", "", "the model that it was initialised from, by its card: its lineage"),
        ("policy", "string", "", "the policy base that was trained"),
        ("algorithm", "string", "", "how it was trained"),
        ("seed", "Int64", "", "seed of training and sampling"),
        ("hash8", "string", "", "end of the directory's name: hash of the fields that change results"),
        ("grid.*", "Float64", "", "the run's value of a field of the experiment's grid; a string where the "
         "field's values are no numbers"),
        ("chosen", "boolean", "", "whether the run is at its reward model's chosen point of the grid; NA "
         "without a grid, of an unfinished run and of one directory read alone"),
        ("duplicate", "boolean", "", "whether another run of the experiment has the same configuration; "
         "NA of one directory read alone"),
        ("state", "string", "", "`done`, or where the run is and what it failed of"),
        ("finished", "boolean", "", "whether its score stage is done"),
        ("judge", "string", "", "name of the judge"),
        ("judge_model", "string", "", "model that the judge's endpoint was asked for"),
        ("prompts", "string", "", "name of the selection of prompts"),
        ("prompts_sha256", "string", "", "hash of that selection, and of its files' contents as far as the "
         "manifest has them: where it is equal, runs had the same prompts"),
        ("commit", "string", "", "commit of the code that made the run"),
        ("dirty", "boolean", "", "whether that checkout had changes (they are in the run's code.diff)"),
        ("started", "string", "UTC", "when the manifest was written, ISO 8601"),
    ),
    *_columns(
        "checkpoint",
        ("step", "Int64", "updates", "training step of the checkpoint; of best-of-N it is N"),
        ("kl", "Float64", "nats", "KL divergence from the initial policy, per completion"),
        ("proxy_reward", "Float64", "sd", "mean reward on held-out prompts, in standard deviations of the "
         "initial policy's samples"),
        ("gold_reward", "Float64", "", "mean score of the gold reward model on held-out prompts"),
        ("length_tokens", "Float64", "tokens", "mean length of completions of held-out prompts"),
        ("entropy", "Float64", "nats", "mean entropy of the policy per token"),
        ("reward_variance", "Float64", "sd²", "mean variance of proxy rewards within a prompt"),
        ("zero_variance_share", "Float64", "", "share of prompts whose rewards are all equal"),
        ("completions", "Int64", "", "held-out completions that were measured"),
        ("final", "boolean", "", "whether it is the run's last checkpoint, or its only row: scores, "
         "benchmarks and totals stand in this row"),
        ("peak", "boolean", "", "whether it is the trained checkpoint with the highest held-out gold reward, "
         "or proxy reward where there is no gold"),
    ),
    *_evaluation(
        "alpaca_eval",
        "AlpacaEval",
        ("win_rate", "Float64", "%", "AlpacaEval win rate of the final policy"),
        ("standard_error", "Float64", "points", "its standard error over prompts"),
        ("length_controlled_win_rate", "Float64", "%", "length-controlled win rate"),
        ("length_controlled_standard_error", "Float64", "points", "its standard error over prompts"),
        ("regularised", "boolean", "", "whether AlpacaEval's own regulariser was in the fit"),
    ),
    *_evaluation(
        "arena_hard",
        "Arena-Hard",
        ("score", "Float64", "%", "Arena-Hard score of the final policy"),
        ("standard_error", "Float64", "points", "its standard error over prompts"),
        ("style_controlled_score", "Float64", "%", "style-controlled score"),
        ("style_controlled_standard_error", "Float64", "points", "its standard error over prompts"),
        ("position_consistency", "Float64", "%", "share of prompts on which both games agree"),
    ),
    *_columns(
        "result",
        ("gold.mean", "Float64", "", "mean score of the gold reward model on the evaluations' answers"),
        ("gold.n", "Int64", "answers", "answers that it could score"),
        ("second_judge.*", "Float64", "%", "a score by another judge: second_judge.<judge>.<score's column>"),
        ("benchmark.*", "Float64", "%", "the reward model's accuracy on a benchmark"),
        ("benchmark_low.*", "Float64", "%", "lower end of its 95 % interval"),
        ("benchmark_high.*", "Float64", "%", "upper end of its 95 % interval"),
        ("benchmark_n.*", "Int64", "items", "items that it is over"),
        ("training_seconds", "Float64", "s", "time of all training steps together"),
        ("training_steps", "Int64", "steps", "training steps that were done"),
        ("no_gradient_steps", "Int64", "steps", "those of them in which the rewards gave the policy nothing "
         "to learn from"),
    ),
)  # fmt: skip


def named(name: str) -> Column:
    """The column of a name, or the family that it belongs to."""
    return next(c for c in COLUMNS if c.name == name or (c.name[-1] == "*" and name.startswith(c.name[:-1])))


def in_order(names: Iterable[str]) -> list[str]:
    """All columns that are no family, and of families those that are given, in the table's order."""
    given = sorted(set(names))
    return [
        name
        for column in COLUMNS
        for name in (
            [n for n in given if n.startswith(column.name[:-1])] if column.name[-1] == "*" else [column.name]
        )
    ]
