"""What a run's processes have printed: of its newest job, or of its newest attempt."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rlhf_eval.errors import DataError
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.sweep.record import tasks_of

POLL_SECONDS = 0.5


def log_files(run: Path) -> list[Path]:
    """The logs of a run's newest job, and what the processes of its newest attempt wrote, oldest first.

    Raises:
        DataError: the folder is no run's, or has no log yet.
    """
    directory = RunDirectory(run)
    if not directory.config_file.exists():
        raise DataError(f"{run} is no run directory.", "`rlhf-eval status EXPERIMENT_FOLDER` lists the runs.")
    jobs = [task.log for task in tasks_of(run.parent).get(run.name, []) if task.log.exists()]
    newest = sorted(jobs, key=lambda log: log.stat().st_mtime)[-1:]
    attempts = sorted((run / "logs").glob("attempt_*"), key=lambda folder: int(folder.name.split("_")[1]))
    files = [*newest, *(run / "logs").glob("output.log"), *(attempts[-1].glob("*") if attempts else ())]
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise DataError(f"{run} has no log yet.", "See with `rlhf-eval status` whether it has begun.")
    return sorted(files, key=lambda file: file.stat().st_mtime)


def follow(run: Path, ended: Callable[[], bool]) -> Iterator[str]:
    """What the logs hold and what is added to them, under a heading where the file changes.

    Args:
        ended: whether nothing more will be added.
    """
    told: dict[Path, int] = {}
    shown: Path | None = None
    last = False
    while True:
        for file in log_files(run):
            with file.open("rb") as stream:
                stream.seek(told.get(file, 0))
                text = stream.read()
            told[file] = told.get(file, 0) + len(text)
            if text:
                if file != shown:
                    yield f"==> {file} <==\n"
                    shown = file
                yield text.decode("utf-8", "replace")
        if last:
            return
        last = ended()
        if not last:
            time.sleep(POLL_SECONDS)
