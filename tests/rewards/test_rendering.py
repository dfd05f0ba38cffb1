"""Conversations are checked, and rendered as the reward model's policies say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.errors import DataError
from rlhf_eval.records import Message
from rlhf_eval.rewards.rendering import Renderer, check, with_system

SYSTEM, USER, ANSWER = (
    Message("system", "be short"),
    Message("user", "list two animals"),
    Message("assistant", "cat dog ."),
)
LLAMA_LIKE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Bytes as tokens, with a beginning that the tokenizer writes by itself, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({sign: n for n, sign in enumerate(["<bos>", "<pad>", *alphabet])}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", pad_token="<pad>")
    fast.chat_template = LLAMA_LIKE
    return fast


@pytest.mark.parametrize(
    ("conversation", "fault"),
    [
        ((USER,), "does not end with a turn of the assistant"),
        ((), "does not end"),
        ((SYSTEM,), "does not end"),
        ((USER, USER, ANSWER), "two turns of one side in a row"),
        ((USER, ANSWER, ANSWER), "two turns of one side in a row"),
        ((ANSWER,), "begins with a turn of the assistant"),
        ((USER, SYSTEM, ANSWER), "system turn that is not the first"),
        ((Message("tool", "x"), ANSWER), "unknown role 'tool'"),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_conversation_is_named(conversation: tuple, fault: str) -> None:
    with pytest.raises(DataError, match=f"Conversation 2 of 2 .*{fault}"):
        check([(USER, ANSWER), conversation])


def test_an_empty_answer_and_several_turns_are_fine() -> None:
    check([(USER, Message("assistant", "")), (SYSTEM, USER, ANSWER, USER, ANSWER)])


def test_a_system_turn_is_kept_dropped_or_merged() -> None:
    conversation = (SYSTEM, USER, ANSWER)
    assert with_system(conversation, "keep") == conversation
    assert with_system(conversation, "drop") == (USER, ANSWER)
    merged = with_system(conversation, "merge")
    assert merged == (Message("user", "be short\n\nlist two animals"), ANSWER)
    assert with_system((USER, ANSWER), "merge") == (USER, ANSWER)


@pytest.mark.parametrize(("policy", "beginnings"), [("once", 1), ("template", 1), ("none", 0)])
def test_the_beginning_of_sequence_is_never_doubled(
    policy: str, beginnings: int, tokenizer: Any, config_of: Callable[..., Any]
) -> None:
    (ids,) = Renderer(tokenizer, config_of("x", bos=policy))([(USER, ANSWER)])
    assert ids is not None
    assert ids.count(0) == beginnings
    assert tokenizer.decode(ids).endswith("<assistant>cat dog .<end>")


@pytest.mark.parametrize(("eos", "end"), [("<end>", "cat dog .<end>"), ("</s>", "cat dog .<end> </s>")])
def test_a_text_for_a_server_that_adds_nothing_is_whole(
    eos: str, end: str, tokenizer: Any, config_of: Callable[..., Any]
) -> None:
    tokenizer.eos_token = eos
    tokenizer.chat_template = LLAMA_LIKE + "\n\n"
    text = Renderer(tokenizer, config_of("x")).whole((USER, ANSWER))
    assert text.count("<bos>") == 1
    assert text.startswith("<bos><user>")
    assert text.endswith(end)
    assert "<bos>" not in Renderer(tokenizer, config_of("x", bos="none")).whole((USER, ANSWER))


def test_cutting_on_the_left_keeps_the_beginning_and_the_end(
    tokenizer: Any, config_of: Callable[..., Any]
) -> None:
    render = Renderer(tokenizer, config_of("x", max_length=20, overlong="truncate_left"))
    (ids,) = render([(USER, ANSWER)])
    assert ids is not None
    assert (len(ids), ids[0]) == (20, 0)
    assert tokenizer.decode(ids[1:]) == "tant>cat dog .<end>"


def test_a_template_of_the_users_own(tokenizer: Any, config_of: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    render = Renderer(tokenizer, config_of("x", chat_template=str(file)))
    assert render.text((USER, ANSWER)) == "[list two animals][cat dog .]"
    with pytest.raises(DataError, match="no_such"):
        Renderer(tokenizer, config_of("x", chat_template=str(tmp_path / "no_such.jinja")))
