"""The audits of contamination that stand in the experiment's folder, for the report: their findings and
pages."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from rlhf_eval.files import read_json


@dataclass(frozen=True, slots=True)
class Audit:
    """What one audit found.

    Attributes:
        page: address of `audit.html`, relative to the report.
        findings: (kind, text).
    """

    name: str
    reward_model: str
    page: str
    findings: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Findings by kind, in order of appearance."""
        kinds = [kind for kind, _ in self.findings]
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def audits(experiment: Path, folder: Path) -> list[Audit]:
    """The audits in an experiment's folder, by name.

    Args:
        folder: of the report.

    Raises:
        DataError: an `audit.json` is damaged.
    """
    found = []
    for file in sorted(experiment.glob("audit/*/audit.json")):
        audit = read_json(file)
        page = Path(os.path.relpath(file.with_name("audit.html"), folder)).as_posix()
        findings = tuple((finding["kind"], finding["text"]) for finding in audit["findings"])
        found.append(Audit(file.parent.name, audit["reward_model"], quote(page), findings))
    return found
