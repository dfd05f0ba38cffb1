"""Processes wait for one that is late, longer than they wait for an exchange of tensors."""

import time
from datetime import timedelta
from pathlib import Path

import pytest

from rlhf_eval.processes import fork_context
from rlhf_eval.training.waiting import wait_for_everyone


def arrive(process: int, file: Path, late: float, exchange: bool) -> None:
    """Come at the same place as the other process, the second one late."""
    import torch

    torch.distributed.init_process_group(
        "gloo", f"file://{file}", timeout=timedelta(seconds=2), rank=process, world_size=2
    )
    for turn in range(3):
        if process and turn == 1:
            time.sleep(late)
        torch.distributed.barrier() if exchange else wait_for_everyone()
        file.with_name(f"{process}-{turn}").write_text(str(time.monotonic()))


@pytest.mark.parametrize("exchange", [True, False])
def test_a_late_process_is_waited_for_beyond_the_limit_of_exchanges(exchange: bool, tmp_path: Path) -> None:
    made = [
        fork_context().Process(target=arrive, args=(process, tmp_path / "store", 5.0, exchange))
        for process in (0, 1)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join()
    assert (made[0].exitcode != 0) == exchange
    if not exchange:
        came = {file.name: float(file.read_text()) for file in tmp_path.glob("?-?")}
        assert came["0-1"] - came["0-0"] > 4
        assert min(came["0-1"], came["1-1"]) > max(came["0-0"], came["1-0"])


def test_alone_there_is_nobody_to_wait_for() -> None:
    wait_for_everyone()
