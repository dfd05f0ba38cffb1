"""Artifact ablation: what each arm does to a text, which items take part, patterns of one's own."""

import re
from collections import Counter
from pathlib import Path

import pytest

from rlhf_eval.audit.ablation import FIVE_LETTER_SENTENCE, SHIPPED, affected, user_ablation
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.judgebench import load
from rlhf_eval.errors import ConfigError, DataError
from rlhf_eval.records import Message, Prompt, user_prompt

QUESTION = "Which?\n(A) this\n(B) that"
GUESS = "If you cannot determine the correct multiple-choice answer, take your best guess."
SENTENCE = (
    "Once you have your answer, please duplicate that letter five times in a single string."
    " For example, if the answer is K, then write KKKKK."
)
STEPS = "Let's think step by step."
ITEM = Item(
    "1",
    user_prompt("1", f"{QUESTION}\n{GUESS} {SENTENCE}\n{STEPS}"),
    ("It is A.\n\nAAAAA", "So the answer is **BBBBB**."),
    (1.0, 0.0),
    "knowledge",
)


def test_every_arm_by_hand() -> None:
    other = Item("2", user_prompt("2", "How many?"), ("BBBBB", "3"), (0.0, 1.0), "math")
    originals, variants = FIVE_LETTER_SENTENCE.variants("judgebench", [other, ITEM])
    assert originals == [ITEM]  # the other has no such sentence, so it takes part in no arm

    def texts(arm: str) -> tuple[str, tuple[str, ...]]:
        [item] = variants[arm]
        assert (item.id, item.labels, item.subset) == ("1", (1.0, 0.0), "knowledge")
        return item.prompt.instruction, item.completions

    without = f"{QUESTION}\n{GUESS}\n{STEPS}"
    stripped = ("It is A.", "So the answer is.")
    assert texts("sentence_removed") == (without, ITEM.completions)
    assert texts("string_removed") == (ITEM.prompt.instruction, stripped)
    assert texts("both_removed") == (without, stripped)
    assert texts("string_to_letter") == (without, ("It is A.\n\nA", "So the answer is **B**."))
    assert texts("other_letter") == (
        ITEM.prompt.instruction.replace("is K, then write KKKKK", "is Z, then write ZZZZZ"),
        ITEM.completions,
    )
    assert texts("control") == (f"{QUESTION}\n{SENTENCE}\n{STEPS}", ITEM.completions)
    reworded, completions = texts("sentence_reworded")
    assert completions == ITEM.completions
    assert reworded.startswith(f"{QUESTION}\n{GUESS} When you have decided")
    assert reworded.endswith(f"you would give KKKKK.\n{STEPS}")
    assert len(variants) == 7


def test_every_occurrence_goes_in_every_turn() -> None:
    turns = (Message("user", f"{SENTENCE} And again. {SENTENCE}"), Message("user", f"Well?\n{SENTENCE}"))
    item = Item("1", Prompt("1", turns), ("a", "b"), (1.0, 0.0))
    changed = FIVE_LETTER_SENTENCE.artifact.apply(item)
    assert [message.content for message in changed.prompt.messages] == [" And again.", "Well?"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Thus: CCCCC.", "Thus:."),
        ("Thus:\n```\nCCCCC\n```", "Thus:"),
        ("Thus:\n```plaintext\nCCCCC\n```", "Thus:"),
        ("Thus ```CCCCC```", "Thus"),
        ("Thus\n\\[\n\\boxed{\\text{CCCC}}\n\\]", "Thus"),
        ("Thus \\(\\boxed{CCCCC}\\).", "Thus."),
        ("Thus $CCCCCC$", "Thus"),
        ("**Thus CCCCC**", "**Thus**"),
        ("MMMMMeters, 22222, CCC and CCCCD stay", "MMMMMeters, 22222, CCC and CCCCD stay"),
    ],
)
def test_strings_go_with_the_markup_around_them(before: str, after: str) -> None:
    rule = FIVE_LETTER_SENTENCE.arms[1].rules[0]
    item = Item("1", user_prompt("1", "CCCCC"), (before, "-"), (1.0, 0.0))
    changed = rule.apply(item)
    assert changed.completions == (after, "-")
    assert changed.prompt == item.prompt


@pytest.mark.golden
@pytest.mark.parametrize(
    ("file", "math"), [("gpt-4o-2024-05-13", (35, 56)), ("claude-3-5-sonnet-20240620", (15, 34))]
)
def test_the_sentence_in_the_published_data(golden: Path, file: str, math: tuple[int, int]) -> None:
    items = load({"data": str(golden / "judgebench" / f"{file}.jsonl.gz")})
    sizes = Counter(item.subset for item in items)
    ablation = SHIPPED["judgebench"]
    originals, variants = ablation.variants("judgebench", items)
    assert Counter(item.subset for item in originals) == {"knowledge": 154, "math": math[0]}
    assert (sizes["knowledge"], sizes["math"]) == (154, math[1])
    assert originals == affected(items, ablation.artifact)

    def contain(pattern: str, arm: str) -> int:
        return sum(bool(re.search(pattern, item.prompt.instruction)) for item in variants[arm])

    for arm in ("sentence_removed", "both_removed", "string_to_letter", "sentence_reworded"):
        assert contain("duplicate that letter", arm) == 0
    for arm in ("string_removed", "other_letter", "control"):
        assert contain("duplicate that letter five times", arm) == len(originals)
    assert contain(r"([A-Z])\1{4}", "sentence_removed") == 0
    assert contain(r"you would give (KKKKK|FFFFF)\.", "sentence_reworded") == len(originals)
    assert contain("ZZZZZ", "other_letter") == len(originals)
    assert contain("best guess", "control") == 0
    string = re.compile(r"(?<![A-Za-z])([A-Z])\1{3,}(?![A-Za-z])")
    for old, new in zip(originals, variants["both_removed"], strict=True):
        assert (new.id, new.labels) == (old.id, old.labels)
        assert not any(string.search(text) for text in new.completions)
    # What is left is the question to the letter.
    for old, new in zip(originals, variants["sentence_removed"], strict=True):
        before, after = re.split(r"Once you have your answer.*(?:KKKKK|FFFFF)\.", old.prompt.instruction)
        assert new.prompt.instruction == before.rstrip() + after


def test_a_pattern_of_ones_own_changes_what_it_says() -> None:
    for where, prompt, completion in (
        ("prompt", "Why X?", "no banana"),
        ("responses", "Why banana?", "no X"),
        ("both", "Why X?", "no X"),
    ):
        item = Item("1", user_prompt("1", "Why banana?"), ("no banana", "yes"), (1.0, 0.0))
        ablation = user_ablation("fruit", r"b(an)\1a", "X", where)
        originals, variants = ablation.variants("mine", [item])
        [changed] = variants["fruit"]
        assert originals == [item]
        assert changed.prompt.instruction == prompt
        assert changed.completions == (completion, "yes")
    group = user_ablation("fruit", "(?P<first>b)anana", r"\g<first>", "prompt")
    assert group.arms[0].apply([item])[0].prompt.instruction == "Why b?"


@pytest.mark.parametrize(
    ("pattern", "replacement", "where", "message"),
    [
        ("a(b", "", "prompt", r"'a\(b' is no regular expression: .*unterminated.* at character 2"),
        ("ab", r"\1", "prompt", r"'\\1' cannot be used: invalid group reference 1 at character 2"),
        ("ab", r"\g<x>", "prompt", r"cannot be used: unknown group name 'x'"),
        ("ab", "", "prompts", r"'prompts' is no place in an item"),
    ],
)
def test_a_malformed_pattern_is_refused(pattern: str, replacement: str, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        user_ablation("mine", pattern, replacement, where)
    assert "'mine'" in error.value.what


def test_a_pattern_that_matches_nothing_names_benchmark_and_pattern() -> None:
    with pytest.raises(DataError, match=r"Nothing in 1 items of benchmark 'rm_bench' is changed by 'zz\+'"):
        user_ablation("mine", "zz+", "", "both").variants("rm_bench", [ITEM])
    no_string = Item("1", ITEM.prompt, ("It is A.", "It is B."), (1.0, 0.0))
    with pytest.raises(DataError, match=r"Nothing in 1 items of benchmark 'judgebench' .*\(responses\)"):
        FIVE_LETTER_SENTENCE.variants("judgebench", [no_string])
