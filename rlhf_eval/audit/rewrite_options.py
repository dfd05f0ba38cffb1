"""Rewrites of the letters of multiple-choice options, the same in the prompt and in every completion.

A capital letter may also be a word (`A`, `I`), a variable, a unit or an element. So a letter is changed only
where it can be nothing but an option, and an item in which a letter stands in any other place is left alone.
"""

import re
from collections.abc import Mapping
from random import Random
from string import ascii_uppercase

from rlhf_eval.audit.ablation import in_completions, in_prompt
from rlhf_eval.benchmarks.items import Item

_LISTED = re.compile(r"(?:^|(?<=[{\s]))\(([A-Z])\)|^([A-Z])[.)](?=\s)", re.MULTILINE)
# The article and the pronoun are followed by a word as well; these follow an option instead.
_AFTER = (
    r"(?:is|are|and|or|as|for|because|since|with|to|five|has|does|seems|describes|mentions|suggests|states|says|refers"
    r"|represents|includes|involves|appears|looks|matches|fits|makes|gives|means|implies|contains|covers|provides"
    r"|addresses|focuses|captures|specifically)\b"
)
_AFTER_A = (
    r"(?:was|do|did|had|can|could|would|will|may|might|should|must|also|directly|correctly|only|alone)\b"
)
_JOIN = r"(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or|to|through|nor|than|over|vs\.?)\s+|\s*/\s*)"
_CUE = (
    r"\b(?i:options?|choices?|answers?|guess|between|both|choose|chose|select|go\s+with|eliminate)"
    r"(?:\s+(?:choices?|options?|string|here|therefore|of|(?:is|are|be|was|must|would|should|will|could|appears|"
    r"seems|to|likely|clearly|thus)))*[\s:]*(?:\\[\[(]\s*)?"
)
_FOUND = "\ue000"
# Questions in which the order of options matters, or letters that name other than options.
_ORDER_MATTERS = re.compile(
    r"(?i)\b(?:of the above|above options|preceding|first option|last option|listed)\b"
)


def other_letters(item: Item, rng: Random) -> Item:
    """The options have other letters, in order, none of which the item uses: (A) … (E) become (P) … (T)."""
    old = _options(item)
    everything = _everything(item)
    starts = range(ascii_uppercase.index("K"), len(ascii_uppercase) - len(old) + 1)
    free = [
        new
        for new in (ascii_uppercase[start : start + len(old)] for start in starts)
        if not re.search(rf"(?<![A-Za-z])([{new}])\1*(?![A-Za-z])", everything)
    ]
    return relabelled(item, dict(zip(old, rng.choice(free), strict=True))) if old and free else item


def other_order(item: Item, rng: Random) -> Item:
    """The options stand in another order, lettered from (A) again. Only for options of one line each."""
    old = _options(item)
    if not old or _ORDER_MATTERS.search(_everything(item)):
        return item
    new = rng.sample(old, len(old))
    if "".join(new) == old:
        return item
    changed = relabelled(item, dict(zip(old, new, strict=True)))
    if changed is item:
        return item
    ordered = in_prompt(changed, lambda text: _sorted_options(text, old))
    return item if ordered == changed else ordered


def relabelled(item: Item, letters: Mapping[str, str]) -> Item:
    """The item with other letters for its options; the item itself if a letter may be something else."""
    mention = _mentions("".join(letters))
    if _elsewhere("".join(letters)).search(mention.sub(_FOUND, _everything(item))):
        return item

    def label(text: str) -> str:
        return mention.sub(lambda match: _exchanged(match[0], letters), text)

    return in_completions(in_prompt(item, label), label)


def _exchanged(mention: str, letters: Mapping[str, str]) -> str:
    """`Options A, B` → `Options D, C`; letters within words are no options."""
    return re.sub(
        r"(?<![A-Za-z])([A-Z])(\1*)(?![A-Za-z])",
        lambda match: letters.get(match[1], match[1]) * len(match[0]),
        mention,
    )


def _everything(item: Item) -> str:
    return "\n\n".join((*(message.content for message in item.prompt.messages), *item.completions))


def _options(item: Item) -> str:
    """The letters of the prompt's options, "ABCDE"; empty if there are none in a row from A."""
    found = {a or b for message in item.prompt.messages for a, b in _LISTED.findall(message.content)}
    letters = ascii_uppercase[: len(found)]
    return letters if len(found) > 1 and found == set(letters) else ""


def _sorted_options(text: str, letters: str) -> str:
    """The block of option lines in the order of its letters; the text itself if it is no block of lines."""
    lines = text.split("\n")
    marked = {number: m[1] for number, line in enumerate(lines) if (m := re.match(r"\(?([A-Z])[.)]\s", line))}
    places = list(marked)
    if sorted(marked.values()) != list(letters) or places[-1] - places[0] != len(places) - 1:
        return text
    block = sorted(lines[places[0] : places[-1] + 1], key=lambda line: line.lstrip("(")[0])
    return "\n".join([*lines[: places[0]], *block, *lines[places[-1] + 1 :]])


def _mentions(letters: str) -> re.Pattern[str]:
    """Where a letter is surely an option: listed, in brackets, set off, in a row of letters, after a cue."""
    single = rf"(?<![\w\\'’$])[{letters}](?![\w'’]|\s*[=^_])"
    one = rf"{single}(?!(?<=[AI])\s+(?!{_AFTER})[a-z])"
    item = rf"(?:\*\*\(?{one}\)?\*\*|\({one}\)|[\"“]{one}[\"”]|{one})"
    # After other letters `A` is no article.
    row = rf"(?:{_JOIN}(?:{item}|{single}(?<=A)))"
    verdict = (
        r"\s+(?:is|are|was)\s+(?:not\s+|also\s+|the\s+|too\s+|more\s+|most\s+|partially\s+|likely\s+|clearly\s+)*"
        r"(?:correct|incorrect|wrong|right|best|only|true|false|answer|closest|accurate|plausible|irrelevant)\b"
    )
    return re.compile(
        rf"(?<![A-Za-z])([{letters}])\1{{3,}}(?![A-Za-z])"
        rf"|(?<![\w)\]])\([{letters}]\)"
        rf"|^[\s>*#-]*\(?[{letters}]\)?(?:\*\*)?[.):](?:\*\*)?(?=\s)|^\s*\*{{0,2}}[{letters}]\*{{0,2}}\.?\s*$"
        rf"|\*\*\(?[{letters}](?:\)?[.:]?\*\*|[.:)]\s)"
        rf"|\\boxed\{{\s*(?:\\text(?:bf)?\{{)?\(?[{letters}]\)?\}}+"
        rf"|{_CUE}{item}{row}*"
        rf"|{item}{row}{{2,}}"
        rf"|{item}{row}*{verdict}",
        re.MULTILINE,
    )


def _elsewhere(letters: str) -> re.Pattern[str]:
    """Where a letter may be something else, or an option is written in a way unknown to `_mentions`.

    What remains: an option A or I before a verb that `_AFTER` does not know, with no cue, passes for a word.
    """
    small = letters.lower()
    article = rf"A\s+(?!{_AFTER}|{_AFTER_A})[a-z]"
    pronoun = rf"I\s+(?!{_AFTER})[a-z]|I['’]|I\s+{_FOUND}"
    speaker = rf"I(?:['’]|\s+(?:will|am|think|believe|choose|repeat|apologi[sz]e)\b|\s+{_FOUND})"
    return re.compile(
        # `options B and I don't fit` or `the answer is B, and I don't see why`: who knows.
        rf"(?:{_FOUND}{_JOIN}(?!{speaker})|{_CUE})[{letters}](?![A-Za-z])"
        rf"|(?<![A-Za-z])(?<![A-Za-z]['’])(?!{article}|{pronoun})[{letters}](?![A-Za-z])"
        rf"|[{letters}]{{4,}}|([{letters}])\1\1|\([{small}]\)|\b(?i:options?|choices?)\s+[{small}]\b"
    )
