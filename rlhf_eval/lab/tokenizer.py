"""The lab policy's tokenizer: one token per word, with a chat template."""

from collections.abc import Sequence
from pathlib import Path

from rlhf_eval.lab.world import vocabulary

PAD, UNKNOWN, USER, ASSISTANT, END = "<pad>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"

# System turns are dropped: the lab's language has no words for them.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|> {{ message['content'] }} {% endif %}"
    "{% if message['role'] == 'assistant' %}<|assistant|> {{ message['content'] }} <|end|> {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def build_tokenizer(folder: Path, known: Sequence[str] | None = None) -> None:
    """Write the tokenizer to `folder` in the format of `AutoTokenizer`.

    Args:
        known: its words; null is the lab's vocabulary.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, UNKNOWN, USER, ASSISTANT, END]
    words = {word: i for i, word in enumerate([*special, *(known or vocabulary())])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
