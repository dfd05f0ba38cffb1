"""`rlhf-eval audit`."""

from argparse import Namespace
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf_eval import __version__
from rlhf_eval.commands.benchmarks import (
    as_loaded,
    benchmark_names,
    from_local_copy,
    stored_model,
    with_benchmarks,
)
from rlhf_eval.commands.rewards import world_for
from rlhf_eval.commands.show import print_json
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import ConfigError


def audit(options: Namespace) -> int:
    """Measure, change, search, and write `audit.json` with its page."""
    from rlhf_eval.analysis.audit_page import write_audit_page
    from rlhf_eval.audit import audit as work
    from rlhf_eval.audit.findings import findings
    from rlhf_eval.audit.openness import openness_card
    from rlhf_eval.audit.searched import overlap_rows
    from rlhf_eval.benchmarks.evaluate import load_benchmark
    from rlhf_eval.files import write_json
    from rlhf_eval.progress import progress_for_terminal
    from rlhf_eval.sources import localise

    own = _own_ablation(options)
    names, overrides = benchmark_names(options.overrides)
    configs = _configs(overrides, names, options)
    audited, *panel = configs
    config = configs[audited]
    chosen, notes = from_local_copy(
        [config.benchmarks[name] for name in names or config.benchmarks], options.data
    )
    with progress_for_terminal(silent=options.json) as progress:
        world = world_for(config.lab, [*(c.reward_model for c in configs.values()), *chosen], progress)
        loaded = [load_benchmark(as_loaded(config, item, world)) for item in chosen]
        benchmarks = [replace(item, notes=(*item.notes, *notes)) for item in loaded]
        changes = work.planned_changes(benchmarks, own)
        sources = [*localise(config.reward_model.card, world).training_sources, *options.training_data]
        _check_before_scoring(benchmarks, [c.reward_model for c in configs.values()], sources, options)
        progress.stage("score", "running")
        answers = work.ask_all(
            lambda name: stored_model(configs[name], world, progress), list(configs), benchmarks, changes
        )
        progress.stage("score", "done")
        progress.stage("overlap", "running" if sources else "no training data to search")
        overlap = (
            overlap_rows(benchmarks, answers[audited].measured, sources, options.ngram, progress)
            if sources
            else []
        )
    openness = openness_card(config.reward_model, sources)
    result: dict[str, Any] = {
        "reward_model": audited,
        "panel": panel,
        "notes": [
            f"{name} is in the panel, and its training data are not known to be open."
            for name in panel
            if not configs[name].reward_model.card.open_data
        ],
        "benchmarks": work.accuracy_rows(answers, benchmarks),
        "gaps": work.gap_rows(answers, benchmarks),
        "overlap": overlap,
        "overlap_note": next(fact.consequence for fact in openness if fact.what == "training data"),
        **work.change_sections(changes, answers),
        "ablation_note": "No benchmark here has a known artifact; name one with --pattern.",
        "openness": [asdict(fact) for fact in openness],
        "version": __version__,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    result = {"findings": findings(result)} | result
    folder = options.output or _folder(config, chosen)
    write_json(folder / "audit.json", result)
    page = write_audit_page(folder)
    if options.json:
        return print_json(result)
    for finding in result["findings"]:
        print(f"{finding['kind']}: {finding['text']}")
    print(page)
    return 0


def _folder(config: RunConfig, chosen: list[Any]) -> Path:
    """Where an audit goes that was not told: one folder for each reward model and choice of benchmarks."""
    names = "+".join(item.name for item in chosen)
    return Path(config.output) / config.experiment / "audit" / f"{config.reward_model.name}--{names}"


def _own_ablation(options: Namespace) -> Any:
    """The user's artifact; None if none is named."""
    from rlhf_eval.audit.ablation import user_ablation

    if options.pattern is None:
        if options.replacement or options.where != "both":
            raise ConfigError(
                "--replacement and --where say nothing without --pattern.", "Add --pattern REGEX."
            )
        return None
    return user_ablation("own", options.pattern, options.replacement, options.where)


def _check_before_scoring(
    benchmarks: list[Any], reward_models: list[Any], sources: list[str], options: Namespace
) -> None:
    """Whatever can be known to fail after hours of scoring is an error now."""
    from rlhf_eval.audit.corpus import corpus_files
    from rlhf_eval.audit.overlap import check_words
    from rlhf_eval.benchmarks.private import canaries, refuse_remote

    check_words(options.ngram)
    if options.output and options.output.exists() and not options.output.is_dir():
        raise ConfigError(f"--output {options.output} is a file.", "Name a folder.")
    for source in sources:
        corpus_files(source)
    for benchmark in benchmarks:
        if benchmark.config.private:
            canaries(benchmark.config)
        for reward_model in reward_models:
            refuse_remote(benchmark.config, reward_model)


def _configs(overrides: list[str], names: list[str], options: Namespace) -> dict[str, Any]:
    """The run's configuration with the audited reward model, and with each of the panel, by name."""
    if not any(word.startswith("reward_model=") for word in overrides):
        raise ConfigError("No reward model is named.", "Add reward_model=<name>.")
    if not names and not any(word.startswith("experiment=") for word in overrides):
        raise ConfigError(
            "No benchmark is named.", "Add benchmark=<name>, or experiment=<name> for those of an experiment."
        )
    config = with_benchmarks(overrides, names, options.experiment)
    others = [word for word in overrides if not word.startswith("reward_model")]
    members = [
        with_benchmarks([*others, f"reward_model={name}"], names, options.experiment)
        for name in filter(None, options.panel.split(","))
    ]
    found = {member.reward_model.name: member for member in members}
    if config.reward_model.name in found:
        raise ConfigError(
            f"'{config.reward_model.name}' is audited and in its own panel.", "Leave it out of --panel."
        )
    return {config.reward_model.name: config} | found
