"""`python -m rlhf_eval.sweep.judge_server FILE`: a job that serves a judge to all runs of a sweep.

FILE says which (`write`). Where the server listens stands beside it as `<name>.address` while it is up.
"""

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import TypeAdapter

from rlhf_eval.addresses import on_this_machine
from rlhf_eval.config.plain import plain
from rlhf_eval.config.schema import JudgeConfig
from rlhf_eval.errors import RlhfEvalError
from rlhf_eval.files import read_json, read_jsonl, write_json, write_text
from rlhf_eval.interruption import EXIT_CODE, Interrupted, listen, stop_listening
from rlhf_eval.judging.server import serving
from rlhf_eval.sweep import slurm

FAILED = "error:"
"""What stands in the place of the address where there will be no server."""
PATIENCE_SECONDS = 30.0
"""Between two looks at SLURM's queue."""


def write(file: Path, judge: JudgeConfig) -> None:
    """Write what the server's job reads."""
    write_json(file, plain(judge))


def address_file(file: Path) -> Path:
    """Where the address stands while the server is up."""
    return file.with_suffix(".address")


def serve(file: Path) -> None:
    """Serve until no job of the sweep needs the judge any more.

    Raises:
        JudgeError: the judge's command could not be started.
        Interrupted: a signal came: to be started again.
    """
    judge = TypeAdapter(JudgeConfig).validate_python(read_json(file))
    address = address_file(file)
    try:
        with serving(judge) as base_url:
            write_text(address, f"{seen_by_others(base_url, os.environ)}\n")
            while _is_needed(file.parent):
                time.sleep(PATIENCE_SECONDS)
    finally:
        address.unlink(missing_ok=True)


def seen_by_others(base_url: str, environment: Mapping[str, str]) -> str:
    """An address of this machine as other nodes call it."""
    parts = urlsplit(base_url)
    if not on_this_machine(base_url) and parts.hostname != "0.0.0.0":  # noqa: S104 - as vLLM prints it
        return base_url
    host = environment.get("SLURMD_NODENAME") or socket.gethostname()
    return urlunsplit(parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}"))


def _is_needed(folder: Path) -> bool:
    jobs = [row["job_id"] for row in read_jsonl(folder / "jobs.jsonl") if row["kind"] == "judge"]
    try:
        return not jobs or any(state.active for state in slurm.queue(jobs).values())
    except slurm.SlurmError:  # SLURM's controller is away for a moment, and nothing is known
        return True


if __name__ == "__main__":
    listen()
    try:
        serve(Path(sys.argv[1]))
    except Interrupted:
        sys.exit(EXIT_CODE)
    except RlhfEvalError as error:
        write_text(address_file(Path(sys.argv[1])), f"{FAILED} {error}\n")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        stop_listening()
