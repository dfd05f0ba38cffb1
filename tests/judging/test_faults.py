"""805 judgings by an endpoint that fails three calls in ten in every way it can; killed five times."""

import json
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.judging import scoring, stage

PROMPTS, KILLS = 805, 5
FAULTS = ("429", "500", "hang", "reset", "malformed", "no logprobs", "refusal", "half")
PROGRAM = (
    "import pickle, sys; from pathlib import Path; from rlhf_eval.judging import stage\n"
    "stage.judge(*pickle.loads(Path(sys.argv[1]).read_bytes()), lambda done, total: None)"
)


def large(config: RunConfig, tmp_path: Path) -> tuple[RunConfig, dict[str, dict[str, str]]]:
    """AlpacaEval's number of prompts, two Arena-Hard questions, and answers to all."""
    rows = [
        {"instruction": f"list {n} animals", "output": f"cat {n} dog .", "generator": "base"}
        for n in range(PROMPTS)
    ]
    (tmp_path / "large.json").write_text(json.dumps(rows))
    prompts = replace(
        config.prompts,
        alpaca_eval=replace(config.prompts.alpaca_eval, reference_outputs=str(tmp_path / "large.json")),
        arena_hard=replace(config.prompts.arena_hard, limit=2),
    )
    config = replace(config, prompts=prompts)
    answers = {
        name: {prompt.id: f"cat {n % 7} ." + " dog ." * (n % 5) for n, prompt in enumerate(group)}
        for name, group in stage.evaluation_prompts(prompts).items()
    }
    return config, answers


def test_no_verdict_is_lost_and_none_paid_twice(config, judged_by, endpoint, tmp_path) -> None:
    patient = judged_by(
        base_url=endpoint.address, concurrency=16, timeout_seconds=1.0, max_retries=4, max_failed_share=0.99
    )
    config, answers = large(patient, tmp_path)
    total = PROMPTS + 4
    stage.judge(config, answers, tmp_path / "calm", tmp_path / "calm_cache", lambda done, total: None)
    calm = scoring.score(config, answers, tmp_path / "calm", tmp_path / "calm_score", None)
    assert endpoint.good == total

    endpoint.good = 0
    endpoint.seen.clear()

    def fault(times: int, number: int) -> str | None:
        time.sleep(0.01)
        return FAULTS[number // 10 % len(FAULTS)] if times == 0 and number % 10 < 3 else None

    endpoint.fault = fault
    (tmp_path / "input.pickle").write_bytes(
        pickle.dumps((config, answers, tmp_path / "judge", tmp_path / "cache"))
    )
    for kill in range(1, KILLS + 1):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "input.pickle")])
        deadline = time.monotonic() + 120
        while kept(tmp_path / "cache") < total * kill // (KILLS + 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
        process.wait()
    for _ in range(2):  # what failed without being passing is asked once more by the next call
        stage.judge(config, answers, tmp_path / "judge", tmp_path / "cache", lambda done, total: None)
    endpoint.hanging.set()
    assert scoring.score(config, answers, tmp_path / "judge", tmp_path / "score", None) == calm
    for name in ("alpaca_eval.jsonl", "arena_hard.jsonl"):
        assert (tmp_path / "judge" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert read_json(tmp_path / "score" / "scores.json")["alpaca_eval"]["failed"] == 0
    struck = sum(times > 0 for times in endpoint.seen.values())
    assert struck > 0.2 * total
    # Paid for twice are only the calls that were under way at a kill.
    assert total <= endpoint.good <= total + KILLS * config.judge.concurrency


def kept(cache: Path) -> int:
    return sum(row["error"] is None for path in cache.glob("*.segment") for row in read_jsonl(path))
