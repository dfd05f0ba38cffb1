"""Looking for what must not leave a machine."""

import re
from collections.abc import Iterable
from pathlib import Path

from rlhf_eval.errors import DataError
from rlhf_eval.keys import secrets

PATTERNS = re.compile(
    rb"sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}|AKIA[0-9A-Z]{16}|"
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/@\s\"']+:[^/@\s\"']+@"
)
"""Keys as their makers write them, and addresses with a password."""


def refuse_secrets(files: Iterable[Path], written_by_hand: Iterable[Path]) -> None:
    """Refuse files that hold a secret: the value of an environment variable named like one, or, in files that
    people write, a text that looks like one.

    Raises:
        DataError: naming file and line, never the secret.
    """
    values = {value.encode(): name for value, name in secrets().items()}
    by_hand = set(written_by_hand)
    for file in files:
        for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
            name = next((name for value, name in values.items() if value in line), None)
            if name is None and file in by_hand and PATTERNS.search(line):
                name = "something that looks like a key or a password"
            if name is not None:
                raise DataError(
                    f"{file}, line {number} holds {name}: it must not leave this machine.",
                    "Take it out of the file (and out of the working tree, if the file is code.diff), then "
                    "export again; have the key replaced if the file was shared already.",
                )
