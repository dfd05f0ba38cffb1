"""From a conversation to the token ids that a reward model sees, with its own tokenizer and template."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.records import Conversation, Message, as_json
from rlhf_eval.sources import resolve

ROLES = ("system", "user", "assistant")


def check(conversations: Sequence[Conversation]) -> None:
    """Refuse conversations that no chat template can render as their author meant them.

    An empty assistant turn is a (bad) answer, not a mistake: it is scored.

    Raises:
        DataError: no assistant's turn at the end, two turns of one side in a row, an unknown role, a
            system turn that is not the first, or content that is no text; the conversation is named by its
            place in the list.
    """
    for number, conversation in enumerate(conversations, 1):
        fault = _fault([message.role for message in conversation])
        if not fault and not all(isinstance(message.content, str) for message in conversation):
            fault = "has a turn whose content is no text"
        if fault:
            raise DataError(
                f"Conversation {number} of {len(conversations)} {fault}.",
                "Give turns of user and assistant in alternation, a system turn only as the first, and end "
                "with the assistant's.",
            )


def _fault(roles: Sequence[str]) -> str:
    unknown = [role for role in roles if role not in ROLES]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if unknown:
        return f"has the unknown role '{unknown[0]}'"
    if not turns or turns[-1] != "assistant":
        return "does not end with a turn of the assistant"
    if "system" in turns:
        return "has a system turn that is not the first"
    if any(a == b for a, b in pairwise(turns)):
        return "has two turns of one side in a row"
    return "begins with a turn of the assistant" if turns[0] == "assistant" else ""


def with_system(conversation: Conversation, policy: str) -> Conversation:
    """The conversation with its system turn kept, dropped, or merged into the first user turn."""
    if policy == "keep" or conversation[0].role != "system":
        return conversation
    system, user, *rest = conversation
    if policy == "merge":
        user = Message(user.role, f"{system.content}\n\n{user.content}")
    return (user, *rest)


class Renderer:
    """Renders conversations for one reward model.

    Attributes:
        tokenizer: the reward model's own.
        config: its policies on template, beginning of sequence, system turn and length.
    """

    def __init__(self, tokenizer: Any, config: RewardModelConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.template = resolve(config.chat_template).read_text("utf-8") if config.chat_template else None
        if self.template is None and not tokenizer.chat_template:
            raise DataError(
                f"The tokenizer of '{config.model}' has no chat template.",
                "Name a file with one in reward_model.chat_template.",
            )

    def text(self, conversation: Conversation, **options: Any) -> str:
        """The conversation as the chat template writes it."""
        return self.tokenizer.apply_chat_template(
            as_json(with_system(conversation, self.config.system)),
            chat_template=self.template,
            tokenize=False,
            **options,
        )

    def whole(self, conversation: Conversation) -> str:
        """The rendered text with its beginning and its end written out, for servers that add neither.

        It ends as OpenRLHF's reward models were trained: without line feeds, then with the end token.
        """
        text = self.text(conversation).removeprefix(self.tokenizer.bos_token or "").rstrip("\n")
        begin = "" if self.config.bos == "none" else self.tokenizer.bos_token or ""
        end = self.tokenizer.eos_token or ""
        return begin + text + ("" if text.endswith(end) else f" {end}")

    def ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of rendered texts, whatever their length."""
        if not texts:
            return []
        bos, policy = self.tokenizer.bos_token, self.config.bos
        if bos and policy != "template":
            texts = [text.removeprefix(bos) for text in texts]
        encoded = self.tokenizer(list(texts), add_special_tokens=policy == "once").input_ids
        return [tuple(ids) for ids in encoded]

    def __call__(self, conversations: Sequence[Conversation]) -> list[tuple[int, ...] | None]:
        """Token ids of each conversation; None for one that is too long and to be masked.

        Raises:
            DataError: a conversation is malformed, or too long where `overlong` is `error`.
        """
        check(conversations)
        return [
            self._fitted(ids, number)
            for number, ids in enumerate(self.ids([self.text(c) for c in conversations]), 1)
        ]

    def _fitted(self, ids: tuple[int, ...], number: int) -> tuple[int, ...] | None:
        limit, policy = self.config.max_length, self.config.overlong
        if len(ids) <= limit:
            return ids
        if policy == "error":
            raise DataError(
                f"Conversation {number} has {len(ids)} tokens, and reward model '{self.config.name}' takes "
                f"{limit}.",
                "Raise reward_model.max_length, or set reward_model.overlong to mask or truncate_left.",
            )
        if policy == "mask":
            return None
        start = ids[:1] if ids[0] == self.tokenizer.bos_token_id else ()
        return (*start, *ids[len(ids) - limit + len(start) :])
