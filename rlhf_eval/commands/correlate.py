"""`rlhf-eval correlate`: how much a benchmark told, in an experiment or in any table."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rlhf_eval.commands.show import print_json, print_table
from rlhf_eval.errors import ConfigError

OF_TABLE = ("x", "y", "group", "label")
OF_EXPERIMENT = ("benchmark", "metric")


def correlate(options: Namespace) -> int:
    if (options.table is None) == (not options.experiment_folders):
        raise ConfigError(
            "Give the folder of an experiment, or a table, and not both.",
            "`rlhf-eval correlate runs/lab`, or `rlhf-eval correlate --table FILE --x COLUMN --y COLUMN`.",
        )
    of_table = options.table is not None
    for name in OF_EXPERIMENT if of_table else OF_TABLE:
        if getattr(options, name) is not None:
            kind = "an experiment" if of_table else "a --table"
            raise ConfigError(f"--{name} belongs to {kind}.", "Leave it out.")
    return _table(options) if of_table else _experiment(options)


def _table(options: Namespace) -> int:
    from rlhf_eval.analysis.correlation_table import correlate_columns, read_columns

    if options.x is None or options.y is None:
        raise ConfigError("A --table needs --x and --y.", "Name the two columns to correlate.")
    columns = read_columns(options.table, options.x, options.y, options.group, options.label)
    found, groups = correlate_columns(columns, f"{options.x} and {options.y}")
    if options.json:
        return print_json(found.as_json() | {"groups": [subset.as_json() for subset in groups]})
    _show([found, *groups])
    return 0


def _experiment(options: Namespace) -> int:
    from rlhf_eval.analysis.correlation import experiment_correlation
    from rlhf_eval.analysis.overall import load_settings, overall

    ranked = overall(
        load_settings(options.experiment_folders), options.metric or {"alpaca_eval.win_rate": 1.0}
    )
    ranking = ranked.ranking
    names = [name.strip() for name in (options.benchmark or "").split(",") if name.strip()]
    found = experiment_correlation(ranked.runs, ranking, names)
    if options.json:
        return print_json(found.as_json())
    print(f"Accuracy on {' and '.join(found.benchmarks)} against {ranking.metric.title}")
    _show(found.subsets)
    if found.partial and found.partial.warning is None:
        given = " and ".join(name.replace("_", " ") for name in found.partial.given)
        print(
            f"Partial correlation of candidates given {given}: {found.partial.estimate:.2f} "
            f"[{found.partial.low:.2f}, {found.partial.high:.2f}], p {found.partial.p:.3f}.".replace("-", "−")
        )
    elif found.partial:
        print(f"Partial correlation: {found.partial.warning}")
    for note in found.notes:
        print(note)
    return 0


def _show(subsets: Sequence[Any]) -> None:
    """A line for each coefficient of each choice of points, then what must be known of it."""
    rows = []
    for found in subsets:
        for name in ("pearson", "spearman", "kendall"):
            c = getattr(found, name)
            first = (found.label, found.n) if name == "pearson" else (None, None)
            defined = c.estimate == c.estimate
            has_range = c.leave_one_out_low == c.leave_one_out_low
            span = f"{c.leave_one_out_low:.2f} to {c.leave_one_out_high:.2f}".replace("-", "−")
            p = f"{c.p:.4f}" if defined else None
            rows.append((*first, name.title(), c, p, span if has_range else None, c.most_influential))
    print_table(("", "n", "", "95 % interval", "p", "without one point", "moved most by"), rows)
    for found in subsets:
        if found.attenuation and found.attenuation.note:
            print(f"{found.label}: {found.attenuation.note}")
        elif found.attenuation:
            a = found.attenuation
            numbers = f"{a.estimate:.2f} [{a.low:.2f}, {a.high:.2f}]".replace("-", "−")
            reliabilities = f"reliability {a.reliability_x:.2f} and {a.reliability_y:.2f}"
            print(f"{found.label}: Pearson corrected for attenuation {numbers} ({reliabilities}).")
        if found.left_out:
            print(f"{found.label}: {found.left_out} left out for want of a number or a group.")
        if found.warning:
            print(f"{found.label}: {found.warning}")
