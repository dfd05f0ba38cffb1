"""One stage's folder: what marks it as done, and what happens to work that cannot be used.

    inputs.json   hash of everything the stage depends on, and how often it was begun; written when it begins
    …             the stage's own files
    environment.json    code, packages and machine that made them
    done.json     the same hash, size and SHA-256 of every output, and what made them; written last

A stage takes the `output_hash` of earlier stages into its own input hash, so a stage that is redone with
the same result leaves those after it alone.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_eval.errors import DataError
from rlhf_eval.files import is_inside, read_json, read_object, sha256_file, sha256_json, write_json

ENVIRONMENT = "environment.json"
WEIGHTS = (".safetensors", ".bin")
LARGE = 2**18
"""Bytes from which a file with unchanged size and modification time is not read again."""


@dataclass(frozen=True)
class StageFolder:
    """The folder `stages/<name>` of one run."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def is_done(self, input_hash: str) -> bool:
        """Whether the stage finished with these inputs and every output is still what it was."""
        marker = self._marker("done.json")
        return marker.get("input_hash") == input_hash and self._damaged(marker) is None

    def begin(self, input_hash: str) -> str:
        """Make the folder ready for the stage to work in.

        Unfinished work with the same inputs stays. Work with other inputs moves to `<name>.stale-N`, and
        a finished stage with a damaged file to `<name>.damaged-N`, so nothing computed is lost.

        Returns:
            One sentence about what was found; empty for a fresh start.
        """
        note = ""
        begun, done = self._marker("inputs.json"), self._marker("done.json")
        attempts = 1 + begun.get("attempts", 0)
        if begun.get("input_hash", input_hash) != input_hash:
            note = f"Its inputs have changed; the earlier work is kept in {self._move_aside('stale')}."
        elif (self.path / "done.json").exists():
            damage = self._damaged(done) or "done.json does not belong to it"
            note = f"{damage}; it is done anew, the earlier work is kept in {self._move_aside('damaged')}."
        elif begun:
            note = "It continues unfinished work."
        elif self.path.exists() and any(self.path.iterdir()):
            note = f"It had no inputs.json; what was there is kept in {self._move_aside('stale')}."
        if not self.path.exists():
            attempts = 1
        write_json(self.path / "inputs.json", {"input_hash": input_hash, "attempts": attempts})
        return note

    @property
    def attempts(self) -> int:
        """How often the stage was begun with its present inputs."""
        return self._marker("inputs.json").get("attempts", 0)

    def finish(
        self,
        outputs: Iterable[Path],
        made_by: dict[str, Any] | None = None,
        environment: dict[str, Any] | None = None,
    ) -> None:
        """Mark the stage as done.

        Args:
            outputs: its files, or folders of them; all must exist.
            made_by: on what machine and by what command, for the record.
            environment: code, packages and machine, for the record; in a file of its own, as done.json is
                read often.
        """
        write_json(self.path / ENVIRONMENT, environment or {})
        write_json(
            self.path / "done.json",
            {
                "input_hash": read_json(self.path / "inputs.json")["input_hash"],
                "outputs": {
                    file.relative_to(self.path).as_posix(): _describe(file) for file in _files(outputs)
                },
                "made_by": made_by or {},
            },
        )

    def take(self, original: "StageFolder", input_hash: str) -> None:
        """Take another run's finished work in the place of one's own, as far as its files are there, weights
        left where they are; the stages after it see the output hash that they saw there.

        Args:
            input_hash: of what the stage depends on here.

        Raises:
            DataError: the original is not done, or a file of it has changed.
        """
        marker = original._marker("done.json")
        there = {
            name: output
            for name, output in original.outputs.items()
            if (original.path / name).is_file() and not name.endswith(WEIGHTS)
        }
        if damage := original._damaged({"outputs": there}):
            raise DataError(
                f"{original.path}: {damage}.", "Restore the file, or take another copy of the run."
            )
        for name in there:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original.path / name, self.path / name)
        taken = {
            "input_hash": input_hash,
            "outputs": {name: output | _describe(self.path / name) for name, output in there.items()},
            "output_hash": original.output_hash,
            "taken_from": original.path.as_posix(),
        }
        write_json(self.path / ENVIRONMENT, read_object(original.path / ENVIRONMENT))
        write_json(self.path / "inputs.json", {"input_hash": input_hash, "attempts": 0})
        write_json(self.path / "done.json", marker | taken)

    @property
    def outputs(self) -> dict[str, dict[str, Any]]:
        """Name → size, modification time and SHA-256 of what a finished stage put out.

        Raises:
            DataError: the stage is not done, or its marker names a file outside its folder.
        """
        outputs = self._marker("done.json").get("outputs")
        if not isinstance(outputs, dict):
            raise DataError(f"{self.path} is not done.", "Let that run finish first.")
        if outside := [name for name in outputs if not is_inside(name)]:
            raise DataError(
                f"{self.path}/done.json names {outside[0]!r}, which is outside its folder.",
                "Do not trust that run; take another copy of it.",
            )
        return outputs

    @property
    def output_hash(self) -> str:
        """Hash of names and contents of the outputs of a finished stage; of one that was taken from another
        run, what the hash was there."""
        done = read_json(self.path / "done.json")
        hashes = {name: output["sha256"] for name, output in done["outputs"].items()}
        return done.get("output_hash") or sha256_json(hashes)

    def _marker(self, name: str) -> dict[str, Any]:
        """The content of inputs.json or done.json; empty where it is absent or unreadable."""
        try:
            value = read_json(self.path / name)
        except DataError:
            return {}
        return value if isinstance(value, dict) else {}

    def _damaged(self, marker: dict[str, Any]) -> str | None:
        """What is wrong with a finished stage's files; None if nothing is."""
        if not isinstance(marker.get("outputs"), dict):
            return "done.json is damaged"
        for name, expected in marker["outputs"].items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if not _is_unchanged(file, expected):
                return f"{name} has changed since it was written"
        return None

    def _move_aside(self, word: str) -> str:
        number = 1
        while (aside := self.path.with_name(f"{self.name}.{word}-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside.name


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(file)}


def _is_unchanged(file: Path, expected: dict[str, Any]) -> bool:
    stat = file.stat()
    if stat.st_size != expected["size"]:
        return False
    if stat.st_size >= LARGE and stat.st_mtime_ns == expected["mtime_ns"]:
        return True
    return sha256_file(file) == expected["sha256"]
