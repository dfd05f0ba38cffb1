"""Waiting for what one process does alone: writing to the disk takes as long as the disk takes."""

import time
from itertools import count

PAUSE_SECONDS = 0.02
"""Between two polls."""
MOST_SECONDS = 2 * 24 * 3600
"""Nothing else notices that a process died on a machine that was started by hand."""
_turns = count()


def wait_for_everyone() -> None:
    """Wait until all processes of the training have reached this call, for two days at most.

    Every exchange of tensors gives up after `COLLECTIVE_SECONDS`; this one counts in the store through which
    the processes found each other. The launcher notices a process that died, and ends the others.

    Raises:
        TimeoutError: after `MOST_SECONDS`.
    """
    import torch
    from torch.distributed.distributed_c10d import _get_default_store

    if not torch.distributed.is_initialized():
        return
    store, turn = _get_default_store(), f"rlhf_eval/turn {next(_turns)}"
    store.add(turn, 1)
    end = time.monotonic() + MOST_SECONDS
    while store.add(turn, 0) < torch.distributed.get_world_size():
        if time.monotonic() > end:
            raise TimeoutError("another process of the training did not come")
        time.sleep(PAUSE_SECONDS)
