"""`rlhf-eval rank|plot|report`: what the runs of an experiment say."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_eval.commands.show import console, print_json


def rank(options: Namespace) -> int:
    _, ranking = _ranking(options)
    if options.json:
        return print_json(ranking.as_json())
    console().print(ranking.as_table())
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


def _ranking(options: Namespace) -> tuple[Sequence[Any], Any]:
    from rlhf_eval.analysis.experiment import load_runs
    from rlhf_eval.analysis.ranking import rank

    runs = load_runs(options.experiment_folder)
    return runs, rank(runs, metric=options.metric, benchmark=options.benchmark)


def write_results(folder: Path) -> tuple[Any, list[Path]]:
    """Rank an experiment's finished runs; write figures and report unless they are newer than every score."""
    from rlhf_eval.analysis.experiment import load_runs
    from rlhf_eval.analysis.figures import write_figures
    from rlhf_eval.analysis.ranking import rank
    from rlhf_eval.analysis.report import write_report

    runs = load_runs(folder)
    ranking = rank(runs)
    page = folder / "report.html"
    scored = max(file.stat().st_mtime for file in folder.glob("*/stages/score/done.json"))
    if not page.exists() or page.stat().st_mtime < scored:
        write_figures(runs, ranking, folder / "figures")
        write_report(runs, ranking, page)
    return ranking, [*sorted((folder / "figures").iterdir()), page]
