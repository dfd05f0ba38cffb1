"""Rewrites of the style of completions; code, formulas and addresses in them are kept as they are."""

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from rlhf_eval.audit.ablation import in_completions, in_prompt
from rlhf_eval.benchmarks.items import Item

Change = Callable[[Item, Random], Item]
"""A deterministic rewrite of an item; the item itself where it does not apply."""
TextChange = Callable[[str], str]

_KEPT = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\$\$.+?\$\$|\\\[.+?\\\]|\\\(.+?\\\)|\$[^$\n]+\$|https?://\S+", re.DOTALL
)
# Answers of coding benchmarks are often code without a fence.
_BARE_CODE = re.compile(
    r"^\s*(?:def \w|class \w+.*[:{]$|import \w|from \w+ import|#include|public |function \w|const |return\b"
    r"|print\(|for \w+ in .+:$|(?:\w|, )+ = (?:int|map|list|input)\()",
    re.MULTILINE,
)
# One character of the private use plane stands for each kept passage while the rest is rewritten.
_HOLDER = 0xF0000
_HOLDERS = re.compile(f"[{chr(_HOLDER)}-{chr(_HOLDER + 0xFFFD)}]")

_BULLET = re.compile(r"^([ \t]*)[-*+]([ \t]+)(?=[^\W\d_]{2}|\*\*[^\W_])", re.MULTILINE)
_NUMBER = re.compile(r"^([ \t]*\d{1,2})([.)])(?=[ \t]+\S)", re.MULTILINE)
_HEADER = re.compile(r"^#{1,6}[ \t]+(?=\S)", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=[^\s*])([^*\n]*[^\s*])\*\*")
_FIRST_SENTENCE = re.compile(r"\A[^\W\d_][^\n*#|]*?(?:[.!?:](?=\s|\Z)|(?=[^\S\n]*(?:\n|\Z)))")
_SENTENCE_END = re.compile(r"(?:(?<=[a-z)\"”][.!?])|(?<=[.!?][)\"”])) (?=[A-Z*])")
_PUNCTUATION = re.compile(r"(?<=[^\W\d_]{2})([,.;:!?])(?=\s|\Z)")


def outside_code(change: TextChange) -> TextChange:
    """The same change, with code, formulas and addresses kept; a text that is bare code is not changed."""

    def changed(text: str) -> str:
        kept: list[str] = []

        def hold(match: re.Match[str]) -> str:
            kept.append(match[0])
            return chr(_HOLDER + len(kept) - 1)

        prose = _KEPT.sub(hold, text)
        if _BARE_CODE.search(prose) or _HOLDERS.search(text):
            return text
        return _HOLDERS.sub(lambda match: kept[ord(match[0]) - _HOLDER], change(prose))

    return changed


def in_every_completion(change: TextChange) -> Change:
    """Changes an item only if it changes all completions: what is added is added to right and wrong."""
    careful = outside_code(change)

    def changed(item: Item, rng: Random) -> Item:
        new = in_completions(item, careful)
        alike = all(a != b for a, b in zip(new.completions, item.completions, strict=True))
        return new if alike else item

    return changed


def in_some_completions(change: TextChange) -> Change:
    """Changes whatever completions it can: right for taking away or exchanging what stands there already."""
    careful = outside_code(change)
    return lambda item, rng: in_completions(item, careful)


def in_prompt_and_completions(change: TextChange) -> Change:
    """As `in_every_completion`, and in every turn of the prompt."""
    completions, careful = in_every_completion(change), outside_code(change)

    def changed(item: Item, rng: Random) -> Item:
        new = completions(item, rng)
        return item if new is item else in_prompt(new, careful)

    return changed


def in_instruction(change: TextChange) -> Change:
    """Changes the last turn of the prompt only."""

    def changed(item: Item, rng: Random) -> Item:
        *before, last = item.prompt.messages
        messages = (*before, replace(last, content=change(last.content)))
        return replace(item, prompt=replace(item.prompt, messages=messages))

    return changed


def blank_lines(text: str) -> str:
    """One more blank line wherever there is one."""
    return re.sub(r"\n[ \t]*\n", r"\g<0>\n", text)


def trailing_spaces(text: str) -> str:
    """A space at the end of every line that is not blank."""
    return re.sub(r"(?<=\S)$", " ", text, flags=re.MULTILINE)


def sentence_spaces(text: str) -> str:
    """Two spaces after a sentence."""
    return _SENTENCE_END.sub("  ", text)


def punctuation_spaces(text: str) -> str:
    """A space before the punctuation that ends a word."""
    return _PUNCTUATION.sub(r" \1", text)


def quoted(text: str) -> str:
    """The whole text in quotation marks, unless it begins or ends with code, which they would break."""
    return text if _HOLDERS.match(text) or _HOLDERS.match(text[-1:]) else f'"{text}"'


def tautology(text: str) -> str:
    """A true and empty sentence at the end, on a line of its own so that it breaks no code."""
    return f"{text}\nAnd true is true."


def bold_added(text: str) -> str:
    """The first sentence of every paragraph in bold."""
    return _paragraphs(lambda p: _FIRST_SENTENCE.sub(lambda m: f"**{m[0]}**", p), text)


def bullets_added(text: str) -> str:
    """A bullet before every paragraph of one line."""
    return _paragraphs(lambda p: f"- {p}" if re.fullmatch(r"[^\W\d_]{2}[^\n|]*[^:\n]", p) else p, text)


def header_added(text: str) -> str:
    """A header above the text."""
    return f"# Response\n\n{text}"


def markdown_removed(text: str) -> str:
    """Without bold, headers and bullets."""
    return _BOLD.sub(r"\1", _BULLET.sub(r"\1", _HEADER.sub("", text)))


def list_markers(text: str) -> str:
    """Other markers of lists: `*` for `-` and `-` for `*`, `1)` for `1.` and `1.` for `1)`."""
    bullets = _BULLET.sub(lambda m: _exchanged(m[0], "-", "*", len(m[1])), text)
    return _NUMBER.sub(lambda m: m[1] + {".": ")", ")": "."}[m[2]], bullets)


def typographic_quotes(text: str) -> str:
    """Curly quotation marks and apostrophes for straight ones; feet, inches and primes keep theirs."""
    opened = re.sub(r'(^|[\s(\[{—–])"(?=\S)', r"\1“", text, flags=re.MULTILINE)
    paired = re.sub(r'“([^"“”\n]*)"', r"“\1”", opened)
    double = re.sub(r'(?<![\d\s])"', "”", paired)
    apostrophes = re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])|(?<=[a-z]{2}s)'(?=\s)", "’", double)
    return re.sub(r"(?<![\w'])'(?=\S)([^'\n]*\S)'(?!\w)", r"‘\1’", apostrophes)


def first_letter_case(text: str) -> str:
    """The first letter small if it was a capital, and the other way round; not if the word is one letter."""
    return re.sub(r"\A[^\W\d_](?=[a-z])", lambda m: m[0].swapcase(), text)


def _paragraphs(change: TextChange, text: str) -> str:
    """Every paragraph changed, and what stands between them kept."""
    return "".join(part if part.isspace() else change(part) for part in re.split(r"(\n\s*\n)", text) if part)


def _exchanged(text: str, a: str, b: str, place: int) -> str:
    """The text with `a` for `b` and `b` for `a` at one place."""
    return text[:place] + {a: b, b: a}.get(text[place], text[place]) + text[place + 1 :]
