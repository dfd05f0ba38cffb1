"""vLLM, answering prompts that arrive on standard input. Run as a file, by the interpreter that has vLLM.

It imports vLLM and the standard library only, because vLLM may live in an environment of its own. Lines are
JSON. The first one in is `{"engine": options of vllm.LLM, "sampling": options of vllm.SamplingParams,
"adapter": folder of a LoRA adapter or null}`; every further one is a list of `{"id", "tokens", "seed"}`. The
first one out is vLLM's version; every further one is `{"id", "tokens"}`, the tokens sampled for a prompt, as
soon as it is finished. When standard input closes, the process ends.
"""

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from queue import SimpleQueue
from typing import Any

NO_VLLM = 3
"""Exit code where the interpreter has no vLLM."""
GRACE = 5.0
"""Seconds that a process has to end by itself after its input closed."""


def main() -> None:
    if importlib.util.find_spec("vllm") is None:
        sys.exit(NO_VLLM)
    if os.getpgrp() != os.getpid():
        os.setpgrp()  # the group that is ended with the work must not be the parent's
    # Answers keep standard output for themselves; what vLLM prints there goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    waiting: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    # The engine in this process: one less to end, and batches that do not depend on timing.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm  # pyright: ignore[reportMissingImports]
    from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

    engine = vllm.LLM(**settings["engine"]).llm_engine
    adapter = LoRARequest("policy", 1, settings["adapter"]) if settings["adapter"] else None
    print(vllm.__version__, file=answers)
    while (requests := waiting.get()) is not None:
        for request in requests:
            sampling = vllm.SamplingParams(**settings["sampling"], seed=request["seed"], detokenize=False)
            prompt = {"prompt_token_ids": request["tokens"]}
            engine.add_request(request["id"], prompt, sampling, lora_request=adapter)
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    tokens = list(output.outputs[0].token_ids)
                    print(json.dumps({"id": output.request_id, "tokens": tokens}), file=answers)


def _listen(waiting: "SimpleQueue[Any]") -> None:
    for line in sys.stdin:
        waiting.put(json.loads(line))
    waiting.put(None)
    # Whoever gave the work is gone or has all of it: what still runs is in nobody's interest.
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
