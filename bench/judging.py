"""Judging AlpacaEval's 805 prompts, beside the package alpaca-eval with the same local judge.

    python bench/judging.py

Cached: the verdicts of 40 policies are known, and one of them is scored again. Fresh: one policy is judged by
a server that takes 200 ms for an answer, one call first and then 32 at once. The judge is the
lab's, which answers in the form of gpt-4-1106-preview. Each is measured in its own process, imports apart.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROMPTS, POLICIES, LATENCY, CONCURRENCY = 805, 40, 0.2, 32
LIMITS = {"cached": 1.0, "fresh": 0.95}
MODEL = "lab-judge-1"


def main() -> int:
    """Print the table; 1 if a limit is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", type=float, metavar="SECONDS")
    parser.add_argument("--measure", nargs=3, metavar=("WHO", "FOLDER", "ADDRESS"))
    options = parser.parse_args()
    if options.serve is not None:
        return serve(options.serve)
    if options.measure:
        return measure(*options.measure)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sets(folder)
        print(f"{'':28}{'seconds':>9}{'peak MiB':>10}{'win rate':>10}")
        with server(0.0) as address:
            child("theirs", folder, address)
            multiply_their_cache(folder)
        write_our_cache(folder)
        nowhere = "http://127.0.0.1:9/v1"
        cached = {who: child(who, folder, nowhere) for who in ("ours", "theirs")}
        for who, row in cached.items():
            show(f"cached, {POLICIES} policies, {who}", row)
        fresh = {}
        for who in ("ours", "theirs"):
            with tempfile.TemporaryDirectory() as empty, server(LATENCY) as address:
                write_sets(Path(empty))
                fresh[who] = child(who, Path(empty), address)
            show(f"fresh, 200 ms a call, {who}", fresh[who])
    # One question by itself, then the others in rounds of 32: what no client could beat.
    ideal = LATENCY * (1 + math.ceil((PROMPTS - 1) / CONCURRENCY))
    reached = ideal / fresh["ours"]["judging"]
    print(f"ideal {ideal:.2f} s; ours reaches {reached:.0%} of it while judging, limit {LIMITS['fresh']:.0%}")
    print(f"cached: limit {LIMITS['cached']:.0f} s for reading the cache and scoring")
    return int(cached["ours"]["judging"] > LIMITS["cached"] or reached < LIMITS["fresh"])


def show(what: str, row: dict[str, Any]) -> None:
    print(f"{what:28}{row['judging']:>9.2f}{row['mib']:>10.0f}{row['win_rate']:>10.2f}")


def child(who: str, folder: Path, address: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", who, str(folder), address]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def measure(who: str, folder: str, address: str) -> int:
    """Judge and score the first policy, and print seconds, memory and win rate as JSON."""
    seconds, win_rate = (ours if who == "ours" else theirs)(Path(folder), address)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"judging": seconds, "mib": mib, "win_rate": win_rate}))
    return 0


def ours(folder: Path, address: str) -> tuple[float, float]:
    import openai  # noqa: F401 - once in a process, and no part of judging
    from sklearn.linear_model import LogisticRegression  # noqa: F401

    from rlhf_eval.judging import scoring, stage

    config, answers = our_run(folder, 0, address)
    began = time.perf_counter()
    stage.judge(config, answers, folder / f"run {time.time_ns()}", folder / "cache", lambda done, total: None)
    seconds = time.perf_counter() - began
    [run] = folder.glob("run *")
    began = time.perf_counter()
    scores = scoring.score(config, answers, run, folder / "score", None)
    if address.endswith(":9/v1"):
        seconds += time.perf_counter() - began
    return seconds, scores["alpaca_eval"]["win_rate"]


def theirs(folder: Path, address: str) -> tuple[float, float]:
    clients = folder / "clients.yaml"
    clients.write_text(f"default:\n  - api_key: none\n    base_url: {address}\n")
    os.environ |= {"OPENAI_CLIENT_CONFIG_PATH": str(clients), "OPENAI_API_KEY": "none"}
    import yaml
    from alpaca_eval import constants
    from alpaca_eval.annotators import PairwiseAnnotator

    name = "weighted_alpaca_eval_gpt4_turbo"
    settings = yaml.safe_load((constants.EVALUATORS_CONFIG_DIR / name / "configs.yaml").read_text())
    settings[name]["completions_kwargs"] |= {"model_name": MODEL, "num_procs": CONCURRENCY}
    settings[name]["prompt_template"] = str(
        constants.EVALUATORS_CONFIG_DIR / settings[name]["prompt_template"]
    )
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "configs.yaml").write_text(yaml.safe_dump(settings))
    reference, policy = (json.loads((folder / f"{file}.json").read_text()) for file in ("base", "policy_0"))
    began = time.perf_counter()
    annotator = PairwiseAnnotator(
        annotators_config=str(folder / name / "configs.yaml"), caching_path=str(folder / "their_cache.json")
    )
    rows = annotator.annotate_head2head(outputs_1=reference, outputs_2=policy)
    return time.perf_counter() - began, 100 * sum(row["preference"] - 1 for row in rows) / len(rows)


def our_run(folder: Path, number: int, address: str) -> tuple[Any, dict[str, dict[str, str]]]:
    """A configuration, and the answers of one policy."""
    from dataclasses import replace

    from rlhf_eval.config.compose import compose
    from rlhf_eval.judging import stage

    config = compose(["experiment=lab", "reward_model=random"])
    prompts = replace(
        config.prompts,
        alpaca_eval=replace(
            config.prompts.alpaca_eval,
            reference_outputs=str(folder / "base.json"),
            limit=None,
            difficulty=None,
        ),
        arena_hard=replace(
            config.prompts.arena_hard,
            questions=str(folder / "questions.jsonl"),
            baseline_answers=str(folder / "answers.jsonl"),
            limit=None,
        ),
    )
    judge = replace(
        config.judge, model=MODEL, base_url=address, serve=(), concurrency=CONCURRENCY, max_retries=0
    )
    config = replace(config, prompts=prompts, judge=judge)
    policy = json.loads((folder / f"policy_{number}.json").read_text())
    groups = stage.evaluation_prompts(prompts)
    texts = {row["instruction"]: row["output"] for row in policy}
    answers = {
        name: {p.id: texts.get(p.instruction, "saw .") for p in group} for name, group in groups.items()
    }
    return config, answers


def write_our_cache(folder: Path) -> None:
    """The verdicts of all policies, as so many runs would have left them."""
    from rlhf_eval.judging import stage
    from rlhf_eval.judging.cache import Segment
    from rlhf_eval.judging.question import Reading

    for number in range(POLICIES):
        config, answers = our_run(folder, number, "http://127.0.0.1:9/v1")
        with Segment(folder / "cache") as segment:
            for group in stage.questions_of(config, answers).values():
                for place, question in enumerate(group):
                    segment.append(question.verdict(Reading(place % 10 / 10, "A>B"), "m"))


def multiply_their_cache(folder: Path) -> None:
    """One policy's annotations as those of all policies."""
    file = next(folder.glob("their_cache.json"))
    rows = json.loads(file.read_text())
    every = list(rows)
    for number in range(1, POLICIES):
        outputs = {
            r["instruction"]: r["output"] for r in json.loads((folder / f"policy_{number}.json").read_text())
        }
        every += [row | {"output_2": outputs[row["instruction"]]} for row in rows]
    file.write_text(json.dumps(every, indent=2))


def write_sets(folder: Path) -> None:
    """The prompts, reference answers of about 1,500 characters, and as many of every policy."""
    for number in range(-1, POLICIES):
        name = "base" if number < 0 else f"policy_{number}"
        rows = [
            {
                "instruction": f"list {n} animals",
                "output": f"cat {n} . " * (100 + (n * 7 + number * 13) % 100) + f"of {name}",
                "generator": name,
            }
            for n in range(PROMPTS)
        ]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    question = {"uid": "q", "category": "c", "prompt": "list 2 tools"}
    answer = {"uid": "q", "model": "base", "messages": [{"role": "assistant", "content": "hammer ."}]}
    (folder / "questions.jsonl").write_text(json.dumps(question) + "\n")
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n")


@contextmanager
def server(latency: float) -> Iterator[str]:
    command = [sys.executable, __file__, "--serve", str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def serve(latency: float) -> int:
    """The lab's judge, every answer `latency` seconds after its question."""
    import threading

    from rlhf_eval.lab import judge_server

    answer = judge_server.chat_completion

    def late(*words: Any) -> Any:
        due = time.monotonic() + latency
        response = answer(*words)
        time.sleep(max(0.0, due - time.monotonic()))
        return response

    judge_server.chat_completion = late
    http = judge_server.server(judge_server.Judge(0))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{http.server_address[1]}/v1", flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
