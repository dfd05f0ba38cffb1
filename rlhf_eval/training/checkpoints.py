"""Checkpoints: written to their end before they count, and one of them published as the trained policy."""

import os
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from rlhf_eval.config.schema import PolicyConfig
from rlhf_eval.errors import StageError
from rlhf_eval.files import read_json, write_json

COMPLETE = "complete.json"
PEAK = "peak"
WEIGHTS = "model*.safetensors"
INDEX = "model.safetensors.index.json"
"""Files with the weights of a whole policy: one, or several with an index."""


def last_complete(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; a kill in the middle of one leaves it unmarked."""
    complete = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=update_of, default=None)


def update_of(checkpoint: Path) -> int:
    """After how many optimiser updates it was written."""
    return int(checkpoint.name.split("-")[1])


def remove_incomplete(folder: Path) -> None:
    """Delete checkpoints that were never finished: what they hold cannot be told from what they lack."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)


def saving_said(save: Callable[..., None], folder: Path) -> Callable[..., None]:
    """The same function; what goes wrong in it is a StageError that says so.

    Each of the libraries that write a checkpoint has an error of its own for a full disk.
    """

    @wraps(save)
    def saving(*words: Any, **named: Any) -> None:
        try:
            save(*words, **named)
        except Exception as error:
            raise StageError(
                f"A checkpoint could not be written to {folder}: {' '.join(str(error).split())[:300]}",
                "Make room and give the same command again: it continues from the last complete checkpoint.",
            ) from error

    return saving


def discard(folder: Path) -> None:
    """Delete the checkpoints of a finished training: with optimiser state they take many times the room of
    the policy."""
    shutil.rmtree(folder, ignore_errors=True)


def mark_complete(checkpoint: Path, step: int) -> None:
    """Put all of a checkpoint on the disk, then mark it."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    write_json(checkpoint / COMPLETE, {"step": step})


def keep_as_peak(checkpoint: Path, step: int) -> None:
    """Keep a checkpoint's weights beside the checkpoints, which are deleted as newer ones come."""
    target = checkpoint.with_name(PEAK)
    temporary = checkpoint.with_name(f"{PEAK}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    # Optimiser state is not needed to publish: with DeepSpeed it has folders of its own.
    temporary.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and path.name not in ("optimizer.pt", COMPLETE):
            shutil.copy2(path, temporary)
    mark_complete(temporary, step)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def publish(checkpoint: Path, target: Path, config: PolicyConfig) -> None:
    """A checkpoint's weights as an ordinary model folder, or adapter folder, renamed into place when
    complete. No model is built: tensors are converted to `config.dtype` file by file."""
    from transformers import AutoTokenizer

    temporary = target.with_name(f"{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    if (checkpoint / "adapter_config.json").exists():
        shutil.copy2(checkpoint / "adapter_model.safetensors", temporary)
        settings = read_json(checkpoint / "adapter_config.json")
        if isinstance(settings["target_modules"], list):  # of a set: in another order every time
            settings["target_modules"].sort()
        write_json(temporary / "adapter_config.json", settings)
    else:
        tied = _tied(checkpoint)
        files = sorted(checkpoint.glob(WEIGHTS))
        size = sum(_convert(file, temporary, config.dtype, tied) for file in files)
        if (index := checkpoint / INDEX).exists():
            known = read_json(index)
            known["metadata"]["total_size"] = size
            known["weight_map"] = {n: file for n, file in known["weight_map"].items() if n not in tied}
            write_json(temporary / index.name, known)
        write_json(temporary / "config.json", read_json(checkpoint / "config.json") | {"dtype": config.dtype})
        if (generation := checkpoint / "generation_config.json").exists():
            shutil.copy2(generation, temporary)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)


def _tied(folder: Path) -> set[str]:
    """Names of weights that are others under a second name. DeepSpeed's checkpoints hold both."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # After a training with ZeRO-3 a model that is made would be split over its processes.
    unset_hf_deepspeed_config()
    with torch.device("meta"):  # shapes only
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return set(model.all_tied_weights_keys)


def _convert(file: Path, folder: Path, dtype: str, left_out: set[str]) -> int:
    """Write a file of weights in another number format to a folder; the bytes of its tensors."""
    import torch
    from safetensors.torch import load_file, save_file

    wanted = getattr(torch, dtype)
    tensors = {
        name: value.to(wanted) if value.is_floating_point() else value
        for name, value in load_file(file).items()
        if name not in left_out
    }
    save_file(tensors, folder / file.name, {"format": "pt"})
    return sum(value.nbytes for value in tensors.values())
