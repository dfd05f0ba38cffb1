"""`rlhf-eval demo|run|validate|ls`: one run, the demonstration, and what there is."""

import os
from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf_eval.commands.results import write_results
from rlhf_eval.commands.rewards import validate_reward_model
from rlhf_eval.commands.show import console, print_json, print_table
from rlhf_eval.errors import ConfigError, DataError, did_you_mean

STATES = ("pending", "running", "interrupted", "failed", "done", "damaged")
"""What a run's own files tell; `rlhf-eval status` asks SLURM too."""


def demo(options: Namespace) -> int:
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.sweep.demo import run_demo

    experiment = options.experiment or (f"lab_{options.lab_seed}" if options.lab_seed else "lab")
    with progress_for_terminal() as progress:
        folder, outcomes = run_demo(
            options.lab_seed, options.seeds, options.jobs, options.output, experiment, progress
        )
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if len(failed) < len(outcomes):
        ranking, files = write_results(folder)
        console().print(ranking.as_table())
        for file in files:
            if file.suffix != ".csv":
                print(file)
    for outcome in failed:
        print(f"failed: {outcome.path}\n  {outcome.error}")
    return 1 if failed else 0


def run(options: Namespace) -> int:
    from rlhf_eval.config.compose import run_path
    from rlhf_eval.config.inputs import require_inputs
    from rlhf_eval.progress import progress_for_terminal

    if options.multirun:
        from rlhf_eval.sweep.multirun import multirun

        if options.run_dir or options.frozen or options.stages:
            raise ConfigError(
                "-m takes overrides alone, without --run-dir, --frozen and --stages.",
                "Leave these out: every point has its own run directory.",
            )
        return multirun(options.overrides, options.experiment)
    if options.frozen:
        return _run_frozen(options)
    if options.address or options.max_attempts:
        raise ConfigError("--address and --max-attempts belong to --frozen.", "Leave them out.")
    config = _composed(options)
    require_inputs(config)
    path = options.run_dir or run_path(config)
    print(f"run directory: {path}\n{_calls(config)}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    from rlhf_eval.interruption import listen
    from rlhf_eval.runs.stages import execute

    listen()

    with progress_for_terminal() as progress:
        execute(config, path, progress, options.stages)
    return _tell_scores(path)


def _run_frozen(options: Namespace) -> int:
    """Execute a run as its directory says."""
    from rlhf_eval.interruption import listen
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.sweep.task import execute_frozen, frozen

    if options.run_dir or options.experiment:
        raise ConfigError("--frozen names the run directory itself.", "Leave out --run-dir and --experiment.")
    path: Path = options.frozen
    os.environ.setdefault("OMP_NUM_THREADS", str(frozen(path).threads))
    listen()
    with progress_for_terminal() as progress:
        execute_frozen(
            path, options.stages, options.overrides, dict(options.address), options.max_attempts, progress
        )
    return _tell_scores(path)


def _tell_scores(path: Path) -> int:
    from rlhf_eval.files import read_json
    from rlhf_eval.learning import gradient_steps_in, gradient_warning

    if warning := gradient_warning(*gradient_steps_in(path / "metrics.jsonl")):
        print(f"training: {warning}")
    if not (path / "stages" / "score" / "done.json").exists():
        return 0
    scores = read_json(path / "stages" / "score" / "scores.json")
    second = {
        f"{evaluation} by {judge}": values[evaluation]
        for judge, values in scores.pop("second_judges", {}).items()
        for evaluation in ("alpaca_eval", "arena_hard")
    }
    suspicious = scores.pop("suspicious_answers", {})
    for evaluation, values in (scores | second).items():
        figures = [f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)]
        print(f"{evaluation}: {', '.join(figures) or ' '.join(map(str, values.values()))}")
    for evaluation, shares in suspicious.items():
        found = [f"{what} {share:.3g} %" for what, share in shares.items() if share]
        print(f"suspicious answers of {evaluation}: {', '.join(found) or 'none'}")
    return 0


def ls(options: Namespace) -> int:
    if options.configs is not None:
        return _ls_configs(options.configs, options.json)
    folder: Path = options.output_folder
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.", "Start runs with `rlhf-eval run`, or name another.")
    rows = [
        {"experiment": path.name, "path": str(path)} | _state_counts(path)
        for path in sorted(folder.iterdir())
        if any(path.glob("*/config.yaml"))
    ]
    if options.json:
        return print_json(rows)
    columns = ("experiment", "runs", *STATES)
    print_table(columns, [[row[name] for name in columns] for row in rows])
    return 0


def validate(options: Namespace) -> int:
    from rlhf_eval.config.compose import freeze, hash8, run_name, run_path
    from rlhf_eval.config.inputs import inputs, require_inputs
    from rlhf_eval.training.cost import reward_calls

    if all(word.lstrip("+~").startswith(("reward_model=", "reward_model.")) for word in options.overrides):
        return validate_reward_model(options)
    config = _composed(options)
    require_inputs(config)
    if options.json:
        return print_json(
            {
                "run": run_name(config),
                "hash8": hash8(config),
                "run_directory": str(run_path(config)),
                "inputs": [asdict(item) for item in inputs(config)],
                "reward_calls": reward_calls(config),
                "config": asdict(config),
            }
        )
    print(freeze(config))
    print_table(
        ("field", "value", "state"), [(item.field, item.value, item.state) for item in inputs(config)]
    )
    print(f"run name: {run_name(config)}\nhash8: {hash8(config)}\nrun directory: {run_path(config)}")
    print(_calls(config))
    return 0


def _composed(options: Namespace) -> Any:
    """The checked RunConfig of a command line with overrides."""
    from rlhf_eval.config.checks import in_experiment
    from rlhf_eval.config.compose import compose
    from rlhf_eval.config.grid import grid_point
    from rlhf_eval.rewards.kinds import check_kinds

    config = compose(options.overrides)
    check_kinds(config)
    grid_point(config)
    return in_experiment(config, options.experiment)


def _calls(config: Any) -> str:
    """What a run asks of its reward model, in words."""
    from rlhf_eval.training.cost import group_calls, reward_calls

    calls = reward_calls(config)
    algorithm = config.algorithm
    size = algorithm.samples if algorithm.kind == "best_of_n" else algorithm.group_size
    parts = ", ".join(f"{name} {calls[name]:,}" for name in ("standardising", "training", "checkpoints"))
    per_group = f"{group_calls(config.reward_model, size)} per group of {size}"
    return f"training: the reward model reads at most {calls['total']:,} texts ({per_group}; {parts})"


def _state_counts(experiment: Path) -> dict[str, int]:
    from rlhf_eval.runs.directory import run_directories

    counts = Counter(directory.status()["state"] for directory in run_directories(experiment))
    return {"runs": counts.total()} | {state: counts[state] for state in STATES}


def _ls_configs(group: str, as_json: bool) -> int:
    from rlhf_eval.config.compose import describe
    from rlhf_eval.config.folders import groups

    known = groups()
    if group and group not in known:
        raise ConfigError(f"There is no configuration group '{group}'.", did_you_mean(group, known))
    rows = [
        {"group": name, "name": choice, "description": describe(name, choice)}
        for name, choices in known.items()
        for choice in choices
        if group in ("", name)
    ]
    if as_json:
        return print_json(rows)
    print_table(("group", "choice", "description"), [list(row.values()) for row in rows])
    return 0
