"""The report of an experiment: one HTML page that needs no server and no network."""

from rlhf_eval.analysis.report.page import write_report

__all__ = ["write_report"]
