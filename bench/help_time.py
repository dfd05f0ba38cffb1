"""How long `rlhf-eval --help` takes beside an empty Python: median of twenty, in turns.

python bench/help_time.py
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

LIMIT = 0.3
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "rlhf-eval --help": [str(Path(sys.executable).with_name("rlhf-eval")), "--help"],
}


def main() -> int:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(20):
        for name, command in COMMANDS.items():
            began = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.monotonic() - began)
    for name, values in seconds.items():
        print(f"{name:20} {median(values):6.3f} s")
    return 0 if median(seconds["rlhf-eval --help"]) < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
