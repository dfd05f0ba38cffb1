"""`rlhf-eval reproduce|diff|export|import`: the same run again, and what two runs do not have in common."""

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from rlhf_eval.commands.show import console, print_json, print_table
from rlhf_eval.errors import ConfigError, DataError

SHOWN = 30
"""Differences in a table; `--json` has all."""


def reproduce(options: Namespace) -> int:
    from rlhf_eval.analysis.drift import STAGES, configuration_drift, manifest_drift
    from rlhf_eval.analysis.run_comparison import compare_runs
    from rlhf_eval.interruption import listen
    from rlhf_eval.progress import SilentProgress, progress_for_terminal
    from rlhf_eval.runs import reproduce as again

    original = again.open_original(options.source)
    if options.stage and not (original.run / "stages/generate/done.json").exists():
        raise DataError(f"{original.run} has no stored answers.", "Leave out --stage to make them again.")
    judging_alone = options.stage == "judge"
    reproduction = again.prepare(original, options.overrides, options.run_dir, judging_alone)
    if reproduction.foreign and not options.trust:
        _refuse_foreign(original, reproduction.foreign)
    os.environ.setdefault("OMP_NUM_THREADS", str(reproduction.config.threads))
    listen()
    # DeepSpeed's log goes to standard output, where JSON is to stand alone.
    quiet = redirect_stdout(sys.stderr) if options.json else nullcontext()
    with quiet, nullcontext(SilentProgress()) if options.json else progress_for_terminal() as progress:
        now = again.about_to_run(original, reproduction, progress)
        drift = [
            *configuration_drift(original.config, reproduction.config, original.manifest, now),
            *manifest_drift(original.manifest, now, again.JUDGING if judging_alone else STAGES),
        ]
        if options.strict:
            _require_no(drift, original)
        if not options.json:
            _announce(original, reproduction, drift)
        if judging_alone:
            again.reproduce_judging(original, reproduction, progress)
        else:
            again.reproduce(reproduction, progress)
    comparison = compare_runs(original.run, reproduction.path)
    if options.json:
        print_json(comparison.as_json() | {"run": str(reproduction.path), "notes": reproduction.notes})
    else:
        _show_results(comparison, ("original", "here"))
    return 1 if comparison.first_difference else 0


def diff(options: Namespace) -> int:
    from rlhf_eval.analysis.run_comparison import compare_runs

    comparison = compare_runs(options.first, options.second)
    if options.json:
        return print_json(comparison.as_json())
    _show_drift(comparison.drift, comparison.recorded, ("A", "B"))
    _show_results(comparison, ("A", "B"))
    return 0


def export(options: Namespace) -> int:
    from rlhf_eval.runs.bundle import export as pack

    archive: Path = options.output or Path(f"{options.run.resolve().name}.tar.gz")
    index = pack(options.run, archive)
    size = archive.stat().st_size
    print(f"{archive}: {len(index['files'])} files, {size / 1e6:.1f} MB, sha256 of each inside")
    for name in index["left_out"]:
        print(f"not in it: {name}")
    return 0


def import_(options: Namespace) -> int:
    from rlhf_eval.runs.bundle import import_ as unpack

    run = unpack(options.archive, options.output)
    print(f"{run}\nrlhf-eval reproduce {run}")
    return 0


def _refuse_foreign(original: Any, foreign: Mapping[str, str]) -> None:
    """Raises ConfigError: what somebody sent is executed by nobody who has not read it."""
    found = "\n".join(f"  {field}: {text}" for field, text in foreign.items())
    raise ConfigError(
        f"{original.run} came in an archive, and its configuration has this machine execute or ask:\n{found}",
        "Read that, and the files that it names; then give the same command with --trust.",
    )


def _require_no(drift: Sequence[Any], original: Any) -> None:
    """Raises ConfigError where anything differs, or nothing was recorded."""
    if not original.manifest:
        raise ConfigError(
            f"{original.run} has no manifest.json: there is nothing to compare this machine with.",
            "Leave out --strict, or take the whole run directory or its archive.",
        )
    if drift:
        found = "; ".join(f"{one.kind} {one.name}: {one.first} → {one.second}" for one in drift[:SHOWN])
        more = f" and {len(drift) - SHOWN} more" if len(drift) > SHOWN else ""
        raise ConfigError(
            f"{len(drift)} differences from {original.run}: {found}{more}.",
            "Make them equal (its commit and code.diff; `pip install -r` its requirements.txt), or "
            "leave out --strict to reproduce it as it is and have the differences named.",
        )


def _announce(original: Any, reproduction: Any, drift: Sequence[Any]) -> None:
    print(f"original: {original.run}\nrun directory: {reproduction.path}")
    for note in reproduction.notes:
        print(note)
    for field, text in reproduction.foreign.items():
        print(f"trusted, from the archive: {field}: {text}")
    _show_drift(drift, bool(original.manifest), ("original", "here"))


def _show_drift(drift: Sequence[Any], recorded: bool, sides: tuple[str, str]) -> None:
    if not recorded:
        print("Without a manifest.json, only the configurations can be compared, not what they ran with.")
    elif not drift:
        print("Configuration, code, packages, machine, data and templates: no difference.")
    if not drift:
        return
    rows = [
        (one.kind, one.name, _short(one.first), _short(one.second), ", ".join(one.stages))
        for one in drift[:SHOWN]
    ]
    print_table(("differs in", "name", *sides, "stages"), rows)
    if len(drift) > SHOWN:
        print(f"and {len(drift) - SHOWN} more; --json has all")


def _show_results(comparison: Any, sides: tuple[str, str]) -> None:
    rows = [(stage.stage, stage.outcome, stage.found) for stage in comparison.stages]
    print_table(("stage", "outcome", "found"), rows)
    for stage in comparison.stages:
        if stage.files and stage.outcome != "not compared":
            print(f"Tolerance of {stage.stage}: {stage.tolerance}.")
    numbers = {**comparison.curves, **comparison.scores}
    changed = {name: pair for name, pair in numbers.items() if pair[0] != pair[1]}
    if changed:
        print_table(
            ("last checkpoint, scores", *sides, "difference"),
            [(name, f"{a:.4g}", f"{b:.4g}", f"{b - a:+.3g}") for name, (a, b) in changed.items()],
        )
    console().print(comparison.words)


def _short(value: Any) -> str:
    """Hashes are cut to what tells them apart."""
    text = "none" if value is None else str(value)
    return text[:12] if len(text) in (40, 64) and text.isalnum() else text
