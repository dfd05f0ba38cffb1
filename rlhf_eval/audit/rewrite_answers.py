"""Rewrites of the form in which completions state their final answer."""

import re
from collections.abc import Callable
from dataclasses import replace
from random import Random

from rlhf_eval.benchmarks.items import Item

_LEAD = r"(?:(?:the |my )?(?:final |correct |best )?answer(?: is)?\s*:?\s*)"
_ENDING = re.compile(
    r"(?:"
    # A box, with or without the marks of a formula around it.
    r"(?:\*\*)?(?:\$+|\\\[|\\\()?\s*\\boxed\{(?P<boxed>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})+)\}\s*\.?\s*"
    r"(?:\$+|\\\]|\\\))?(?:\*\*)?"
    rf"|\*\*(?i:{_LEAD})?(?P<bold>[^*\n]{{1,60}}?)\*\*"
    rf"|^#+ (?i:{_LEAD})\s*(?P<header>[^*\n]{{1,60}}?)"
    rf"|^(?i:{_LEAD})(?P<plain>[^*\n]{{1,60}}?)"
    r"|(?<![A-Za-z])(?P<letters>(?P<letter>[A-Z])(?P=letter){3,})"
    r")[.\s]*\Z",
    re.MULTILINE,
)
_WRAPPED = re.compile(r"\\text(?:bf)?\{([^{}]*)\}|\$+([^$]+)\$+|\\\(\s*(.+?)\s*\\\)")


def final_answer(text: str) -> tuple[str, str] | None:
    r"""What stands before the final answer, and the answer without its form; None if the text ends with none.

    Known forms at the end of a text: `\boxed{X}`, `**X**`, `**Answer: X**`, `# Answer` with X below it,
    a line `Answer: X` or `The answer is X.`, and `XXXXX` as JudgeBench asks for.
    """
    match = _ENDING.search(text)
    if match is None:
        return None
    found = next(x for x in match.groupdict().values() if x is not None).strip()
    bare = _WRAPPED.fullmatch(found)
    answer = next(x for x in bare.groups() if x is not None) if bare else found
    return text[: match.start()].rstrip(), answer


def answer_as(form: Callable[[str], str]) -> Callable[[Item, Random], Item]:
    """Every completion with its final answer in one form; the item itself if one has none to be seen."""

    def changed(item: Item, rng: Random) -> Item:
        found = [final_answer(text) for text in item.completions]
        texts = [f"{text[0]}\n\n{form(text[1])}".lstrip() for text in found if text]
        return replace(item, completions=tuple(texts)) if all(found) else item

    return changed


def boxed(answer: str) -> str:
    r"""`$\boxed{X}$`, words in `\text`."""
    return f"$\\boxed{{{answer}}}$" if _is_formula(answer) else f"$\\boxed{{\\text{{{answer}}}}}$"


def bold(answer: str) -> str:
    """`**Answer: X**`."""
    return f"**Answer: {_readable(answer)}**"


def plain(answer: str) -> str:
    """`Answer: X`."""
    return f"Answer: {_readable(answer)}"


def header(answer: str) -> str:
    """`# Answer` and X below it."""
    return f"# Answer\n\n{_readable(answer)}"


def _is_formula(answer: str) -> bool:
    return not re.search(r"[^\W\d_]{2}", re.sub(r"\\[a-zA-Z]+", "", answer))


def _readable(answer: str) -> str:
    return f"${answer}$" if re.search(r"[\\^_]", answer) else answer
