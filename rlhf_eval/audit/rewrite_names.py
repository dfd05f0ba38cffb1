"""A rewrite of the names of persons: other names, the same in the prompt and in every completion."""

import re
from collections.abc import Iterable, Mapping
from random import Random

from rlhf_eval.audit.ablation import in_completions, in_prompt
from rlhf_eval.audit.rewrite_texts import outside_code
from rlhf_eval.benchmarks.items import Item

# First names that are no words, months or places, and by which alone no famous person is known.
FEMALE = """
    Alice Amanda Anika Beatriz Carla Carol Chloe Clara Devika Diana Elena Elowen Emily Emma Farah
    Hana Hannah Ingrid Isabella Janet Jennifer Jessica Julia Karen Kate Laila Laura Lauren Linda
    Lisa Luna Maya Megan Melissa Mia Nadia Nancy Naomi Nia Nicole Nina Olivia Priya Rachel Samantha
    Sophia Susan Tala Yuki Zara Zoe
    """.split()
MALE = """
    Alejandro Andrew Ayaan Bob Brian Carlos Charlie Dave Derek Emeka Eric Ethan Farid Felix Fred
    Gary Greg Hiroshi Hugo Ivan Jake Jason Jaxon Jeff Josh Kehinde Kevin Kyle Liam Luca Mateo Mike
    Nick Omar Oscar Pedro Quan Raj Ravi Ryan Sam Soren Steve Theo Tim Tom Tyler Victor
    """.split()
_NAME = re.compile(rf"\b(?:{'|'.join(FEMALE + MALE)})\b")
# With a surname, a number or a title it may be somebody who exists: `Tim Cook`, `Luna 2`, `saw Uncle Bob`.
_SOMEBODY = re.compile(
    rf"{_NAME.pattern}\s+(?:[A-Z]|\d)|{_NAME.pattern}['’]s\s+(?:law|rule|theorem)"
    rf"|[a-z,;]\s+[A-Z][a-z]+\.?\s+{_NAME.pattern}"
)
# Questions about the letters or sounds of a word have another answer for another name.
_LETTERS_MATTER = re.compile(r"(?i)alphabet|spell|rhym|acrostic|anagram|initials|syllable|palindrom")


def other_names(item: Item, rng: Random) -> Item:
    """The persons whom the prompt names have other names of the same gender, which the item did not have.

    The item itself if it names nobody, if one may be a real person, if letters or sounds of names may matter,
    or if a name stands in code as well.
    """
    prompt = "\n".join(message.content for message in item.prompt.messages)
    everything = "\n".join((prompt, *item.completions))
    if _SOMEBODY.search(everything) or _LETTERS_MATTER.search(prompt):
        return item
    names = dict.fromkeys(_NAME.findall(prompt))
    taken = set(_NAME.findall(everything))
    new = {
        old: name
        for pool in (FEMALE, MALE)
        for old, name in zip(
            [name for name in names if name in pool], _shuffled(rng, set(pool) - taken), strict=False
        )
    }
    if len(new) < len(names):
        return item
    changed = rename(item, new)
    left = "\n".join((*(m.content for m in changed.prompt.messages), *changed.completions))
    return item if set(names) & set(_NAME.findall(left)) else changed


def rename(item: Item, names: Mapping[str, str]) -> Item:
    """Every occurrence outside code of each name replaced, all at once."""

    def renamed(text: str) -> str:
        return _NAME.sub(lambda match: names.get(match[0], match[0]), text)

    return in_completions(in_prompt(item, outside_code(renamed)), outside_code(renamed))


def _shuffled(rng: Random, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    rng.shuffle(found)
    return found
