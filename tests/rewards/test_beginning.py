"""Every kind of reward model is given one beginning of sequence, whether template or tokenizer writes it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.config.reward_schema import EndpointConfig, RewardModelConfig, VerdictConfig
from rlhf_eval.records import Comparison, user_prompt
from rlhf_eval.rewards.interface import load_reward_model
from rlhf_eval.rewards.rendering import Renderer

SPECIAL = ("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<mask>")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = user_prompt("p", "name two")
CONVERSATION = PROMPT.answered("cat, dog")
QUESTION = "<|im_start|>user\nname two<|im_end|>\n<|im_start|>assistant\n"
ANSWER = "cat, dog<|im_end|>\n"


@dataclass(frozen=True)
class Shape:
    """A kind of tokenizer.

    Attributes:
        beginning: tokens that begin a sequence; with ChatML's `<|im_start|>` the first turn does.
        template_writes: whether the chat template writes them.
        tokenizer_adds: whether the tokenizer puts them before every text.
        known: whether the first of them is the bos_token; otherwise there is none.
        ends: whether the tokenizer puts `</s>` after every text.
    """

    beginning: tuple[str, ...]
    template_writes: bool
    tokenizer_adds: bool
    known: bool = True
    ends: bool = False

    def build(self) -> Any:
        """The tokenizer, with bytes as its other tokens."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        raw = Tokenizer(models.BPE(dict(_vocabulary()), []))
        raw.add_special_tokens([AddedToken(sign, special=True) for sign in SPECIAL])
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        before = self.beginning if self.tokenizer_adds else ()
        raw.post_processor = processors.TemplateProcessing(
            single=" ".join([*before, "$A", *["</s>"] * self.ends]),
            special_tokens=[(sign, number) for number, sign in enumerate(SPECIAL)],
        )
        written = "".join(self.beginning) if self.template_writes else ""
        return PreTrainedTokenizerFast(
            tokenizer_object=raw,
            bos_token=self.beginning[0] if self.known else None,
            eos_token="<|im_end|>",
            pad_token="<pad>",
            chat_template=written.removesuffix("<|im_start|>") + CHATML,
        )

    def ids(self, text: str, policy: str = "once") -> list[int]:
        """What a model must be given for a text of ChatML that it continues, computed by hand."""
        begins = {
            "once": self.template_writes or self.tokenizer_adds,
            "template": self.template_writes,
            # Nothing says that a token begins a sequence if only the template writes it.
            "none": self.template_writes and not self.known and not self.tokenizer_adds,
        }[policy]
        if self.beginning == ("<|im_start|>",):
            text = text.removeprefix("<|im_start|>")
        vocabulary = _vocabulary()
        ids = [vocabulary[sign] for sign in self.beginning] if begins else []
        while text:
            sign = next((sign for sign in SPECIAL if text.startswith(sign)), text[0])
            ids.append(vocabulary[sign.replace(" ", "Ġ").replace("\n", "Ċ")])
            text = text[len(sign) :]
        return ids

    def finished(self, policy: str = "once") -> list[int]:
        """The same for the whole conversation."""
        return self.ids(QUESTION + ANSWER, policy) + [SPECIAL.index("</s>")] * (
            self.ends and policy == "once"
        )


@cache
def _vocabulary() -> dict[str, int]:
    from tokenizers import pre_tokenizers

    return {sign: n for n, sign in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}


SHAPES = {
    "both, as Llama": Shape(("<s>",), True, True),
    "template": Shape(("<s>",), True, False),
    "tokenizer": Shape(("<s>",), False, True),
    "neither": Shape(("<s>",), False, False),
    "turn, as SmolLM2": Shape(("<|im_start|>",), True, False),
    "turn and tokenizer": Shape(("<|im_start|>",), True, True),
    "no bos_token, both": Shape(("<s>",), True, True, known=False),
    "no bos_token, template": Shape(("<s>",), True, False, known=False),
    "no bos_token, tokenizer": Shape(("<s>",), False, True, known=False),
    "no bos_token, neither, as Qwen": Shape(("<s>",), False, False, known=False),
    "two tokens": Shape(("<mask>", "<s>"), True, True, known=False),
    "both and an end": Shape(("<s>",), True, True, ends=True),
    "turn and an end": Shape(("<|im_start|>",), True, False, ends=True),
}
POLICIES = ("once", "template", "none")


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


@pytest.fixture
def saved(shape: Shape, tmp_path: Path) -> Callable[[str], Path]:
    """A function: class of transformers and seed → folder of a random model with the shape's tokenizer."""

    def save(name: str, seed: int = 0) -> Path:
        import torch
        import transformers

        folder = tmp_path / f"{name}{seed}"
        tokenizer = shape.build()
        torch.manual_seed(seed)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            pad_token_id=SPECIAL.index("<pad>"),
            eos_token_id=SPECIAL.index("<|im_end|>"),
        )
        config.num_labels = 1
        model = getattr(transformers, name)(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.2)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def generated_from(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Token ids of every prompt that a language model is made to continue, padding left out."""
    from transformers import LlamaForCausalLM

    seen: list[list[int]] = []
    model: Any = LlamaForCausalLM
    generate = model.generate

    def recording(self: Any, input_ids: Any, attention_mask: Any, **options: Any) -> Any:
        seen.extend(row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        return generate(self, input_ids=input_ids, attention_mask=attention_mask, **options)

    monkeypatch.setattr(model, "generate", recording)
    return seen


@pytest.mark.parametrize("policy", POLICIES)
def test_token_ids_and_the_texts_for_servers_begin_alike(shape: Shape, policy: Any) -> None:
    tokenizer = shape.build()
    render = Renderer(tokenizer, RewardModelConfig("x", "classifier", "x", bos=policy))
    assert render([CONVERSATION]) == [tuple(shape.finished(policy))]
    whole = tokenizer(render.whole(CONVERSATION), add_special_tokens=False).input_ids
    assert whole == shape.ids((QUESTION + ANSWER).rstrip("\n"), policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_cutting_on_the_left_keeps_one_beginning(shape: Shape, policy: Any) -> None:
    whole = shape.finished(policy)
    start = shape.ids("", policy) if shape.known or shape.tokenizer_adds else []
    for limit in range(3, len(whole)):
        config = RewardModelConfig(
            "x", "classifier", "x", bos=policy, max_length=limit, overlong="truncate_left"
        )
        rest = whole[len(whole) - limit + len(start) :]
        # A turn that opens with the beginning needs no second one.
        expected = rest if start and rest[: len(start)] == start else start + rest
        assert Renderer(shape.build(), config)([CONVERSATION]) == [tuple(expected)]


def test_a_classifier_and_servers_see_one_beginning(shape: Shape, saved: Callable[..., Path]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = saved("LlamaForSequenceClassification")
    ids = shape.finished()
    with torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        expected = model(torch.tensor([ids])).logits.item()
    config = RewardModelConfig("x", "classifier", str(folder))
    assert load_reward_model(config).score([CONVERSATION]).scores == pytest.approx([expected], abs=1e-5)
    for protocol in ("vllm_classify", "openrlhf"):
        endpoint = EndpointConfig("http://127.0.0.1:9", protocol)
        remote: Any = load_reward_model(RewardModelConfig("x", "remote", str(folder), endpoint=endpoint))
        body = remote.protocol.body(remote.protocol.prepare([CONVERSATION]))
        if protocol == "vllm_classify":
            assert body["input"] == [ids]
        else:  # whose server adds no special tokens
            assert shape.build()(body["query"], add_special_tokens=False).input_ids == [
                shape.ids((QUESTION + ANSWER).rstrip("\n"))
            ]
            assert body["query"][0].startswith(body["prompts"][0])


def test_an_implicit_reward_model_sees_one_beginning(shape: Shape, saved: Callable[..., Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folders = [saved("LlamaForCausalLM", seed) for seed in (0, 1)]
    ids = shape.finished()
    sums = []
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.inference_mode():
            log_TV = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        answer = range(len(shape.ids(QUESTION)), len(ids))
        sums.append(sum(log_TV[place - 1, ids[place]].item() for place in answer))
    config = RewardModelConfig("x", "implicit", str(folders[0]), reference=str(folders[1]))
    found = load_reward_model(config).score([CONVERSATION]).scores
    assert found == pytest.approx([sums[0] - sums[1]], abs=1e-4)


@pytest.mark.parametrize("policy", ["once", "none"])
def test_a_generative_reward_model_sees_one_beginning_whichever_way_it_is_read(
    shape: Shape,
    policy: Any,
    saved: Callable[..., Path],
    tmp_path: Path,
    generated_from: list[list[int]],
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder, prompt = saved("LlamaForCausalLM"), tmp_path / "prompt.jinja"
    prompt.write_text("{{ answer_a }} or {{ answer_b }}")
    asked = [Comparison(PROMPT, "cat", "dog"), Comparison(PROMPT, "saw", "hammer")]
    shown = [QUESTION.replace("name two", f"{c.completion_a} or {c.completion_b}") for c in asked]
    expected = [shape.ids(text, policy) for text in shown]

    def judge(read: Any) -> Any:
        verdict = VerdictConfig(
            str(prompt), opening="", pattern="([AB])", read=read, both_orders=False, max_tokens=1
        )
        config = RewardModelConfig(
            "x", "generative", str(folder), bos=policy, comparability="pair", verdict=verdict
        )
        return load_reward_model(config)

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.inference_mode():
        logits = [model(torch.tensor([ids])).logits[0, -1] for ids in expected]
    differences = [(row[_vocabulary()["B"]] - row[_vocabulary()["A"]]).item() for row in logits]
    probabilities = judge("probabilities").compare(asked).probabilities
    assert probabilities == pytest.approx(1 / (1 + np.exp(differences)), abs=1e-5)

    judge("text").compare(asked)
    assert generated_from == expected


@pytest.mark.parametrize("shape", ["turn, as SmolLM2"], indirect=True)
def test_a_judge_that_writes_is_asked_by_its_own_template_and_system_policy(
    shape: Shape, saved: Callable[..., Path], tmp_path: Path, generated_from: list[list[int]]
) -> None:
    template, prompt = tmp_path / "template.jinja", tmp_path / "prompt.jinja"
    template.write_text("{% for m in messages %}({{ m.role }}:{{ m.content }}){% endfor %}")
    prompt.write_text("{{ answer_a }} or {{ answer_b }}")
    verdict = VerdictConfig(str(prompt), system="be brief", read="text", both_orders=False, max_tokens=1)
    config = RewardModelConfig(
        name="x",
        kind="generative",
        model=str(saved("LlamaForCausalLM")),
        chat_template=str(template),
        system="merge",
        comparability="pair",
        verdict=verdict,
    )
    load_reward_model(config).compare([Comparison(PROMPT, "cat", "dog")])
    assert shape.build().batch_decode(generated_from) == ["(user:be brief\n\ncat or dog)"]
