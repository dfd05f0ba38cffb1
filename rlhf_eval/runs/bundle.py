"""One archive with what reproduces a run: `rlhf-eval export` packs it, `import` unpacks it.

    <run name>/bundle.json      first: size and SHA-256 of every file; which of the run's data are in it
               config.yaml  manifest.json  requirements.txt  code.diff  metrics.jsonl  status.json
               stages/…         outputs and markers, without weights and checkpoints
               data/…           local files that the configuration names, private ones excepted; unpacked
                                beside the run, once for all of its experiment
               base_answers.jsonl   those of the policy base, where the run was compared with them

The same run gives the same bytes. Nothing in an archive is trusted: only plain files that `bundle.json` lists
are unpacked, into a folder of their own, and only if size and hash are right.
"""

import gzip
import io
import json
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rlhf_eval import __version__
from rlhf_eval.benchmarks.private import leaks
from rlhf_eval.config.compose import load
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.errors import DataError
from rlhf_eval.files import is_inside, read_json, replacing, sha256_file
from rlhf_eval.generation.base_answers import answers_file, uses_base
from rlhf_eval.lab.build import world_path
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.secrets import refuse_secrets
from rlhf_eval.runs.stage_folder import ENVIRONMENT
from rlhf_eval.runs.stage_inputs import NEEDS
from rlhf_eval.sources import LAB, local_places

FORMAT = 1
INDEX = "bundle.json"
DATA = "data"
LARGEST_INDEX = 2**24
"""Bytes; a run has a few dozen files."""
BASE_ANSWERS = "base_answers.jsonl"
BY_HAND = ("config.yaml", "manifest.json", "requirements.txt", "code.diff")
OF_RUN = (*BY_HAND, "metrics.jsonl", "status.json")
EARLIER = ("code.*.diff", "requirements.*.txt")
OF_STAGE = ("done.json", "inputs.json", ENVIRONMENT, "spent.jsonl")
ROWS = (".jsonl", ".json", ".csv", ".parquet", ".gz")
"""Ends of names of data, of which nobody has written every word."""
WEIGHTS = "policy"
"""Folder of the trained policy in stages/train, which stays where it is."""
_BLOCK = 2**20


def export(run: Path, archive: Path) -> dict[str, Any]:
    """Pack a run.

    Returns:
        The index of what was packed, with `left_out`: what reproduction needs and somebody else must have.

    Raises:
        ConfigError: it is no run directory.
        DataError: a file holds a secret or a private prompt, or the run is being executed.
    """
    config = load(run / "config.yaml")
    if RunDirectory(run).is_working():
        raise DataError(f"{run} is being worked on.", "Export it when it is done, or cancel it.")
    data, left_out = _data(config)
    files = dict(_files_of(run, config))
    names = {text: f"{DATA}/{sha256_file(place)[:32]}-{place.name}" for text, place in data.items()}
    files |= {names[text]: place for text, place in data.items()}
    written = [run / name for name in BY_HAND] + [*run.glob(EARLIER[0])]
    written += [place for place in data.values() if not place.name.endswith(ROWS)]
    refuse_secrets(files.values(), written)
    _refuse_private(config, list(files.values()))
    index = {
        "format": FORMAT,
        "run": run.resolve().name,
        "experiment": config.experiment,
        "rlhf_eval": __version__,
        "data": names,
        "left_out": left_out,
        "files": {
            name: {"size": file.stat().st_size, "sha256": sha256_file(file)} for name, file in files.items()
        },
    }
    with (
        replacing(archive) as stream,
        gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        text = json.dumps(index, indent=2, ensure_ascii=False).encode()
        tar.addfile(_member(f"{index['run']}/{INDEX}", len(text)), io.BytesIO(text))
        for name, file in files.items():
            with file.open("rb") as content:
                tar.addfile(_member(f"{index['run']}/{name}", index["files"][name]["size"]), content)
    return index


def import_(archive: Path, output: Path) -> Path:
    """Unpack an archive into `<output>/<experiment>-imported/<run name>` and return that run directory.

    One that is there already and came from the same archive is left as it is.

    Raises:
        DataError: the archive is damaged, is no exported run, was changed, or another run stands there.
    """
    try:
        with tarfile.open(archive, "r:gz") as tar:
            index = _index(archive, tar)
            run = output / f"{index['experiment']}-imported" / index["run"]
            if run.exists():
                if is_imported(run) and read_json(run / INDEX) == index:
                    return run
                raise DataError(
                    f"{run} is there already, and is not what {archive} holds.",
                    "Move it away, or name another folder with --output.",
                )
            unpacking = run.with_name(f".{run.name}.importing")
            shutil.rmtree(unpacking, ignore_errors=True)
            unpacking.mkdir(parents=True)
            try:
                _unpack(archive, tar, index, unpacking)
                _share(unpacking / DATA, run.parent / DATA)
                unpacking.rename(run)
            finally:
                shutil.rmtree(unpacking, ignore_errors=True)
            return run
    except FileNotFoundError as error:
        raise DataError(f"There is no file {archive}.", "Check the path.") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError, UnicodeDecodeError) as error:
        raise _damaged(archive, str(error)) from error


def is_imported(run: Path) -> bool:
    """Whether the run came in an archive."""
    return (run / INDEX).exists()


def data_of(run: Path) -> dict[str, str]:
    """The data that came with an imported run: name in its configuration → file here; empty for a run of this
    machine's own."""
    names: dict[str, str] = read_json(run / INDEX)["data"] if is_imported(run) else {}
    return {text: _with_function(text, run.parent / name) for text, name in names.items()}


def _files_of(run: Path, config: RunConfig) -> Iterator[tuple[str, Path]]:
    """The run's own files by their names in the archive."""
    earlier = sorted(file.name for pattern in EARLIER for file in run.glob(pattern))
    for name in (*OF_RUN, *earlier):
        if (run / name).is_file():
            yield name, run / name
    directory = RunDirectory(run)
    for stage in NEEDS:
        folder = directory.stage(stage).path
        outputs = directory.stage(stage).outputs if (folder / "done.json").exists() else {}
        kept = [name for name in outputs if PurePosixPath(name).parts[0] != WEIGHTS]
        for name in [*kept, *OF_STAGE]:
            if (folder / name).is_file():
                yield f"stages/{stage}/{name}", folder / name
    if uses_base(config):
        world = world_path(config.lab) if config.lab else None
        answers = answers_file(run.parent / "shared", config, world)
        if answers.is_file():
            yield BASE_ANSWERS, answers


def _data(config: RunConfig) -> tuple[dict[str, Path], list[str]]:
    """The local files that go along, by the names in the configuration, and what does not."""
    private = {
        source
        for benchmark in config.benchmarks.values()
        if benchmark.private
        for source in benchmark.data.values()
    }
    places = {text: place for text, place in local_places(config, None).items() if not text.startswith(LAB)}
    packed = {text: place for text, place in places.items() if place.is_file() and text not in private}
    folders = [f"{text} (a folder)" for text, place in places.items() if place.is_dir()]
    return packed, [*folders, *(f"{text} (private)" for text in sorted(private) if not text.startswith(LAB))]


def _refuse_private(config: RunConfig, files: list[Path]) -> None:
    """The texts of private benchmarks stand in no other file that is packed."""
    for benchmark in config.benchmarks.values():
        for source in benchmark.data.values() if benchmark.private else ():
            private = Path(source).expanduser()
            if private.is_file() and (found := next(leaks(private, files), None)):
                raise DataError(
                    f"{found} holds a prompt or an answer of the private benchmark '{benchmark.name}'.",
                    "Use other data for the run, or do not share it.",
                )


def _index(archive: Path, tar: tarfile.TarFile) -> dict[str, Any]:
    """What the archive says that it holds, checked."""
    first = tar.next()
    if first is None or not first.isreg() or PurePosixPath(first.name).name != INDEX:
        raise _damaged(archive, f"it does not begin with {INDEX}")
    if first.size > LARGEST_INDEX:
        raise _damaged(archive, f"its {INDEX} has {first.size} bytes")
    try:
        index = json.loads(_content(tar, first).read())
        names = [*index["files"], *index["data"].values(), index["run"], index["experiment"]]
        sizes = [(entry["size"], entry["sha256"]) for entry in index["files"].values()]
        well_formed = all(isinstance(size, int) and isinstance(digest, str) for size, digest in sizes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(archive, f"{INDEX} is malformed ({error})") from error
    if index.get("format") != FORMAT:
        raise DataError(
            f"{archive} has format {index.get('format')}, and this version of rlhf_eval reads {FORMAT}.",
            "Install the version that its bundle.json names.",
        )
    if not well_formed or not all(isinstance(name, str) and is_inside(name) for name in names):
        raise _damaged(archive, "a name in it leads out of its folder")
    if len(PurePosixPath(index["run"]).parts) != 1 or len(PurePosixPath(index["experiment"]).parts) != 1:
        raise _damaged(archive, "a name in it leads out of its folder")
    return index


def _unpack(archive: Path, tar: tarfile.TarFile, index: dict[str, Any], folder: Path) -> None:
    """Every listed file, into a new folder; nothing else."""
    size, room = (
        sum(entry["size"] for entry in index["files"].values()),
        shutil.disk_usage(folder.parent).free,
    )
    if size > room:
        raise DataError(
            f"{archive} unpacks to {size} bytes, and {room} are free.", "Make room, or distrust it."
        )
    left = dict(index["files"])
    while (member := tar.next()) is not None:
        name = member.name.removeprefix(f"{index['run']}/")
        expected = left.pop(name, None)
        if expected is None or not member.isreg() or member.size != expected["size"]:
            raise _damaged(archive, f"{member.name[:200]!r} is not what its {INDEX} lists")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with _content(tar, member) as content, (folder / name).open("wb") as file:
            shutil.copyfileobj(content, file)
        if sha256_file(folder / name) != expected["sha256"]:
            raise _damaged(archive, f"{name} was changed: its hash is another")
    if left:
        raise _damaged(archive, f"{next(iter(left))} is missing")
    (folder / INDEX).write_text(json.dumps(index, indent=2, ensure_ascii=False), encoding="utf-8")


def _share(unpacked: Path, shared: Path) -> None:
    """Data lie once for all runs of an experiment, so that they are the same file to all of them."""
    shared.mkdir(exist_ok=True)
    for file in unpacked.glob("*"):
        file.replace(shared / file.name)
    shutil.rmtree(unpacked, ignore_errors=True)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None  # a regular file
    return stream


def _with_function(text: str, place: Path) -> str:
    """`path/to/file.py:function` keeps its function."""
    _, mark, function = text.rpartition(".py:")
    return f"{place}:{function}" if mark else str(place)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Without owner and time: the same run gives the same archive."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def _damaged(archive: Path, what: str) -> DataError:
    return DataError(f"{archive} cannot be imported: {what}.", "Have it exported and sent again.")
