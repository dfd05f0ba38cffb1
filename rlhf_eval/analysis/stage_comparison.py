"""Whether two runs gave the same, stage by stage: identical, within a stated tolerance, or different."""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rlhf_eval.analysis.drift import STAGES
from rlhf_eval.files import read_json, read_jsonl, sha256_json

IDENTICAL, TOLERATED, DIFFERENT = "identical", "within tolerance", "different"
NOT_COMPARED, TAKEN = "not compared", "taken over"
EVALUATIONS = ("alpaca_eval", "arena_hard")
COLUMNS = (("value", 100, " points"), ("length_controlled", 100, " points"), ("gold", 1, ""))
"""What is compared of each prompt, and what it is shown in."""
ACCURACY_POINTS = 1.0
TRAINED_SHARE = 0.1
LENGTH_SHARE = 0.05
AGREEMENT_SHARE = 0.95
PREFERENCE_STEP = 0.1
STANDARD_ERRORS = 3.0
_SLACK = 1e-9


class _Missing(Exception):
    """What a comparison would need is not there."""


@dataclass(frozen=True)
class StageComparison:
    """What became of one stage in two runs.

    Attributes:
        outcome: one of `IDENTICAL`, `TOLERATED`, `DIFFERENT`; `TAKEN` where the one run took the other's
            work over, `NOT_COMPARED` where something is missing.
        found: what was measured.
        tolerance: what would still be taken for the same, and why.
        files: the outputs whose contents differ.
    """

    stage: str
    outcome: str
    found: str
    tolerance: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """When two results of a stage that are not the same bytes are the same for all that matters.

    Attributes:
        compare: two run directories → whether they are, and what was measured.
        tolerance: the rule in words, and its reason.
    """

    compare: Callable[[Path, Path], tuple[bool, str]]
    tolerance: str


def compare_stages(first: Path, second: Path) -> list[StageComparison]:
    """Every stage of two run directories.

    Raises:
        DataError: a file of a finished stage is damaged.
    """
    return [_compare_stage(stage, first, second) for stage in STAGES]


def curves(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of metrics.jsonl, `train` and `checkpoint`, by step and without what took time; a resumed run's
    last word on a step counts."""
    found: dict[str, dict[int, dict[str, Any]]] = {"train": {}, "checkpoint": {}}
    file = run / "metrics.jsonl"
    for row in read_jsonl(file) if file.exists() else []:
        kept = {name: value for name, value in row.items() if not name.endswith("seconds")}
        found.setdefault(row["kind"], {})[row["step"]] = kept
    return {kind: [row for _, row in sorted(rows.items())] for kind, rows in found.items()}


def _compare_stage(stage: str, first: Path, second: Path) -> StageComparison:
    rule = RULES[stage]
    done = [_done(run, stage) for run in (first, second)]
    if not all(done):
        where = first if not done[0] else second
        return StageComparison(stage, NOT_COMPARED, f"not finished in {where}", rule.tolerance)
    if any("taken_from" in marker for marker in done) and _output_hash(done[0]) == _output_hash(done[1]):
        return StageComparison(stage, TAKEN, "not executed again", rule.tolerance)
    ours, theirs = ({name: output["sha256"] for name, output in m["outputs"].items()} for m in done)
    changed = tuple(name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name))
    if not changed:
        return StageComparison(stage, IDENTICAL, _same_bytes(ours), rule.tolerance)
    try:
        same, found = rule.compare(first, second)
    except _Missing as missing:
        return StageComparison(stage, NOT_COMPARED, str(missing), rule.tolerance, changed)
    return StageComparison(stage, TOLERATED if same else DIFFERENT, found, rule.tolerance, changed)


def _output_hash(marker: dict[str, Any]) -> str:
    """Hash of what a stage put out; of one that was taken over, what it was where it was executed."""
    hashes = {name: output["sha256"] for name, output in marker["outputs"].items()}
    return marker.get("output_hash") or sha256_json(hashes)


def _same_bytes(outputs: dict[str, str]) -> str:
    weights = {name: digest for name, digest in outputs.items() if name.endswith((".safetensors", ".bin"))}
    if weights:
        return f"the same weights ({sha256_json(weights)[:8]}), the same bytes in all {len(outputs)} files"
    return f"the same bytes in all {len(outputs)} files" if len(outputs) > 1 else "the same bytes"


def _benchmark(first: Path, second: Path) -> tuple[bool, str]:
    ours, theirs = (_results(run) for run in (first, second))
    common = [name for name in ours if name in theirs]
    if not common:
        raise _Missing(f"other benchmarks: {', '.join(ours) or 'none'} / {', '.join(theirs) or 'none'}")
    differences = {name: theirs[name]["accuracy"] - ours[name]["accuracy"] for name in common}
    words = [f"{name} {difference:+.2f} points" for name, difference in differences.items()]
    words += [f"{name} in one alone" for name in sorted(ours.keys() ^ theirs.keys())]
    return all(abs(d) <= ACCURACY_POINTS for d in differences.values()), ", ".join(words)


def _train(first: Path, second: Path) -> tuple[bool, str]:
    ours, theirs = (curves(run) for run in (first, second))
    if not ours["checkpoint"] or not theirs["checkpoint"]:
        raise _Missing("metrics.jsonl has no checkpoint")
    same, words = True, [_first_step(ours["train"], theirs["train"])]
    for name in ("kl", "proxy_reward", "gold_reward", "length_tokens"):
        one, other = ours["checkpoint"][-1].get(name), theirs["checkpoint"][-1].get(name)
        if one is not None and other is not None:
            same &= abs(other - one) <= TRAINED_SHARE * max(abs(one), abs(other)) + _SLACK
            words.append(f"{name} {one:.4g} / {other:.4g}")
    return same, "; ".join(words)


def _generate(first: Path, second: Path) -> tuple[bool, str]:
    same, words = True, []
    for evaluation in EVALUATIONS:
        ours, theirs = (_texts(run, evaluation) for run in (first, second))
        common = ours.keys() & theirs.keys()
        if len(common) < max(len(ours), len(theirs)):
            return False, f"{evaluation}: {len(ours)} / {len(theirs)} prompts, {len(common)} in both"
        equal = sum(ours[key] == theirs[key] for key in common)
        one, other = (fmean(map(len, texts.values())) for texts in (ours, theirs))
        same &= abs(other - one) <= LENGTH_SHARE * max(one, other)
        words.append(
            f"{evaluation}: {equal} of {len(common)} answers equal, mean length {one:.1f} / {other:.1f}"
        )
    return same, "; ".join(words)


def _judge(first: Path, second: Path) -> tuple[bool, str]:
    same, asked, words = True, 0, []
    for judged in _judged(first, second):
        ours, theirs = (_verdicts(run, judged) for run in (first, second))
        common = {key for key in ours.keys() & theirs.keys() if ours[key]["key"] == theirs[key]["key"]}
        agree = sum(_agree(ours[key]["preference"], theirs[key]["preference"]) for key in common)
        same &= agree >= AGREEMENT_SHARE * len(common)
        asked += len(common)
        words.append(
            f"{judged}: {len(common)} of {max(len(ours), len(theirs))} questions the same, "
            f"{agree} verdicts on them agree"
        )
    if not asked:
        raise _Missing("no question was the same, because the answers differ")
    return same, "; ".join(words)


def _agree(one: float | None, other: float | None) -> bool:
    if one is None or other is None:  # the judge failed
        return one is other
    return abs(other - one) <= PREFERENCE_STEP


def _score(first: Path, second: Path) -> tuple[bool, str]:
    same, words = True, []
    for evaluation in EVALUATIONS:
        for column, scale, unit in COLUMNS:
            ours, theirs = (_values(run, evaluation, column) for run in (first, second))
            common = sorted(ours.keys() & theirs.keys())
            if column == "gold" and not (ours and theirs):  # no gold reward model
                continue
            name = f"{evaluation} {column.replace('_', ' ')}"
            if len(common) < AGREEMENT_SHARE * max(len(ours), len(theirs)):
                same = False
                words.append(f"{name} of {len(ours)} / {len(theirs)} prompts, {len(common)} in both")
            if len(common) < 2:
                continue
            differences = [scale * (theirs[key] - ours[key]) for key in common]
            error = stdev(differences) / sqrt(len(common))
            same &= abs(fmean(differences)) <= STANDARD_ERRORS * error + _SLACK
            words.append(f"{name} {fmean(differences):+.2f}{unit} (standard error {error:.2f})")
    if not words:
        raise _Missing("no prompts that both were scored on")
    return same, "; ".join(words)


RULES = {
    "benchmark": Rule(
        _benchmark,
        f"accuracy within {ACCURACY_POINTS:g} point: other kernels move a score in its last digits, which "
        "turns only pairs that are as good as tied",
    ),
    "train": Rule(
        _train,
        f"KL, rewards and length of the last checkpoint within {TRAINED_SHARE:.0%}: without deterministic "
        "kernels sums differ in their last digits, and sampled rollouts carry that on",
    ),
    "generate": Rule(
        _generate,
        f"the same prompts, mean length within {LENGTH_SHARE:.0%}: where one token differs, all after it do",
    ),
    "judge": Rule(
        _judge,
        f"{AGREEMENT_SHARE:.0%} of the verdicts on the same texts within {PREFERENCE_STEP:g}: a hosted judge "
        "is not deterministic at temperature 0 either",
    ),
    "score": Rule(
        _score,
        f"within {STANDARD_ERRORS:g} standard errors of the paired difference over prompts: what two draws "
        "from one policy differ by",
    ),
}


def _done(run: Path, stage: str) -> dict[str, Any]:
    """A finished stage's marker; empty where it is not finished."""
    file = run / "stages" / stage / "done.json"
    return read_json(file) if file.exists() else {}


def _results(run: Path) -> dict[str, Any]:
    file = run / "stages/benchmark/results.json"
    if not file.exists():
        raise _Missing(f"there is no {file}")
    return read_json(file)


def _first_step(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """Up to where two trainings went the same way."""
    steps = zip(ours, theirs, strict=False)
    differing = next((one["step"] for one, other in steps if one != other), None)
    if differing is not None:
        return f"the curves part at step {differing}"
    return "the same curve" if len(ours) == len(theirs) else f"{len(ours)} / {len(theirs)} steps"


def _texts(run: Path, evaluation: str) -> dict[str, str]:
    return {row["prompt_id"]: row["text"] for row in _lines(run / "stages/generate" / f"{evaluation}.jsonl")}


def _judged(first: Path, second: Path) -> list[str]:
    """Each judge's verdicts by their place in the stage: `alpaca_eval`, `<second judge>/alpaca_eval`."""
    folders = [run / "stages/judge" for run in (first, second)]
    found = {
        file.relative_to(folder).with_suffix("").as_posix()
        for folder in folders
        for evaluation in EVALUATIONS
        for file in folder.rglob(f"{evaluation}.jsonl")
    }
    return sorted(found, key=lambda name: (name.count("/"), name))


def _verdicts(run: Path, judged: str) -> dict[tuple[str, int], dict[str, Any]]:
    rows = _lines(run / "stages/judge" / f"{judged}.jsonl")
    return {(row["prompt_id"], row["game"]): row for row in rows}


def _values(run: Path, evaluation: str, column: str) -> dict[str, float]:
    rows = _lines(run / "stages/score/per_prompt.jsonl")
    found = {row["prompt_id"]: row.get(column) for row in rows if row["evaluation"] == evaluation}
    return {key: value for key, value in found.items() if value is not None}


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.exists():
        raise _Missing(f"there is no {file}")
    return read_jsonl(file)
