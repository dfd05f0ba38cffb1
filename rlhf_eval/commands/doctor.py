"""`rlhf-eval doctor`: what this machine lacks, with cures, to be pasted into a bug report."""

import platform
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from rlhf_eval.commands.show import console, print_json

WORDS = {"pass": "ok", "warning": "warning", "failure": "FAILED", "skipped": "skipped"}
STYLES = {"pass": None, "warning": "yellow", "failure": "bold red", "skipped": "dim"}


def doctor(options: Namespace) -> int:
    from rlhf_eval.config.checks import in_experiment
    from rlhf_eval.config.compose import compose
    from rlhf_eval.doctor.checks import examine
    from rlhf_eval.doctor.looks import looks

    config = None
    if options.overrides or options.experiment:
        config = in_experiment(compose(options.overrides), options.experiment)
    findings = examine(looks(config, options.lock))
    if options.json:
        print_json([finding.as_json() for finding in findings])
    else:
        _print(findings, options.overrides)
    return 1 if any(finding.state == "failure" for finding in findings) else 0


def _print(findings: Sequence[Any], overrides: Sequence[str]) -> None:
    from rlhf_eval.doctor.checks import shareable
    from rlhf_eval.doctor.packages import own_version

    def say(text: str, style: str | None = None) -> None:
        console().print(text, style=style, markup=False, soft_wrap=True)

    say(shareable(f"rlhf-eval doctor {' '.join(overrides)}"))
    say(
        shareable(f"rlhf-eval {own_version()}, {platform.platform()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    )
    width = max(len(finding.check) for finding in findings)
    for topic, group in groupby(findings, key=lambda finding: finding.topic):
        say(f"\n{topic}")
        for finding in group:
            say(f"  {WORDS[finding.state]:8} {finding.check:{width}}  {finding.seen}", STYLES[finding.state])
            if finding.cure:
                say(f"  {'':8} {'':{width}}  -> {finding.cure}")
    count = Counter(finding.state for finding in findings)
    say("\n" + ", ".join(f"{count[state]} {word}" for state, word in WORDS.items()))
