"""What every test may use."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of published data are skipped, saying so, where the data are not."""
    folder = Path(os.environ.get("RLHF_EVAL_GOLDEN", ROOT / ".." / "shared" / "golden")).resolve()
    if folder.is_dir():
        return
    absent = pytest.mark.skip(reason=f"no published data at {folder}; $RLHF_EVAL_GOLDEN names their folder")
    for item in items:
        if item.get_closest_marker("golden"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of published data; tests that use it carry the mark `golden`."""
    return Path(os.environ.get("RLHF_EVAL_GOLDEN", ROOT / ".." / "shared" / "golden")).resolve()
