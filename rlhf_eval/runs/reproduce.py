"""Executing a run's frozen configuration again, in a directory of its own.

The configuration is taken as it was frozen: nothing is composed, so what `conf/` says today does not matter.
Hub names are loaded at the commits that the original had.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_eval.config.compose import changed, hash8, load, run_path
from rlhf_eval.config.executes import executes, sends
from rlhf_eval.config.inputs import require_inputs
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.determinism import make_deterministic
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import read_json, read_object
from rlhf_eval.generation.base_answers import answers_file, uses_base
from rlhf_eval.lab.build import ensure, world_path
from rlhf_eval.progress import Progress
from rlhf_eval.runs.bundle import BASE_ANSWERS, data_of, import_, is_imported
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.environment import environment, identity
from rlhf_eval.runs.provenance import made_from
from rlhf_eval.runs.revisions import adopt, pinned, resolved
from rlhf_eval.runs.stage_inputs import files_of, input_hash
from rlhf_eval.runs.stages import execute
from rlhf_eval.sources import localise, replaced

CONFIG = "config.yaml"
BEFORE_JUDGING = ("benchmark", "train", "generate")
JUDGING = ("judge", "score")


@dataclass(frozen=True)
class Original:
    """What is to be reproduced.

    Attributes:
        config: as it was frozen.
        run: its run directory, or the folder of a configuration that came alone.
        manifest: what was recorded of it; empty where nothing was.
    """

    config: RunConfig
    run: Path
    manifest: dict[str, Any]


@dataclass(frozen=True)
class Reproduction:
    """What will be executed.

    Attributes:
        path: its run directory.
        notes: what is done otherwise than in the original, in words.
        foreign: field → what came in an archive and is executed or asked here; empty for a run of one's own.
    """

    config: RunConfig
    path: Path
    notes: tuple[str, ...]
    foreign: dict[str, str]


def open_original(source: Path) -> Original:
    """A run directory, its config.yaml, or an exported archive, which is imported into `runs`.

    Raises:
        ConfigError, DataError: it is none of them, or damaged.
    """
    if source.is_dir():
        run = source
    elif source.suffix not in (".yaml", ".yml"):
        run = import_(source, Path("runs"))
    elif source.name == CONFIG:
        run = source.parent
    else:
        raise ConfigError(
            f"{source} is not called {CONFIG}, as a frozen configuration is.",
            f"Copy it into a folder of its own as {CONFIG}.",
        )
    return Original(load(run / CONFIG), run, read_object(run / "manifest.json"))


def prepare(
    original: Original, overrides: Sequence[str], path: Path | None, judging_alone: bool
) -> Reproduction:
    """What is to be executed, and where.

    It stands in an experiment of its own, `<experiment>-reproduced`, so that nothing that the original's
    experiment shares (answers, verdicts, scores) is taken for a result: with judging alone in
    `<experiment>-rejudged`, with overrides that change results in `<experiment>-reproduced-<hash8>`.

    Args:
        overrides: `field.path=value`.
        path: the run directory; None makes one below the configuration's `output`.
        judging_alone: whether what comes before judging is taken from the original.

    Raises:
        ConfigError: an override is wrong, or a file is neither here nor in the archive.
        DataError: the place belongs to the original, or to a reproduction of the other kind.
    """
    config, notes = original.config, list[str]()
    own = changed(config, overrides)
    absent = [
        name
        for name, benchmark in own.benchmarks.items()
        if benchmark.private and not all(_is_here(source) for source in benchmark.data.values())
    ]
    if absent:
        notes.append(f"Without the private benchmarks that are not on this machine: {', '.join(absent)}.")
        kept = {name: benchmark for name, benchmark in own.benchmarks.items() if name not in absent}
        own = replace(own, benchmarks=kept)
    if own.experiment == config.experiment:
        other = f"-{hash8(own)}" if fingerprint(own) != fingerprint(config) else ""
        word = "rejudged" if judging_alone else "reproduced"
        own = replace(own, experiment=f"{config.experiment}-{word}{other}")
    own = replaced(own, data_of(original.run))
    require_inputs(own)
    found = path or run_path(own)
    if found.resolve().parent == original.run.resolve().parent:
        raise DataError(
            f"{found} is in the original's experiment, whose answers, verdicts and scores would be taken.",
            "Name another folder with --run-dir, such as runs/again/run.",
        )
    if executed := _executed(found, judging_alone):
        notes.append(
            f"Executed here before, and not again: {', '.join(executed)}. Delete {found} to begin anew."
        )
    foreign = executes(own) | sends(own) if is_imported(original.run) else {}
    return Reproduction(own, found, tuple(notes), foreign)


def about_to_run(original: Original, reproduction: Reproduction, progress: Progress) -> dict[str, Any]:
    """The manifest that the reproduction will have, as far as it is known before: to be compared with the
    original's. From here on the experiment has the original's revisions."""
    config, shared = reproduction.config, reproduction.path.parent / "shared"
    world = ensure(config.lab, 2, progress) if config.lab else None
    adopt(original.manifest.get("revisions", {}), shared)
    if config.deterministic:
        make_deterministic()  # its variables are part of the environment
    revisions = resolved(config, shared)
    executed = pinned(localise(config, world), revisions)
    here = environment()
    return {
        **made_from(config, executed, world, revisions),
        "environment": identity(here),
        "environments": {identity(here): here},
    }


def reproduce(reproduction: Reproduction, progress: Progress) -> None:
    """Execute the whole run. The same call continues after an interruption.

    Raises:
        RlhfEvalError, Interrupted: as `execute`.
    """
    execute(reproduction.config, reproduction.path, progress)


def reproduce_judging(original: Original, reproduction: Reproduction, progress: Progress) -> None:
    """Judge and score the original's answers again; whatever comes before is taken from it.

    Raises:
        DataError: the original has no answers, or those of the policy base that they are compared with are
            not at hand.
        RlhfEvalError, Interrupted: as `execute`.
    """
    config, path = reproduction.config, reproduction.path
    directory, source = RunDirectory.open(path, config), RunDirectory(original.run)
    world = ensure(config.lab, 2, progress) if config.lab else None
    shared = path.parent / "shared"
    if uses_base(config):
        _take_base_answers(original, answers_file(shared, config, world))
    chosen, outputs = fingerprint(config), dict[str, str]()
    files = files_of(config, shared, world)
    with directory.locked():
        for name in BEFORE_JUDGING:
            stage = directory.stage(name)
            inputs = input_hash(name, chosen, files, outputs)
            if name != "benchmark" or (source.stage(name).path / "done.json").exists():
                if not stage.is_done(inputs):
                    stage.take(source.stage(name), inputs)
                outputs[name] = stage.output_hash
    execute(config, path, progress, JUDGING)


def _executed(path: Path, judging_alone: bool) -> list[str]:
    """The stages that an earlier call has finished in a reproduction's directory.

    Raises:
        DataError: it was a reproduction of the other kind.
    """
    markers = {name: path / "stages" / name / "done.json" for name in (*BEFORE_JUDGING, *JUDGING)}
    done = {name: read_json(file) for name, file in markers.items() if file.exists()}
    taken = [name for name, marker in done.items() if "taken_from" in marker]
    if done and bool(taken) != judging_alone:
        kind = "judged the original's answers" if taken else "executed every stage"
        raise DataError(f"A reproduction in {path} has {kind}.", "Name another folder with --run-dir.")
    return [name for name in done if name not in taken]


def _take_base_answers(original: Original, file: Path) -> None:
    """Those of the policy base, as the original's experiment or archive has them."""
    if file.exists():
        return
    config = original.config
    world = world_path(config.lab) if config.lab else None
    places = [original.run / BASE_ANSWERS, answers_file(original.run.parent / "shared", config, world)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"The answers of the policy base are not at {places[1]}, nor in an archive of the run.",
            "Leave out --stage: the whole run makes them again.",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(found, file)


def _is_here(source: str) -> bool:
    """Whether a source of a private benchmark can be read: a file of this machine, or one of the lab."""
    return source.startswith("lab:") or Path(source).expanduser().is_file()
