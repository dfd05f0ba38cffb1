"""From a conversation to the token ids that a reward model sees, with its own tokenizer and template."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rlhf_eval.config.reward_schema import RewardModelConfig
from rlhf_eval.errors import DataError
from rlhf_eval.records import Conversation, Message, as_json
from rlhf_eval.sources import resolve

Tokens = tuple[int, ...]
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
        beginning: token ids that may open a conversation: those that the tokenizer puts before every text,
            or its BOS token if it puts none.
        before: token ids put before every text under the policy; empty if the tokenizer puts none.
        after: the same for the end.
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
        before, after = _added(tokenizer)
        bos = tokenizer.bos_token_id
        self.beginning: Tokens = before or (() if bos is None else (bos,))
        self.before, self.after = (before, after) if config.bos == "once" else ((), ())

    def text(self, conversation: Conversation, **options: Any) -> str:
        """The conversation as the chat template writes it."""
        return self.tokenizer.apply_chat_template(
            as_json(with_system(conversation, self.config.system)),
            chat_template=self.template,
            tokenize=False,
            **options,
        )

    def begun(self, text: str) -> str:
        """The rendered text with its beginning written out, for servers that add none.

        It begins as `ids` does, so that one configuration gives a model the same beginning everywhere.
        """
        return "".join(self.tokenizer.convert_ids_to_tokens(list(self.before))) + self._bare(text)

    def whole(self, conversation: Conversation) -> str:
        """The conversation's text with its beginning and its end written out, for servers that add neither.

        It ends as OpenRLHF's reward models were trained: without line feeds, then with the end token.
        """
        text = self.begun(self.text(conversation)).rstrip("\n")
        end = self.tokenizer.eos_token or ""
        return text + ("" if text.endswith(end) else f" {end}")

    def ids(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of rendered texts, whatever their length."""
        return [(*ids, *self.after) for ids in self._begun_ids(texts)]

    def opened(self, questions: Sequence[Conversation], words: str = "") -> list[Tokens]:
        """Token ids of questions with the assistant's turn opened, for a model that continues them.

        Args:
            words: the assistant's first words.
        """
        return self._begun_ids([self.text(q, add_generation_prompt=True) + words for q in questions])

    def _begun_ids(self, texts: Sequence[str]) -> list[Tokens]:
        if not texts:
            return []
        encoded = self.tokenizer([self._bare(text) for text in texts], add_special_tokens=False).input_ids
        return [(*self.before, *ids) for ids in encoded]

    def _bare(self, text: str) -> str:
        """The text without its beginning if the tokenizer puts one there or the policy forbids it.

        Otherwise the beginning that the template wrote is the only one, and it stays.
        """
        if self.before or self.config.bos == "none":
            for token in self.tokenizer.convert_ids_to_tokens(list(self.beginning)):
                text = text.removeprefix(token)
        return text

    def __call__(self, conversations: Sequence[Conversation]) -> list[Tokens | None]:
        """Token ids of each conversation; None for one that is too long and to be masked.

        Raises:
            DataError: a conversation is malformed, or too long where `overlong` is `error`.
        """
        check(conversations)
        return [
            self._fitted(ids, number)
            for number, ids in enumerate(self.ids([self.text(c) for c in conversations]), 1)
        ]

    def _fitted(self, ids: Tokens, number: int) -> Tokens | None:
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
        size = len(self.beginning)
        if ids[:size] != self.beginning:
            return ids[-limit:]
        rest = ids[len(ids) - limit + size :]
        # ChatML's BOS opens every turn: a cut at the start of one leaves it there already.
        return rest if rest[:size] == self.beginning else (*self.beginning, *rest)


def _added(tokenizer: Any) -> tuple[Tokens, Tokens]:
    """Token ids that the tokenizer puts before and after every text."""
    bare, full = tokenizer("x", add_special_tokens=False).input_ids, tokenizer("x").input_ids
    start = max(n for n in range(len(full) + 1) if full[n : n + len(bare)] == bare)
    return tuple(full[:start]), tuple(full[start + len(bare) :])
