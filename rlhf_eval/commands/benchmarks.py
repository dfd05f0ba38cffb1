"""`rlhf-eval benchmark`, `rlhf-eval private`."""

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rlhf_eval.commands.rewards import world_for
from rlhf_eval.commands.show import print_json, print_table
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError, did_you_mean

WORD = "benchmark="
Part = TypeVar("Part")


def benchmark(options: Namespace) -> int:
    """Accuracy of a reward model, or of scores in a file, on one benchmark or several."""
    from rlhf_eval.benchmarks.evaluate import load_benchmark, measure
    from rlhf_eval.benchmarks.scores_file import read_scores

    names, overrides = benchmark_names(options.overrides)
    has_model = any(word.startswith("reward_model=") for word in overrides)
    _check_what_is_asked(options, names, has_model)
    config = with_benchmarks(
        [*([] if has_model else ["reward_model=random"]), *overrides], names, options.experiment
    )
    chosen, notes = from_local_copy([config.benchmarks[name] for name in names], options.data)
    if options.scores:
        loaded = load_benchmark(chosen[0])
        found = [measure(loaded, read_scores(options.scores, loaded.items), *notes)]
    else:
        found = measured(config, chosen, options, notes)
    rows = [result.as_json() for result in found]
    for row in rows:
        for note in row["notes"]:
            print(f"note: {row['benchmark']}: {note}", file=sys.stderr)
    if options.json:
        return print_json(rows[0] if len(rows) == 1 else rows)
    _show(rows)
    return 0


def private(options: Namespace) -> int:
    """Seal a private set, or look for leaks of it; 1 if there are some."""
    from rlhf_eval.benchmarks.private import leaks, seal

    if options.action == "seal":
        print(seal(options.file))
        return 0
    count = 0
    for place in leaks(options.file, options.places):
        print(place)
        count += 1
    print(f"{count} files hold something of {options.file}", file=sys.stderr)
    return 1 if count else 0


def benchmark_names(words: list[str]) -> tuple[list[str], list[str]]:
    """The names in `benchmark=a,b` without repetition, and all other overrides."""
    chosen = [name for word in words if word.startswith(WORD) for name in word[len(WORD) :].split(",")]
    return list(dict.fromkeys(filter(None, chosen))), [w for w in words if not w.startswith(WORD)]


def with_benchmarks(overrides: list[str], names: list[str], experiment: str | None) -> RunConfig:
    """The lab's configuration with these overrides, and with the benchmarks named that it does not have.

    Args:
        experiment: folder that results belong to; None takes that of `experiment=`, else `default`, as
            `rlhf-eval run` does.
    """
    from rlhf_eval.config.checks import check_names
    from rlhf_eval.config.compose import compose
    from rlhf_eval.config.folders import groups
    from rlhf_eval.rewards.kinds import check_kinds

    known = groups()["benchmark"]
    for name in names:
        if name not in known:
            raise ConfigError(f"There is no benchmark '{name}'.", did_you_mean(name, known))
    base = ["experiment=lab"]
    own = {name for name in names if name.startswith("lab_")}
    added = [f"+benchmark@benchmarks.{name}={name}" for name in names if name not in own]
    config = compose([*base, *added, *overrides], trains=False)
    check_kinds(config)
    named = any(word.startswith("experiment=") for word in overrides)
    return check_names(replace(config, experiment=experiment or (config.experiment if named else "default")))


def from_local_copy(chosen: list[Any], path: Path | None) -> tuple[list[Any], list[str]]:
    """The one benchmark, read from a local copy instead of the hub, and notes on what is not there."""
    from rlhf_eval.benchmarks.loading import local_copy

    if path is None:
        return chosen, []
    if len(chosen) > 1:
        raise ConfigError(
            "--data belongs to one benchmark.",
            "Name one, or give each its files: benchmarks.<name>.data.<part>=<file>.",
        )
    local, notes = local_copy(chosen[0], path)
    return [local], notes


def measured(config: RunConfig, chosen: list[Any], options: Namespace, notes: list[str]) -> list[Any]:
    """Results of a reward model, from the experiment's store where it has been asked before."""
    from rlhf_eval.benchmarks.evaluate import evaluate, load_benchmark
    from rlhf_eval.progress import progress_for_terminal

    with progress_for_terminal(silent=options.json) as progress:
        world = world_for(config.lab, [config.reward_model, *chosen], progress)
        loaded = [load_benchmark(as_loaded(config, item, world)) for item in chosen]
        model = stored_model(config, world, progress)
        progress.stage("benchmark", "running")
        found = evaluate(model, [replace(item, notes=(*item.notes, *notes)) for item in loaded])
        progress.stage("benchmark", "done")
    for result in found:
        result.write(model.folder / "benchmarks")
    return found


def stored_model(config: RunConfig, world: Path | None, progress: Any) -> Any:
    """The reward model with the experiment's store of its answers."""
    from rlhf_eval.rewards.stored import StoredRewardModel, scores_folder
    from rlhf_eval.sources import local_hashes

    files = local_hashes(config.reward_model, world)
    folder = scores_folder(Path(config.output) / config.experiment, config.reward_model, files)
    return StoredRewardModel(as_loaded(config, config.reward_model, world), folder, progress)


def as_loaded(config: RunConfig, part: Part, world: Path | None) -> Part:
    """A part of the configuration with the files of the lab, and the commits of the experiment."""
    from rlhf_eval.runs.revisions import pinned, resolved
    from rlhf_eval.sources import localise

    shared = Path(config.output) / config.experiment / "shared"
    return pinned(localise(part, world), resolved(part, shared))


def _check_what_is_asked(options: Namespace, names: list[str], has_model: bool) -> None:
    if not names:
        raise ConfigError(
            "No benchmark is named.", "Add benchmark=<name>; `rlhf-eval ls --configs benchmark`."
        )
    if has_model == bool(options.scores):
        raise ConfigError(
            "Give either a reward model or a file of scores.",
            "Add reward_model=<name> or --scores FILE, and not both.",
        )
    if len(names) > 1 and options.scores:
        raise ConfigError("--scores belongs to one benchmark.", "Name one, and call once for each.")


def _show(rows: list[dict[str, Any]]) -> None:
    print_table(
        ("benchmark", "accuracy, %", "95 % interval", "items", "invalid"),
        [
            (
                row["benchmark"],
                f"{row['accuracy']:.2f}",
                f"{row['low']:.1f} to {row['high']:.1f}",
                row["n"],
                row["invalid"],
            )
            for row in rows
        ],
    )
    for row in rows:
        parts = [(name, f"{value:.2f}") for name, value in row["subsets"].items()]
        more = [(name, f"{value:.4g}") for name, value in row["metrics"].items()]
        print_table((row["benchmark"], ""), [*parts, *more])
