"""The page put together: tables, what its script draws, and the policy that holds hostile text back."""

import html
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlhf_eval.analysis.correlation import experiment_correlation
from rlhf_eval.analysis.experiment import RunRecord
from rlhf_eval.analysis.frontier import frontiers
from rlhf_eval.analysis.head_to_head import head_to_head
from rlhf_eval.analysis.hostile import script_json, security_policy
from rlhf_eval.analysis.overall import Overall
from rlhf_eval.analysis.ranking import Ranking
from rlhf_eval.analysis.report import plots, ranking_tables, run_tables, setting_tables
from rlhf_eval.analysis.report.audits import audits
from rlhf_eval.analysis.report.costs import cost_data
from rlhf_eval.analysis.report.data_table import DataTable
from rlhf_eval.analysis.report.examples import examples
from rlhf_eval.analysis.tables import page_templates
from rlhf_eval.analysis.tidy import length_rows
from rlhf_eval.analysis.wording import headline
from rlhf_eval.files import write_text


def write_report(
    runs: Sequence[RunRecord], ranking: Ranking, path: Path, overall: Overall | None = None
) -> Path:
    """Write the report of an experiment to `path` (HTML) and return it, and every table's rows as CSV into
    the folder `<name of the page>_tables` beside it.

    Args:
        runs: from `load_runs`, of one experiment or of several.
        ranking: from `rank` or `overall` over the same runs.
        overall: the settings and metrics that `ranking` is the aggregate of.
    """
    path = Path(path)
    finished = [run for run in runs if run.finished]
    cells = overall.cells if overall and len(overall.cells) > 1 else ()
    measured = any(row.benchmark is not None for row in ranking.rows)
    found = experiment_correlation(runs, ranking) if measured else None
    subsets = [one for one in found.subsets if one.n] if found else []
    curves = frontiers(runs) if any(run.finished and run.curves for run in runs) else ()
    matrix = head_to_head(finished, ranking)
    lengths = length_rows(runs, ranking)
    failures, failures_not_read = run_tables.failure_data(finished)
    costs, cost_sentences = cost_data(finished)
    tables: dict[str, DataTable | None] = {
        "ranking": ranking_tables.ranking_data(ranking),
        "scores": ranking_tables.scores_data(ranking),
        "cells": setting_tables.cell_data(ranking, cells) if cells else None,
        "agreement": setting_tables.agreement_data(overall) if overall and cells else None,
        "best_of_n": setting_tables.best_of_n_data(overall) if overall and overall.best_of_n else None,
        "correlation": ranking_tables.correlation_data(ranking, subsets) if found else None,
        "checks": ranking_tables.check_data(subsets) if found else None,
        "frontiers": ranking_tables.frontier_data(curves, ranking) if curves else None,
        "matrix": ranking_tables.matrix_data(matrix),
        "length": ranking_tables.length_data(lengths),
        "evaluations": run_tables.evaluation_data(finished),
        "suspicious": run_tables.suspicious_data(finished),
        "no_gradient": run_tables.no_gradient_data(runs),
        "judges": run_tables.judge_data(finished),
        "failures": failures,
        "costs": costs,
        "provenance": run_tables.provenance_data(runs, path.parent),
    }
    drawn = {
        "ranking": plots.ranking_plot(ranking),
        "correlation": plots.correlation_plot(ranking, [(cell.name, cell.ranking) for cell in cells])
        if measured
        else None,
        "training": plots.training_plot(curves, ranking) if curves else None,
        "matrix": plots.matrix_plot(matrix) if len(matrix.names) > 1 else None,
        "length": plots.length_plot(lengths),
    }
    tables_folder = path.parent / f"{path.stem}_tables"
    for table in tables.values():
        if table is not None:
            table.write(tables_folder)
    environment = page_templates()
    environment.filters["unescaped"] = html.unescape  # of a Plotly label: Jinja escapes it again
    experiments = sorted({run.path.parent for run in finished})
    page = environment.get_template("report/report.html.j2").render(
        experiment=", ".join(sorted({run.config.experiment for run in finished})),
        first=finished[0],
        policies=sorted({run.policy for run in finished}),
        algorithms=sorted({run.algorithm for run in finished if not run.untrained}),
        n_runs=len(finished),
        ranking=ranking,
        headline=headline(ranking),
        correlation=found,
        tables=tables,
        tables_folder=tables_folder.name,
        drawn=drawn,
        points=plots.POINTS,
        ranked=plots.RANKED,
        matrix=matrix,
        failures_not_read=failures_not_read,
        cost_sentences=cost_sentences,
        audits=[audit for experiment in experiments for audit in audits(experiment, path.parent)],
        examples=examples(finished, ranking),
        **_scripts(drawn),
    )
    write_text(path, page)
    return path


def _scripts(drawn: dict[str, Any]) -> dict[str, Any]:
    """The page's scripts, the data that they draw, and the policy that allows them alone. Marked safe: Plotly
    and our own script are no text of a model's, and the data are escaped for where they stand."""
    from markupsafe import Markup

    plotly = files("plotly").joinpath("package_data/plotly.min.js").read_text("utf-8")
    own = files("rlhf_eval.analysis.report").joinpath("report.js").read_text("utf-8")
    return {
        "plotly": Markup(plotly),
        "script": Markup(own),
        "data": Markup(script_json(drawn)),
        "policy": Markup(security_policy(plotly, own)),
    }
