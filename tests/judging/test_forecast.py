"""What the judges of a sweep will be asked and what it costs, before anything is submitted."""

import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.schema import AlpacaEvalConfig, ArenaHardConfig, JudgeConfig, RunConfig
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.files import write_json, write_jsonl
from rlhf_eval.judging import stage
from rlhf_eval.judging.forecast import Forecast, forecasts, in_words

SILENT = lambda done, total: None  # noqa: E731
CHEAP = {"input_price": 2.0, "output_price": 8.0}


def forecast(config: RunConfig) -> Forecast:
    return forecasts([config])


def with_sets(config: RunConfig, alpaca_eval: str | None = None, arena_hard: str | None = None) -> RunConfig:
    """The run with another source of AlpacaEval's answers, or of Arena-Hard's questions."""
    prompts = config.prompts
    if alpaca_eval is not None:
        prompts = replace(prompts, alpaca_eval=replace(prompts.alpaca_eval, reference_outputs=alpaca_eval))
    if arena_hard is not None:
        prompts = replace(prompts, arena_hard=replace(prompts.arena_hard, questions=arena_hard))
    return replace(config, prompts=prompts)


def test_as_many_calls_as_the_endpoint_is_asked(judged_by, answers, endpoint, tmp_path: Path) -> None:
    config = judged_by(base_url=endpoint.address)
    warm = replace(config.judge, name="warm", temperature=0.5)
    config = replace(config, second_judges={"warm": warm})
    told = forecast(config)
    stage.judge(config, answers, tmp_path / "judge", tmp_path / "cache", SILENT)
    assert told.calls == endpoint.good == 200
    assert {name: asked.calls for name, asked in told.judges.items()} == {"lab": 100, "warm": 100}
    assert told.unknown == {}


def test_tokens_and_money_by_hand(config: RunConfig, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", [{"instruction": "i" * 4000, "output": "o" * 8000, "generator": "g"}])
    write_jsonl(tmp_path / "q.jsonl", [{"uid": "q", "prompt": "p" * 2000, "category": "c"}])
    answer = [{"role": "assistant", "content": "b" * 6000}]
    write_jsonl(tmp_path / "b.jsonl", [{"uid": "q", "model": "b", "messages": answer}])
    (tmp_path / "short.txt").write_text("Judge.")
    sets = replace(
        config.prompts,
        alpaca_eval=AlpacaEvalConfig(str(tmp_path / "a.json")),
        arena_hard=ArenaHardConfig(str(tmp_path / "q.jsonl"), str(tmp_path / "b.jsonl")),
    )
    prompt = str(tmp_path / "short.txt")
    judge = JudgeConfig(
        "j", "m", arena_hard_prompt=prompt, verdict_tokens=500, input_price=2.0, output_price=8.0
    )
    told = forecast(replace(config, prompts=sets, judge=judge))
    asked = told.judges["j"]
    assert asked.calls == 1 + 2
    # The texts alone at four characters a token, the policy's answer as long as the other one.
    texts = (4000 + 2 * 8000 + 2 * (2000 + 2 * 6000)) // 4
    assert texts < asked.input_tokens < texts + 700  # AlpacaEval's template takes most of the rest
    assert asked.output_tokens == 1 + 2 * 500  # AlpacaEval's verdict is a single token
    assert told.money == pytest.approx((asked.input_tokens * 2 + asked.output_tokens * 8) / 1e6)


@pytest.mark.golden
def test_the_published_sets(config: RunConfig, golden: Path) -> None:
    folder = golden / "arena_hard"
    sets = replace(
        config.prompts,
        alpaca_eval=AlpacaEvalConfig(
            str(golden / "alpaca_eval" / "alpaca_eval_gpt4_baseline.json.gz"),
            difficulty=str(golden / "alpaca_eval" / "instruction_difficulty.csv"),
        ),
        arena_hard=ArenaHardConfig(
            str(folder / "question-v2.0.jsonl.gz"), str(folder / "answers-v2.0-o3-mini-2025-01-31.jsonl.gz")
        ),
    )
    told = forecasts([replace(config, prompts=sets)] * 200)
    assert told.calls == 200 * (805 + 2 * 750)


def test_runs_add_up_and_equal_ones_are_read_once(config: RunConfig, judged_by, monkeypatch) -> None:
    reads: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
    one = forecast(judged_by(**CHEAP))
    read_for_one = len(reads)
    assert read_for_one > 0
    reads.clear()
    many = forecasts([replace(judged_by(**CHEAP), seed=seed) for seed in range(200)])
    assert len(reads) == read_for_one
    assert many.runs == 200
    first, total = one.judges["lab"], many.judges["lab"]
    assert (total.calls, total.longest) == (200 * 100, first.longest)
    assert total.input_tokens == 200 * first.input_tokens
    assert total.output_tokens == 200 * first.output_tokens
    assert one.money is not None
    assert many.money == pytest.approx(200 * one.money)

    short = replace(config.prompts, alpaca_eval=replace(config.prompts.alpaca_eval, limit=10))
    mixed = forecasts([config, replace(config, prompts=short), config])
    assert mixed.calls == 100 + (10 + 60) + 100


def test_each_judge_has_its_own_prices(judged_by) -> None:
    first, second = judged_by(**CHEAP), judged_by(name="dear", input_price=20.0, output_price=80.0)
    both = forecasts([first, second])
    cheap = both.judges["lab"].money
    assert cheap is not None
    assert both.judges["dear"].money == pytest.approx(10 * cheap)
    assert both.money == pytest.approx(11 * cheap)
    # Prices do not belong to what makes two runs the same, and still must not be mixed up.
    renamed = replace(second, judge=replace(second.judge, name="lab"))
    assert forecasts([first, renamed]).judges["lab"].money == pytest.approx(both.money)


def test_money_is_unknown_without_a_price_of_every_judge(judged_by) -> None:
    config = judged_by(**CHEAP)
    half = replace(config.judge, name="half", output_price=None)
    told = forecast(replace(config, second_judges={"half": half}))
    assert told.money is None
    assert told.unpriced == ["half"]
    assert told.judges["lab"].money is not None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("lab:data/alpaca_eval.json", "lab's world with 'lab:data/alpaca_eval.json' is not built"),
        ("nowhere/set.json", "No file 'nowhere/set.json'"),
        # tests/conftest.py has the hub's client look into its cache alone.
        ("hf://datasets/some/data@main/set.json", "hub data set some/data@main could not be had"),
    ],
)
def test_sets_that_are_not_here_are_said_to_be(judged_by, source: str, reason: str) -> None:
    config = judged_by(**CHEAP)
    told = forecasts([with_sets(config, alpaca_eval=source), config, with_sets(config, arena_hard=source)])
    assert told.calls == 100  # of the run whose sets are here
    assert told.money is None
    [(cause, runs)] = told.unknown.items()
    assert reason in cause
    assert "\n" not in cause
    assert runs == 2


def test_a_hub_out_of_reach_is_asked_once(monkeypatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    program = (
        "import sys; from rlhf_eval.config.compose import compose; "
        "from rlhf_eval.judging.forecast import *; "
        "print(*in_words(forecasts([compose(sys.argv[1:])])), sep='\\n')"
    )
    overrides = ["reward_model=random", "policy=tulu3_8b_sft", "algorithm=grpo", "prompts=alpaca_arena"]
    command = [sys.executable, "-c", program, *overrides, "judge=openai_gpt41"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith(
        "judge: calls of 1 of 1 runs unknown: The Hugging Face hub cannot be reached"
    )
    assert "Retrying" not in done.stderr  # as the hub's client says, for each file


def test_a_judges_own_instructions_can_be_absent_too(judged_by) -> None:
    config = judged_by(arena_hard_prompt="nowhere/judge.txt")
    second = replace(config.judge, name="second", arena_hard_prompt=None)
    told = forecasts([replace(config, second_judges={"second": second})] * 3)
    assert list(told.judges) == ["second"]
    [(cause, runs)] = told.unknown.items()
    assert "No file 'nowhere/judge.txt'" in cause
    assert runs == 3


@pytest.mark.parametrize("elsewhere", [None, "lab:data/alpaca_eval.json"])
def test_a_broken_file_is_an_error(config: RunConfig, elsewhere: str | None, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"uid": "q1", "prompt": "p"}\n{"uid": \n')
    with pytest.raises(DataError, match=r"broken\.jsonl', line 2 is malformed"):
        forecast(with_sets(config, alpaca_eval=elsewhere, arena_hard=str(broken)))


def test_an_unknown_annotator_is_an_error(config: RunConfig) -> None:
    alpaca_eval = replace(config.prompts.alpaca_eval, annotator="alpaca_eval_gpt5")
    with pytest.raises(ConfigError, match="no annotator 'alpaca_eval_gpt5'"):
        forecast(replace(config, prompts=replace(config.prompts, alpaca_eval=alpaca_eval)))


def test_what_a_terminal_shows(judged_by) -> None:
    config = judged_by(input_price=1000.0, output_price=1000.0, verdict_tokens=100)
    told = forecasts([config] * 100)
    tokens = told.judges["lab"].input_tokens
    written = 100 * (40 + 60 * 100)
    money = (tokens + written) / 1000
    sentence = f"about {tokens:,} tokens in and {written:,} out, {money:,.2f}"
    assert in_words(told) == [f"judge: lab: at most 10,000 calls, {sentence}"]

    free = replace(config.judge, name="free", input_price=None)
    away = with_sets(config, alpaca_eval="lab:a.json")
    first, second, total, unpriced, unknown = in_words(
        forecasts([replace(config, second_judges={"free": free})] * 100 + [away] * 20)
    )
    assert first == f"judge: lab: at most 10,000 calls, {sentence}"
    assert second == f"judge: free: at most 10,000 calls, about {tokens:,} tokens in and {written:,} out"
    assert total == "judge: all together: at most 20,000 calls"
    assert unpriced == "judge: money unknown: no input_price and output_price for free"
    assert unknown.startswith("judge: calls of 20 of 120 runs unknown: The lab's world with 'lab:a.json'")


def test_nothing_heavy_is_loaded(config: RunConfig) -> None:
    sources = {
        "prompts.alpaca_eval.reference_outputs": config.prompts.alpaca_eval.reference_outputs,
        "prompts.arena_hard.questions": config.prompts.arena_hard.questions,
        "prompts.arena_hard.baseline_answers": config.prompts.arena_hard.baseline_answers,
    }
    overrides = ["experiment=lab", "reward_model=lab_clean", *(f"{k}='{v}'" for k, v in sources.items())]
    program = (
        "import sys; from rlhf_eval.config.compose import compose; "
        "from rlhf_eval.judging.forecast import forecasts; "
        "print(forecasts([compose(sys.argv[1:])]).calls, *sys.modules)"
    )
    command = [sys.executable, "-c", program, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    calls, *modules = done.stdout.split()
    assert calls == "100"
    assert not {"torch", "transformers", "trl", "pandas", "openai"} & set(modules)


def test_answers_of_the_policy_base_that_are_not_made_yet_are_unknown(config: RunConfig) -> None:
    prompts = config.prompts
    base = replace(prompts, arena_hard=replace(prompts.arena_hard, baseline_answers="base"))
    told = forecast(replace(config, prompts=base))
    assert told.unknown == {"The policy base's answers are not made yet.": 1}
