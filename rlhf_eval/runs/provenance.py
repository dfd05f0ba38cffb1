"""Where a run's numbers came from: `manifest.json`, `requirements.txt`, `code.diff`. Nothing secret.

    command, hostname, scheduler    of the newest attempt that executed a stage
    seeds, sha256, revisions, templates, judges      what it was made from
    environments                    by a short hash: code, packages, machine, variables
    stages                          of each finished one: what it took in and gave out, where, and the weights

Stages of one run may be executed on different machines; each is recorded with the environment that made it.
`done.json` and `environment.json` of a stage have the same, so the manifest can be written anew at any time.
`code.diff` and `requirements.txt` are of the newest such attempt too; those of earlier ones that differ stay
as `code.<hash>.diff`.
"""

import os
import shlex
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rlhf_eval.config.compose import hash8, run_name
from rlhf_eval.config.inputs import judges
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import (
    read_jsonl,
    read_object,
    sha256_file,
    sha256_json,
    write_json,
    write_text,
)
from rlhf_eval.keys import without_secrets
from rlhf_eval.runs.directory import RunDirectory, now
from rlhf_eval.runs.environment import (
    diff_of_code,
    environment,
    identity,
    installed,
    packages_of,
    requirements,
)
from rlhf_eval.runs.stage_folder import ENVIRONMENT, WEIGHTS
from rlhf_eval.runs.stage_inputs import NEEDS
from rlhf_eval.runs.templates import templates
from rlhf_eval.sources import LAB, local_hashes, localise

FORMAT = 2
SECOND = "second_judges."
EVALUATIONS = ("alpaca_eval", "arena_hard")
SCHEDULER_VARIABLES = (
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURM_NNODES",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURMD_NODENAME",
)


def write_manifest(directory: RunDirectory, made_from: dict[str, Any]) -> None:
    """Write what is known of a run by now.

    Args:
        made_from: see `made_from`.
    """
    here = environment()
    diff, diff_sha256 = diff_of_code()
    _write_beside(directory.path / "requirements.txt", requirements(installed()))
    _write_beside(directory.path / "code.diff", diff)
    finished = {name: done for name in NEEDS if (done := _done(directory, name))}
    environments = (here, *(_readable(directory.stage(name).path / ENVIRONMENT) for name in finished))
    write_json(
        directory.manifest_file,
        {
            "format": FORMAT,
            "written_at": _readable(directory.manifest_file).get("written_at") or now(),
            **who_and_where(),
            "code_diff_sha256": diff_sha256,
            **made_from,
            "judges": _judges(directory, made_from["judges"]),
            "environments": {identity(found): found for found in environments},
            "stages": {name: _stage(directory, name, done) for name, done in finished.items()},
        },
    )


def made_from(
    config: RunConfig, executed: RunConfig, world: Path | None, revisions: dict[str, str]
) -> dict[str, Any]:
    """What a run's results follow from, beside the machine: the part of a manifest that is the same for the
    same run anywhere (but for private files, whose hashes are salted).

    Args:
        config: as it is frozen.
        executed: the same, localised and with its revisions pinned.
        revisions: commits by the names of `revisions.hub_names`.
    """
    return {
        "run": run_name(config),
        "hash8": hash8(config),
        "seeds": {"run": config.seed} | ({"lab": config.lab.seed} if config.lab else {}),
        "sha256": _file_hashes(config, world),
        "revisions": revisions,
        "templates": templates(executed),
        "judges": {name: {"asked": judge.model, "answered": {}} for name, judge in judges(config).items()},
        **({"engine": packages_of(config.generation.python)} if config.generation.python else {}),
    }


def who_and_where() -> dict[str, Any]:
    """The command, the machine and the job of this process, and its environment's name."""
    return {
        "command": command_line(),
        "hostname": socket.gethostname(),
        "scheduler": {name: os.environ[name] for name in SCHEDULER_VARIABLES if name in os.environ},
        "environment": identity(environment()),
    }


def command_line() -> str:
    """The command of this process, without what is nobody else's business."""
    return without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))


def _done(directory: RunDirectory, name: str) -> dict[str, Any]:
    """The marker of a stage that is finished and says what made it; empty for another."""
    folder = directory.stage(name).path
    done = _readable(folder / "done.json")
    return done if done.get("made_by") and _readable(folder / ENVIRONMENT) else {}


def _readable(file: Path) -> dict[str, Any]:
    """A JSON object; empty where it is absent or damaged: what is damaged is done or written anew."""
    try:
        return read_object(file)
    except DataError:
        return {}


def _stage(directory: RunDirectory, name: str, done: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of a finished stage."""
    weights = {
        file: output["sha256"] for file, output in done["outputs"].items() if Path(file).suffix in WEIGHTS
    }
    return {
        "input_hash": done["input_hash"],
        "output_hash": directory.stage(name).output_hash,
        **({"weights_sha256": sha256_json(weights)} if weights else {}),
        **done["made_by"],
    }


def _write_beside(file: Path, text: str) -> None:
    """Write a text; what an earlier attempt wrote otherwise is kept under a name with its hash."""
    if file.exists() and file.read_text(encoding="utf-8") != text:
        file.rename(file.with_name(f"{file.stem}.{sha256_file(file)[:8]}{file.suffix}"))
    if text:
        write_text(file, text)


def _judges(directory: RunDirectory, asked: dict[str, Any]) -> dict[str, Any]:
    """Which snapshots answered, and how often: a name such as `gpt-4.1` may stand for another tomorrow."""
    found = {}
    for name, judge in asked.items():
        folder = directory.stage("judge").path
        folder = folder / name.removeprefix(SECOND) if name.startswith(SECOND) else folder
        files = [folder / f"{evaluation}.jsonl" for evaluation in EVALUATIONS]
        rows = [row for file in files if file.exists() for row in read_jsonl(file)]
        answered = Counter(row["answered_by"] for row in rows if row.get("answered_by"))
        found[name] = judge | {"answered": dict(sorted(answered.items()))}
    return found


def _file_hashes(config: RunConfig, world: Path | None) -> dict[str, str]:
    """SHA-256 of the files that the run reads, by their names; those of private benchmarks are salted,
    except the lab's, which everybody can build."""
    from rlhf_eval.benchmarks.private import salted_key

    hashes = local_hashes(config, world)
    for benchmark in config.benchmarks.values():
        if benchmark.private:
            salted = salted_key(localise(benchmark, world))
            own = [source for source in benchmark.data.values() if not source.startswith(LAB)]
            hashes |= {source: salted(hashes[source]) for source in own if source in hashes}
    return hashes
