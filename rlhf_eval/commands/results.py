"""`rlhf-eval rank|plot|report`: what the runs of experiments say."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from rlhf_eval.commands.show import console, print_json


def rank(options: Namespace) -> int:
    found = _overall(options)
    if options.json:
        return print_json(found.as_json())
    console().print(found.ranking.as_table())
    if len(found.cells) > 1:
        from rlhf_eval.analysis.overall_tables import agreement_table, best_of_n_table, cells_table

        tables = (cells_table(found), agreement_table(found), best_of_n_table(found))
        for table in filter(None, tables):
            console().print(table)
    return 0


def plot(options: Namespace) -> int:
    from rlhf_eval.analysis.figures import write_figures

    found = _overall(options)
    folder = options.output or options.experiment_folders[0] / "figures"
    for file in write_figures(found.runs, found.ranking, folder):
        print(file)
    return 0


def report(options: Namespace) -> int:
    from rlhf_eval.analysis.report import write_report

    found = _overall(options)
    page = options.output or options.experiment_folders[0] / "report.html"
    write_report(found.runs, found.ranking, page, found)
    print(page)
    return 0


def _overall(options: Namespace) -> Any:
    from rlhf_eval.analysis.overall import load_settings, overall

    return overall(load_settings(options.experiment_folders), options.metric, options.benchmark)


def write_results(folder: Path) -> tuple[Any, list[Path]]:
    """Rank an experiment's finished runs; write figures and report unless they are newer than every score."""
    from rlhf_eval.analysis.figures import write_figures
    from rlhf_eval.analysis.overall import load_settings, overall
    from rlhf_eval.analysis.report import write_report

    found = overall(load_settings([folder]), {"alpaca_eval.win_rate": 1.0})
    page = folder / "report.html"
    scored = max(file.stat().st_mtime for file in folder.glob("*/stages/score/done.json"))
    if not page.exists() or page.stat().st_mtime < scored:
        write_figures(found.runs, found.ranking, folder / "figures")
        write_report(found.runs, found.ranking, page, found)
    return found.ranking, [*sorted((folder / "figures").iterdir()), page]
