"""Waiting for what one process does alone: writing to the disk takes as long as the disk takes."""

from datetime import timedelta
from functools import cache
from typing import Any

PATIENCE = timedelta(days=2)
"""Longer than any disk; a process that died is noticed by the launcher, which ends the others."""


def wait_for_everyone() -> None:
    """Wait until all processes of the training are here, however long one of them takes.

    Every other wait of a training ends after `COLLECTIVE_SECONDS`. All processes must come here first before
    one of them can be late: `train` begins with it.
    """
    import torch

    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        torch.distributed.barrier(_patient_processes())


@cache
def _patient_processes() -> Any:
    import torch

    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
