"""From run directories to ranking, correlation, figures and report. Reads files only; never imports torch.

from rlhf_eval.analysis import runs_table
table = runs_table("runs/lab")      # a pandas.DataFrame, one row per run and checkpoint
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Loads the table, and with it numpy and pydantic, only when it is asked for."""
    if name == "runs_table":
        from rlhf_eval.analysis.table import runs_table

        return runs_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
