"""Is the answer right where the truth is known? One line per lab seed.

    python bench/lab_validity.py [SEED …]          default: 0 1 2

The ranking found by the judge must agree with the order of the policies' true utility (Spearman ≥ 0.8), the
contaminated reward model must lead the public benchmark among trained ones, and the clean one with much data
must lead downstream.
"""

import subprocess
import sys
import time
from pathlib import Path

from scipy.stats import spearmanr

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.ranking import rank

RLHF_EVAL = str(Path(sys.executable).with_name("rlhf-eval"))


def main() -> int:
    print(
        f"{'seed':>4} {'leads benchmark':20} {'leads downstream':20} {'Spearman':>8} {'seconds':>8}  verdict"
    )
    verdicts = []
    for seed in [int(word) for word in sys.argv[1:]] or [0, 1, 2]:
        began = time.monotonic()
        subprocess.run(
            [RLHF_EVAL, "demo", "--lab-seed", str(seed), "--experiment", f"lab_validity_{seed}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rows = rank(load_runs(Path("runs") / f"lab_validity_{seed}")).rows
        trained = [row for row in rows if not row.control]
        by_benchmark = max(trained, key=lambda row: row.benchmark or 0.0).reward_model
        by_score = max(trained, key=lambda row: row.score).reward_model
        truth = spearmanr([row.score for row in rows], [row.gold or 0.0 for row in rows]).statistic
        holds = by_benchmark == "lab_contaminated" and by_score == "lab_clean" and truth >= 0.8
        verdicts.append(holds)
        seconds = time.monotonic() - began
        words = "holds" if holds else "FAILS"
        print(f"{seed:4} {by_benchmark:20} {by_score:20} {truth:8.2f} {seconds:8.0f}  {words}", flush=True)
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
