"""Reward models that answer in words: here and behind an API, compared with a computation by hand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig, VerdictConfig
from rlhf_eval.errors import ConfigError, DataError, StageError
from rlhf_eval.records import Comparison, as_json, user_prompt
from rlhf_eval.rewards.interface import load_reward_model
from rlhf_eval.rewards.verdicts import Prompting, read_label

PROMPT = user_prompt("p", "list two animals")
COMPARISONS = [Comparison(PROMPT, "cat dog .", "hammer ."), Comparison(PROMPT, "saw", "cat cat cat")]


@contextmanager
def api(reply: Callable[[str, dict], Any]) -> Iterator[str]:
    """Address of a real HTTP server that answers POST requests with `reply(path, body)` as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = reply(self.path, body)
            status, answer = answer if isinstance(answer, tuple) else (200, answer)
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def template(tmp_path: Path) -> str:
    """A prompt in the lab's own words, so that its small vocabulary holds it."""
    file = tmp_path / "prompt.jinja"
    file.write_text("{{ instruction }} {{ answer_a }} also {{ answer_b }}\n")
    return str(file)


def local(folder: Path, template: str, **verdict: Any) -> RewardModelConfig:
    words: dict[str, Any] = {"labels": ("cat", "dog"), "opening": "", "pattern": "(cat|dog)"}
    return RewardModelConfig(
        name="judge",
        kind="generative",
        model=str(folder),
        comparability="pair",
        verdict=VerdictConfig(template, **(words | verdict)),
    )


def _first_wins(folder: Path, template: str, comparison: Comparison, opening: str = "") -> float:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    question = f"{comparison.prompt.instruction} {comparison.completion_a} also {comparison.completion_b}"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text + opening).input_ids
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([ids])).logits[0, -1]
    a, b = (logits[tokenizer.convert_tokens_to_ids(word)].item() for word in ("cat", "dog"))
    return 1 / (1 + np.exp(b - a))


def test_probabilities_of_the_labels_in_both_orders(tiny: Callable[..., Path], template: str) -> None:
    folder = tiny("language_model")
    batch = load_reward_model(local(folder, template)).compare(COMPARISONS)
    for comparison, probability in zip(COMPARISONS, batch.probabilities, strict=True):
        forward = _first_wins(folder, template, comparison)
        backward = _first_wins(folder, template, comparison.swap())
        assert probability == pytest.approx((forward + 1 - backward) / 2, abs=1e-5)
    swapped = load_reward_model(local(folder, template)).compare([c.swap() for c in COMPARISONS])
    assert swapped.probabilities == pytest.approx(1 - batch.probabilities, abs=1e-5)
    once = load_reward_model(local(folder, template, both_orders=False, opening="plum ")).compare(COMPARISONS)
    assert once.probabilities[0] == pytest.approx(
        _first_wins(folder, template, COMPARISONS[0], "plum"), abs=1e-5
    )


def test_a_generative_model_scores_groups_and_refuses_single_answers(
    tiny: Callable[..., Path], template: str
) -> None:
    model = load_reward_model(local(tiny("language_model"), template))
    (batch,) = model.score_groups([(PROMPT, ["cat .", "dog .", "saw saw"])])
    assert batch.valid.all()
    assert batch.scores.sum() == pytest.approx(0, abs=1e-9)
    assert np.ptp(batch.scores) > 0
    with pytest.raises(ConfigError, match="cannot score one by itself"):
        model.score([PROMPT.answered("cat")])


def test_verdicts_read_from_generated_text(tiny: Callable[..., Path], template: str) -> None:
    config = local(tiny("language_model"), template, read="text", max_tokens=24)
    batch = load_reward_model(config).compare(COMPARISONS * 4)
    assert set(batch.probabilities[batch.valid].tolist()) <= {0.0, 0.5, 1.0}
    assert batch.probabilities[:2].tolist() == pytest.approx(batch.probabilities[2:4].tolist(), nan_ok=True)


def test_labels_that_share_their_first_token_are_refused(tiny: Callable[..., Path], template: str) -> None:
    with pytest.raises(DataError, match="do not begin with tokens of their own"):
        load_reward_model(local(tiny("language_model"), template, labels=("cat", "cat dog")))


def test_an_overlong_question_is_invalid(tiny: Callable[..., Path], template: str) -> None:
    model = load_reward_model(replace(local(tiny("language_model"), template), max_length=40))
    batch = model.compare([COMPARISONS[0], Comparison(PROMPT, "cat " * 60, "dog")])
    assert batch.valid.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[A]]", [1, 0]),
        ("first [[A]], no: [[B]]", [0, 1]),
        ("x = a[[0]]; so [[B]].", [0, 1]),
        ("neither", [np.nan, np.nan]),
        ("", [np.nan, np.nan]),
        ("[[C]]", [np.nan, np.nan]),
    ],
)
def test_the_last_verdict_of_a_text_counts(text: str, expected: list[float]) -> None:
    assert read_label(text, VerdictConfig("pairwise")).tolist() == pytest.approx(expected, nan_ok=True)


def test_the_shipped_judge_with_a_form_of_its_own_is_read() -> None:
    verdict = compose(["experiment=lab", "reward_model=sfr_judge_70b"]).reward_model.verdict
    assert verdict is not None
    asked = Prompting(verdict)(PROMPT.messages, answer_a="cat .", answer_b="dog .")[-1].content
    assert asked.index("**Reasoning:**") < asked.index("**Result:**") < asked.index("cat .")
    text = "**Reasoning:** Response A is short.\n\n**Result:** B"
    assert read_label(text, verdict).tolist() == [0, 1]
    assert np.isnan(read_label("**Result:** Both", verdict)).all()


def judge(address: str, **verdict: Any) -> RewardModelConfig:
    words: dict[str, Any] = {"prompt": "pairwise", "opening": ""} | verdict
    return RewardModelConfig(
        name="api",
        kind="judge",
        model="o3-mini",
        comparability="pair",
        verdict=VerdictConfig(**words),
        endpoint=EndpointConfig(base_url=address, deadline_seconds=5, max_output_tokens=999),
    )


def test_an_api_judge_by_log_probabilities() -> None:
    seen: list[dict] = []

    def reply(path: str, body: dict) -> Any:
        seen.append(body)
        first = body["messages"][-1]["content"].index("cat dog .") < body["messages"][-1]["content"].index(
            "hammer ."
        )
        likeliest = [("A", 0.6), ("B", 0.2), ("The", 0.1)] if first else [("A", 0.3), (" B", 0.3)]
        top = [{"token": token, "logprob": float(np.log(p))} for token, p in likeliest]
        return {"choices": [{"logprobs": {"content": [{"token": "A", "top_logprobs": top}]}}]}

    with api(reply) as address:
        batch = load_reward_model(judge(address)).compare(COMPARISONS[:1])
    assert batch.probabilities == pytest.approx([(0.75 + 0.5) / 2])
    assert {body["max_tokens"] for body in seen} == {1}
    assert len(seen) == 2


def test_a_reasoning_judge_gets_no_temperature_and_its_text_is_read() -> None:
    seen: list[dict] = []

    def reply(path: str, body: dict) -> Any:
        seen.append(body)
        if "saw" in body["messages"][-1]["content"]:
            return {"choices": [{"message": {"content": None, "refusal": "no"}}]}
        return {"choices": [{"message": {"content": "So [[A]]."}}]}

    with api(reply) as address:
        config = judge(address, read="text", temperature=None)
        batch = load_reward_model(config).compare(COMPARISONS)
    assert batch.valid.tolist() == [True, False]
    assert batch.probabilities[0] == 0.5  # it says A in both orders
    assert all("temperature" not in b and b["max_completion_tokens"] == 999 for b in seen)
    assert {message["role"] for body in seen for message in body["messages"]} == {"user"}


def test_ratings_are_expected_values() -> None:
    def reply(path: str, body: dict) -> Any:
        top = [{"token": "3", "logprob": float(np.log(0.25))}, {"token": "5", "logprob": float(np.log(0.75))}]
        return {"choices": [{"logprobs": {"content": [{"token": "5", "top_logprobs": top}]}}]}

    labels = ("1", "2", "3", "4", "5")
    with api(reply) as address:
        config = judge(address, prompt="rating", style="rating", labels=labels)
        assert load_reward_model(config).score([PROMPT.answered("cat dog .")]).scores == pytest.approx([4.5])
        with pytest.raises(ConfigError, match="are no ratings"):
            load_reward_model(judge(address, prompt="rating", style="rating"))


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ConfigError, match="not how it is asked"):
        load_reward_model(RewardModelConfig("x", "generative", "y"))
    with pytest.raises(ConfigError, match="no address"):
        load_reward_model(RewardModelConfig("x", "judge", "y", verdict=VerdictConfig("pairwise")))
    with pytest.raises(ConfigError, match=r"no 'pairwize'[\s\S]*pairwise"):
        load_reward_model(judge("http://127.0.0.1:9", prompt="pairwize"))
    with pytest.raises(ConfigError, match="comparability=pair"):
        load_reward_model(replace(judge("http://127.0.0.1:9"), comparability="global"))


def remote(address: str, protocol: Any, folder: Path | str, **changes: Any) -> RewardModelConfig:
    endpoint = EndpointConfig(base_url=address, protocol=protocol, deadline_seconds=5)
    return RewardModelConfig(name="r", kind="remote", model=str(folder), endpoint=endpoint, **changes)


def test_protocols_of_other_servers(tiny: Callable[..., Path], conversations: Callable[..., Any]) -> None:
    seen: dict[str, dict] = {}

    def reply(path: str, body: dict) -> Any:
        seen[path] = body
        if path == "/get_reward":
            return {"rewards": [float(len(text)) for text in body["query"]]}
        if path == "/classify":
            return {"data": [{"probs": [float(len(ids))]} for ids in body["input"]]}
        if path == "/pooling":
            return {"data": [{"data": [float(len(ids)), 1.0]} for ids in body["input"]]}
        names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
        content = [{"token": name, "logprob": float(n)} for n, name in enumerate(names)]
        return {"choices": [{"logprobs": {"content": content}}]}

    folder = tiny("llama")
    asked = conversations(3)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [tokenizer.apply_chat_template(as_json(c), tokenize=False) for c in asked]
    sizes = [len(tokenizer(text).input_ids) for text in texts]
    with api(reply) as address:
        found = {
            protocol: load_reward_model(remote(address, protocol, folder, **changes)).score(asked).scores
            for protocol, changes in (
                ("openrlhf", {}),
                ("vllm_classify", {}),
                ("vllm_pooling", {"head_weights": (1.0, 10.0)}),
                ("nemotron", {"head_weights": (0.3, 0.74, 0.46, 0.47, -0.33)}),
            )
        }
    assert seen["/get_reward"]["prompts"] == [
        tokenizer.apply_chat_template(as_json(c[:-1]), tokenize=False, add_generation_prompt=True)
        for c in asked
    ]
    ended = [text.rstrip("\n") for text in texts]
    eos = tokenizer.eos_token
    assert seen["/get_reward"]["query"] == [x if x.endswith(eos) else f"{x} {eos}" for x in ended]
    assert found["openrlhf"].tolist() == [len(text) for text in seen["/get_reward"]["query"]]
    assert found["vllm_classify"].tolist() == sizes
    assert found["vllm_pooling"].tolist() == [size + 10 for size in sizes]
    assert found["nemotron"] == pytest.approx([0.74 + 2 * 0.46 + 3 * 0.47 - 4 * 0.33] * 3)
    assert seen["/classify"]["use_activation"] is False


def test_nemotron_in_a_container_answers_in_text(conversations: Callable[..., Any]) -> None:
    text = "helpfulness:0.5,correctness:1.5,coherence:2,complexity:3,verbosity:-1"
    with api(lambda path, body: {"choices": [{"message": {"content": text}, "logprobs": None}]}) as address:
        config = remote(address, "nemotron", "", head_weights=(1.0, 10.0, 0.0, 0.0, 1.0))
        assert load_reward_model(config).score(conversations(1)).scores == pytest.approx([14.5])


@pytest.mark.parametrize("protocol", ["openrlhf", "vllm_classify", "vllm_pooling"])
def test_what_is_too_long_is_not_sent_and_invalid(
    protocol: str, tiny: Callable[..., Path], conversations: Callable[..., Any]
) -> None:
    def reply(path: str, body: dict) -> Any:
        items = body.get("query") or body["input"]
        assert all(items)
        row = {"probs": [1.0], "data": [1.0]}
        return {"rewards": [1.0] * len(items), "data": [row] * len(items)}

    asked = [*conversations(2), *conversations(1, 400, 400), *conversations(1)]
    with api(reply) as address:
        batch = load_reward_model(remote(address, protocol, tiny("llama"), max_length=300)).score(asked)
    assert batch.valid.tolist() == [True, True, False, True]


def test_another_protocol_than_ours_compares_nothing(tiny: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="'vllm_classify' gives scores"):
        load_reward_model(remote("http://x", "vllm_classify", tiny("llama"), comparability="pair"))


def test_a_server_of_another_kind_is_named(
    tiny: Callable[..., Path], conversations: Callable[..., Any]
) -> None:
    with api(lambda path, body: {"scores": [1.0] * 9}) as address:
        with pytest.raises(StageError, match="another form than protocol 'openrlhf'"):
            load_reward_model(remote(address, "openrlhf", tiny("llama"))).score(conversations(1))
        with pytest.raises(StageError, match="9 × 1 numbers for 1 conversations"):
            load_reward_model(remote(address, "rlhf_eval", "")).score(conversations(1))
    with api(lambda path, body: (404, {"error": "no such path"})) as address:
        lost = load_reward_model(remote(address, "rlhf_eval", ""))
        with pytest.raises(StageError, match=r"refuses a request \(404\): .*no such path"):
            lost.score(conversations(1))


def test_a_busy_server_is_asked_again_and_null_is_invalid(conversations: Callable[..., Any]) -> None:
    calls: list[int] = []

    def reply(path: str, body: dict) -> Any:
        calls.append(1)
        return (503, {}) if len(calls) < 3 else {"scores": [2.5, None]}

    with api(reply) as address:
        batch = load_reward_model(remote(address, "rlhf_eval", "")).score(conversations(2))
    assert len(calls) == 3
    assert batch.scores.tolist() == pytest.approx([2.5, np.nan], nan_ok=True)
    assert batch.valid.tolist() == [True, False]
