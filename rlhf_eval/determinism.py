"""The same numbers again on the same machine, on a GPU too."""

import os

VARIABLES = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    "VLLM_BATCH_INVARIANT": "1",
}
"""Read by CUDA's libraries and by vLLM when they start; processes that are started from here inherit them."""


def make_deterministic() -> None:
    """Make torch take deterministic kernels in this process, and refuse where there is none.

    Call it before CUDA is used. vLLM's answers then depend neither on the batch nor on its schedule. On a CPU
    the numbers stay what they were: its kernels are deterministic at a given number of threads.
    """
    import torch

    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if torch.cuda.is_available():  # vLLM for the CPU does not start with its variable
        os.environ |= VARIABLES
