"""`python -m rlhf_eval` is the command `rlhf-eval`."""

import sys

from rlhf_eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
