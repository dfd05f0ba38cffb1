"""How long a newcomer waits: `make demo` in a clean clone, set-up included, and the same command again.

    python bench/clean_clone.py

Clones the committed state into a temporary folder, so nothing of this tree's caches is used.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = (
    ("make setup", ["make", "setup"], None),
    ("make demo", ["make", "demo"], None),
    ("set-up and demo", None, 600.0),
    ("make demo, again", ["make", "demo"], 20.0),
)


def main() -> int:
    print(f"{'step':20} {'seconds':>8} {'limit':>8}")
    total, late = 0.0, False
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for name, command, limit in STEPS:
            seconds = total
            if command:
                began = time.monotonic()
                subprocess.run(
                    command, cwd=clone, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                seconds = time.monotonic() - began
                total += seconds
            late |= limit is not None and seconds > limit
            print(f"{name:20} {seconds:8.1f} {limit or '':>8}", flush=True)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
