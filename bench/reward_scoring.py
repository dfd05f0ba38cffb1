"""How fast reward models score, beside what one would otherwise write, and how exactly.

    python bench/reward_scoring.py

Exactness: 500 conversations of 10 to 2000 tokens in shuffled batches against one unpadded forward each, for
every classifier kind. Speed: 500 conversations of log-normal length (median 300, at most 2048 tokens), every
fifth a duplicate, one model of 4 layers, 256 wide, on this machine: ours, the way TRL scores with a model in
its own process, and batches in the order given, padded to the longest; then our server with 16 clients.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig
from rlhf_eval.records import Conversation, user_prompt

COUNT, LONGEST, CLIENTS, PER_REQUEST = 500, 2048, 16, 16
BATCH_TOKENS, TRL_BATCH, LOOP_BATCH = 4096, 64, 16
SERVED = 2 * COUNT
KINDS = {
    "llama": "classifier",
    "qwen3": "classifier",
    "gemma2": "classifier",
    "armorm": "armorm",
    "urm": "urm",
    "inform": "inform",
    "internlm2": "internlm2",
    "token_logit": "token_logit",
}
LIMITS = {"exact": 1e-4, "speed": 2.5, "tokens": 0.9, "server": 0.9}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "FOLDER"))
    options = parser.parse_args()
    if options.measure:
        return _measure(*options.measure)
    with tempfile.TemporaryDirectory() as folder:
        return int(not all([_exactness(Path(folder)), _speed(Path(folder)), _server(Path(folder))]))


def _exactness(folder: Path) -> bool:
    from rlhf_eval.rewards.interface import load_reward_model

    holds = True
    print(f"{'kind':12} {'scores':>16} {'largest difference':>18} {'limit':>8}")
    for name, kind in KINDS.items():
        model = _build(name, folder / name, width=32, layers=2)
        config = RewardModelConfig(
            name, kind, str(model), attention="eager" if name == "gemma2" else "sdpa", token=3
        )
        reward_model: Any = load_reward_model(config)
        if kind == "armorm":
            reward_model.forward.model.pattern = _assistant_pattern(reward_model.render.tokenizer)
        random = Random(name)
        asked = [_conversation(random, random.randint(10, 2000)) for _ in range(COUNT)]
        together = reward_model.score(asked).scores
        alone = np.array([reward_model.forward([ids])[0, -1] for ids in reward_model.render(asked)])
        difference = float(np.abs(together - alone).max())
        holds &= difference <= LIMITS["exact"]
        span = f"{together.min():.2f} to {together.max():.2f}"
        print(f"{name:12} {span:>16} {difference:18.1e} {LIMITS['exact']:8.0e}", flush=True)
    return holds


def _speed(folder: Path) -> bool:
    model = _build("llama", folder / "model", width=256, layers=4)
    found = {}
    print(f"\n{'way':24} {'seconds':>8} {'ours is':>8} {'peak MiB':>9} {'needed / computed':>18}")
    for way in ("ours", "trl", "loop"):
        output = subprocess.run(
            [sys.executable, __file__, "--measure", way, str(model)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        found[way] = json.loads(output.splitlines()[-1])
    assert np.allclose(found["ours"]["scores"], found["trl"]["scores"], atol=1e-4)
    assert np.allclose(found["ours"]["scores"], found["loop"]["scores"], atol=1e-4)
    titles = {"ours": "ours", "trl": f"TRL, {TRL_BATCH} a call", "loop": f"as given, {LOOP_BATCH} a batch"}
    for way, title in titles.items():
        one = found[way]
        ratio = one["seconds"] / found["ours"]["seconds"]
        print(f"{title:24} {one['seconds']:8.1f} {ratio:7.1f}× {one['peak']:9.0f} {one['tokens']:18.2f}")
    slower = min(found[way]["seconds"] for way in ("trl", "loop")) / found["ours"]["seconds"]
    lighter = found["ours"]["peak"] <= min(found[way]["peak"] for way in ("trl", "loop"))
    print(f"limits: {LIMITS['speed']}× against both, peak no higher, needed / computed ≥ {LIMITS['tokens']}")
    return slower >= LIMITS["speed"] and lighter and found["ours"]["tokens"] >= LIMITS["tokens"]


def _measure(way: str, model: str) -> int:
    """One way of scoring in a process of its own, so that its peak of memory is its own."""
    from rlhf_eval.rewards.interface import load_reward_model

    reward_model: Any = load_reward_model(
        RewardModelConfig("bench", "classifier", model, batch_tokens=BATCH_TOKENS)
    )
    asked = _lognormal(COUNT)
    needed = sum(map(len, set(reward_model.render(asked))))
    computed = [0]
    forward = reward_model.forward

    def counted(batch: Any) -> np.ndarray:
        computed[0] += len(batch) * max(map(len, batch))
        return forward(batch)

    reward_model.forward = counted
    reward_model.score(asked[:2])  # the first call pays for warming up
    computed[0] = 0
    began = time.perf_counter()
    if way == "ours":
        scores = reward_model.score(asked).scores
    else:
        scores, computed[0] = _padded(
            reward_model.render, forward.model, asked, TRL_BATCH if way == "trl" else LOOP_BATCH
        )
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps({"seconds": seconds, "peak": peak, "tokens": needed / computed[0], "scores": list(scores)})
    )
    return 0


def _padded(render: Any, model: Any, asked: list[Conversation], size: int) -> tuple[list[float], int]:
    """What TRL's GRPOTrainer does with a model as reward function, `size` conversations a call: render,
    tokenise with padding on the right, one forward of the sequence classifier, first logit."""
    import torch

    scores: list[float] = []
    computed = 0
    for start in range(0, len(asked), size):
        texts = [render.text(c) for c in asked[start : start + size]]
        inputs = render.tokenizer(
            text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False
        )
        computed += inputs["input_ids"].numel()
        with torch.inference_mode():
            scores += model(**inputs).logits[:, 0].tolist()
    return scores, computed


def _server(folder: Path) -> bool:
    """Throughput of our server with many clients beside the same work in one process, in turns."""
    from rlhf_eval.rewards.interface import load_reward_model

    config = RewardModelConfig("bench", "classifier", str(folder / "model"), batch_tokens=BATCH_TOKENS)
    # Each text once: one process sees a duplicate of any earlier text, a server only of what waits.
    asked = list(dict.fromkeys(_lognormal(SERVED)))
    here = load_reward_model(config)
    requests = [asked[start : start + PER_REQUEST] for start in range(0, len(asked), PER_REQUEST)]
    words = ["reward_model=random", "reward_model.kind=classifier", f"reward_model.model={config.model}"]
    words += [f"reward_model.batch_tokens={BATCH_TOKENS}"]
    with subprocess.Popen(
        [sys.executable, "-m", "rlhf_eval", "reward", "serve", "--port", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[-1]
        remote = RewardModelConfig("remote", "remote", endpoint=EndpointConfig(base_url=address))
        client = load_reward_model(remote)
        client.score(asked[:2])

        def with_clients() -> np.ndarray:
            with ThreadPoolExecutor(CLIENTS) as pool:
                return np.concatenate([batch.scores for batch in pool.map(client.score, requests)])

        offline, offline_scores = _timed(lambda: here.score(asked).scores)
        served, scores = _timed(with_clients)
        server.terminate()
    assert np.allclose(scores, offline_scores, atol=1e-4)
    share = offline / served
    count = len(asked)
    print(f"\n{'served':24} {'seconds':>8} {'conversations/s':>16}")
    for title, seconds in (("offline", offline), (f"server, {CLIENTS} clients", served)):
        print(f"{title:24} {seconds:8.1f} {count / seconds:16.1f}")
    print(f"server / offline: {share:.2f}, limit {LIMITS['server']}")
    return share >= LIMITS["server"]


def _timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def _lognormal(count: int) -> list[Conversation]:
    """Conversations of log-normal length; a fifth are duplicates of others."""
    random = Random(0)
    sizes = [min(LONGEST - 20, max(5, round(random.lognormvariate(np.log(300), 0.8)))) for _ in range(count)]
    made = [_conversation(random, size) for size in sizes[: count * 4 // 5]]
    made += random.choices(made, k=count - len(made))
    random.shuffle(made)
    return made


def _conversation(random: Random, words: int) -> Conversation:
    vocabulary = "cat dog hammer saw drill file plum cherry fig mango really also well".split()
    return user_prompt("x", "list two animals").answered(" ".join(random.choices(vocabulary, k=words)))


def _build(name: str, folder: Path, width: int, layers: int) -> Path:
    """A reward model with random weights, written as its checkpoint would be."""
    import torch
    import transformers
    from safetensors.torch import save_file

    from rlhf_eval.lab.tokenizer import build_tokenizer
    from rlhf_eval.rewards import architectures, internlm2

    folder.mkdir()
    build_tokenizer(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    shared = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    own: dict[str, tuple[Any, Any, dict]] = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForSequenceClassification, {"num_labels": 1}),
        "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForSequenceClassification, {"num_labels": 1}),
        "gemma2": (
            transformers.Gemma2Config,
            transformers.Gemma2ForSequenceClassification,
            {"num_labels": 1},
        ),
        "armorm": (transformers.LlamaConfig, architectures.GatedObjectives, {"num_objectives": 19}),
        "urm": (transformers.LlamaConfig, architectures.NormalAttributes, {"num_labels": 10}),
        "inform": (transformers.LlamaConfig, architectures.TwoLayerHead, {}),
        "internlm2": (transformers.LlamaConfig, internlm2.RewardTokenScore, {"reward_token_id": 5}),
        "token_logit": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    }
    config_class, model_class, more = own[name]
    torch.manual_seed(0)
    model = model_class(config_class(**shared, **more))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # weights wide enough that scores differ visibly between texts
                parameter.normal_(0, 4 / width if width > 64 else 0.2)
    model.config.architectures = [model_class.__name__]
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


def _assistant_pattern(tokenizer: Any) -> tuple[int, ...]:
    """The token ids that open the assistant's turn in the lab's template; ArmoRM's own are Llama 3's."""
    turn = [{"role": "user", "content": "cat"}]
    before = tokenizer.apply_chat_template(turn, tokenize=False)
    after = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(after[len(before) :]).input_ids)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main())
