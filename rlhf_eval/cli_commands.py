"""What each subcommand of `rlhf-eval` does. Each takes the parsed arguments and returns the exit code."""

import json
import os
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_eval.errors import ConfigError, DataError, did_you_mean

STATES = ("pending", "running", "interrupted", "failed", "done", "damaged")


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
        ranking, files = _write_results(folder)
        _console().print(ranking.as_table())
        for file in files:
            if file.suffix != ".csv":
                print(file)
    for outcome in failed:
        print(f"failed: {outcome.path}\n  {outcome.error}")
    return 1 if failed else 0


def run(options: Namespace) -> int:
    from rlhf_eval.config.compose import run_path
    from rlhf_eval.config.inputs import require_inputs
    from rlhf_eval.files import read_json
    from rlhf_eval.progress import progress_for_terminal

    config = _composed(options)
    require_inputs(config)
    path = options.run_dir or run_path(config)
    print(f"run directory: {path}", flush=True)
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    from rlhf_eval.runs.stages import execute

    with progress_for_terminal() as progress:
        execute(config, path, progress)
    scores = read_json(path / "stages" / "score" / "scores.json")
    for evaluation, values in scores.items():
        figures = [f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)]
        print(f"{evaluation}: {', '.join(figures) or ' '.join(map(str, values.values()))}")
    return 0


def rank(options: Namespace) -> int:
    _, ranking = _ranking(options)
    if options.json:
        return _print_json(ranking.as_json())
    _console().print(ranking.as_table())
    return 0


def plot(options: Namespace) -> int:
    from rlhf_eval.analysis.figures import write_figures

    runs, ranking = _ranking(options)
    for file in write_figures(runs, ranking, options.output or options.experiment_folder / "figures"):
        print(file)
    return 0


def report(options: Namespace) -> int:
    from rlhf_eval.analysis.report import write_report

    runs, ranking = _ranking(options)
    page = options.output or options.experiment_folder / "report.html"
    write_report(runs, ranking, page)
    print(page)
    return 0


def status(options: Namespace) -> int:
    from rlhf_eval.runs.directory import run_directories

    rows = [_status_row(directory) for directory in run_directories(options.experiment_folder)]
    if options.json:
        return _print_json(rows)
    table = _table("run", "state", "stage", "step", "attempt", "updated", "error")
    for row in rows:
        step = f"{row['step']}/{row['steps']}" if row["steps"] else ""
        cells = (row["run"], row["state"], row["stage"], step, row["attempt"], row["updated"], row["error"])
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    _console().print(table)
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
        return _print_json(rows)
    table = _table("experiment", "runs", *STATES)
    for row in rows:
        table.add_row(row["experiment"], *(str(row[name]) for name in ("runs", *STATES)))
    _console().print(table)
    return 0


def reward(options: Namespace) -> int:
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.rewards.commands import score_file, serve

    config = _reward_model(options.overrides)
    if options.action == "serve":
        serve(config, options.host, options.port)
        return 0
    with progress_for_terminal() as progress:
        counts = score_file(config, options.input, options.output, progress)
    print(f"{options.output}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return 0


def validate(options: Namespace) -> int:
    from rlhf_eval.config.compose import freeze, hash8, run_name, run_path
    from rlhf_eval.config.inputs import inputs, require_inputs

    if all(word.startswith(("reward_model=", "reward_model.")) for word in options.overrides):
        return _validate_reward_model(options)
    config = _composed(options)
    require_inputs(config)
    if options.json:
        return _print_json(
            {
                "run": run_name(config),
                "hash8": hash8(config),
                "run_directory": str(run_path(config)),
                "inputs": [asdict(item) for item in inputs(config)],
                "config": asdict(config),
            }
        )
    print(freeze(config))
    table = _table("field", "value", "state")
    for item in inputs(config):
        table.add_row(item.field, item.value, item.state)
    _console().print(table)
    print(f"run name: {run_name(config)}\nhash8: {hash8(config)}\nrun directory: {run_path(config)}")
    return 0


def _validate_reward_model(options: Namespace) -> int:
    """Load one reward model and compare it with its golden scores; 1 if one disagrees."""
    from rlhf_eval.rewards.commands import check_golden

    config = _reward_model(options.overrides, silent=options.json)
    golden = check_golden(config)
    agrees = all(row["agrees"] for row in golden)
    if options.json:
        _print_json(
            {"reward_model": config.name, "loaded": True, "card": asdict(config.card), "golden": golden}
        )
        return 0 if agrees else 1
    table = _table("reward model", "kind", "base model", "licence", "open weights", "open data", "open code")
    card = config.card
    openness = (
        {True: "yes", False: "no", None: "?"}[x] for x in (card.open_weights, card.open_data, card.open_code)
    )
    table.add_row(config.name, config.kind, card.base_model or "?", card.licence or "?", *openness)
    _console().print(table)
    if card.training_data:
        print(f"trained on: {', '.join(card.training_data)}")
    for row in golden:
        word = "agrees" if row["agrees"] else "DIFFERS"
        print(f"golden score {row['expected']:g} ± {row['tolerance']:g}: {row['score']} {word}")
    print("loaded" if golden else "loaded; its configuration has no golden scores to compare with")
    return 0 if agrees else 1


def _reward_model(overrides: Sequence[str], silent: bool = False) -> Any:
    """The checked configuration of one reward model; the lab is built if it stands there."""
    from rlhf_eval.config.compose import compose, flat
    from rlhf_eval.config.inputs import require_inputs
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.rewards.kinds import check_kinds
    from rlhf_eval.sources import LAB, localise

    config = compose(["experiment=lab", *overrides])
    check_kinds(config)
    require_inputs(config)
    values = flat(asdict(config.reward_model)).values()
    world = None
    if config.lab and any(isinstance(value, str) and value.startswith(LAB) for value in values):
        from rlhf_eval.lab.build import ensure

        with progress_for_terminal(silent=silent) as progress:
            world = ensure(config.lab, 2, progress)
    return localise(config.reward_model, world)


def _composed(options: Namespace) -> Any:
    """The checked RunConfig of a command line with overrides."""
    from rlhf_eval.config.compose import check_names, compose
    from rlhf_eval.rewards.kinds import check_kinds

    config = compose(options.overrides)
    check_kinds(config)
    if options.experiment:
        config = check_names(replace(config, experiment=options.experiment))
    return config


def _ranking(options: Namespace) -> tuple[Sequence[Any], Any]:
    from rlhf_eval.analysis.ranking import rank
    from rlhf_eval.analysis.table import load_runs

    runs = load_runs(options.experiment_folder)
    return runs, rank(runs, metric=options.metric, benchmark=options.benchmark)


def _write_results(folder: Path) -> tuple[Any, list[Path]]:
    """Rank an experiment's finished runs; write figures and report unless they are newer than every score."""
    from rlhf_eval.analysis.figures import write_figures
    from rlhf_eval.analysis.ranking import rank
    from rlhf_eval.analysis.report import write_report
    from rlhf_eval.analysis.table import load_runs

    runs = load_runs(folder)
    ranking = rank(runs)
    page = folder / "report.html"
    scored = max(file.stat().st_mtime for file in folder.glob("*/stages/score/done.json"))
    if not page.exists() or page.stat().st_mtime < scored:
        write_figures(runs, ranking, folder / "figures")
        write_report(runs, ranking, page)
    return ranking, [*sorted((folder / "figures").iterdir()), page]


def _status_row(directory: Any) -> dict[str, Any]:
    from rlhf_eval.config.compose import load

    now = directory.status()
    row = {
        "run": directory.path.name,
        "reward_model": None,
        "seed": None,
        "state": now["state"],
        "stage": now["stage"],
        "step": now["step"],
        "steps": now["steps"],
        "attempt": now["attempt"],
        "error": now["error"].splitlines()[0] if now["error"] else None,
        "updated": now["updated_at"],
    }
    try:
        config = load(directory.config_file)
    except ConfigError as error:
        return row | {"state": "damaged", "error": error.what}
    return row | {"reward_model": config.reward_model.name, "seed": config.seed}


def _state_counts(experiment: Path) -> dict[str, int]:
    from rlhf_eval.runs.directory import run_directories

    counts = Counter(directory.status()["state"] for directory in run_directories(experiment))
    return {"runs": counts.total()} | {state: counts[state] for state in STATES}


def _ls_configs(group: str, as_json: bool) -> int:
    from rlhf_eval.config.compose import describe, groups

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
        return _print_json(rows)
    table = _table("group", "choice", "description")
    for row in rows:
        table.add_row(*row.values())
    _console().print(table)
    return 0


def _print_json(value: Any) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False))
    return 0


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(*columns, box=box.SIMPLE_HEAD)


def _console() -> Any:
    """The terminal; elsewhere wide enough that tables are not folded."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
