"""Rewrites: what they do to a text, and that they do nothing else."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.audit import rewrite_texts as texts
from rlhf_eval.audit.perturbation import rewrites
from rlhf_eval.audit.rewrite_answers import final_answer
from rlhf_eval.audit.rewrite_names import FEMALE, MALE, rename
from rlhf_eval.audit.rewrite_options import relabelled
from rlhf_eval.benchmarks.items import Item
from rlhf_eval.benchmarks.judgebench import load
from rlhf_eval.records import user_prompt

FENCED = "```python\n# a header?\n- x = 'it'  # **no**, \"no\". The end.\n\n\n1. line\n```"
ITEM = Item(
    "1",
    user_prompt("1", "Emily has three apples. Tom eats one. How many has Emily?\n(A) 1\n(B) 2\n(C) 3"),
    (
        "Let's see. **Emily** isn't hungry:\n\n# Thoughts\n\n- She had 3.\n1. Tom ate one.\n\n"
        f'{FENCED}\n\nSo "two" remain, which is option B.\n\nThe answer is (B).\n\nBBBBB',
        f"It's easy. Emily keeps **all**:\n\n# Ideas\n\n- Nobody eats.\n\n{FENCED}\n\nOption A is wrong, so"
        ' "three". Tom lied.\n\nThe answer is (C).\n\nCCCCC',
    ),
    (1.0, 0.0),
)
BY_NAME = rewrites()
ALL = sorted(BY_NAME)
OF_COMPLETIONS = [
    name for name in ALL if not name.startswith(("other_", "sentence", "punct", "quoted", "taut"))
]


def with_completions(*completions: str, question: str = "What?") -> Item:
    labels = (1.0, *[0.0] * (len(completions) - 1))
    return Item("1", user_prompt("1", question), completions, labels)


def rewritten(name: str, item: Item, seed: int = 0) -> Item | None:
    """The item rewritten, or None if the rewrite does not apply to it."""
    return next(iter(BY_NAME[name].apply([item], seed)), None)


@pytest.mark.parametrize("name", ALL)
def test_every_rewrite_keeps_what_must_stay(name: str) -> None:
    new = rewritten(name, ITEM)
    assert new is not None
    assert new != ITEM
    assert (new.id, new.labels, new.subset) == (ITEM.id, ITEM.labels, ITEM.subset)
    assert len(new.completions) == 2
    assert all(FENCED in text for text in new.completions)
    if name in OF_COMPLETIONS:
        assert new.prompt == ITEM.prompt
    assert BY_NAME[name].description


@pytest.mark.parametrize("name", ALL)
def test_an_items_rewrite_depends_on_seed_and_id_only(name: str) -> None:
    others = [Item(n, user_prompt(n, f"Question {n}?"), ("Yes.", "No."), (1.0, 0.0)) for n in ("2", "3")]
    alone = BY_NAME[name].apply([ITEM], 7)
    among = [item for item in BY_NAME[name].apply([others[0], ITEM, others[1]], 7) if item.id == "1"]
    assert among == alone == BY_NAME[name].apply([ITEM], 7)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("blank_lines", "One.\n\nTwo.\n \nThree.\nFour.", "One.\n\n\nTwo.\n \n\nThree.\nFour."),
        ("trailing_spaces", "One.\n\nTwo", "One. \n\nTwo "),
        ("sentence_spaces", "It is 3.5. (So.) Yes? e.g. this", "It is 3.5. (So.)  Yes? e.g. this"),
        ("punctuation_spaces", "Well, 3.5: e.g. this!\nYes.", "Well , 3.5: e.g. this !\nYes ."),
        ("quoted", "Yes.", '"Yes."'),
        ("bold_added", "It is so. I see.\n\n- no\n\nNow:\nx", "**It is so.** I see.\n\n- no\n\n**Now:**\nx"),
        ("bullets_added", "It is.\n\n1. no\n\nNow:\n\nTwo\nlines", "- It is.\n\n1. no\n\nNow:\n\nTwo\nlines"),
        ("header_added", "Yes.", "# Response\n\nYes."),
        (
            "markdown_removed",
            "## A b\n- **c d** e\n  * ff\n- 3\n5 ** x ** 2",
            "A b\nc d e\n  ff\n- 3\n5 ** x ** 2",
        ),
        ("list_markers", "- ab\n  * cd\n1. x\n2) y\n- 3\n3.5", "* ab\n  - cd\n1) x\n2. y\n- 3\n3.5"),
        ("first_letter_case", "It is.", "it is."),
        ("typographic_quotes", '"It\'s 3", she said.', "“It’s 3”, she said."),
        ("typographic_quotes", "'the dogs' bone' (\"no\")", "‘the dogs’ bone’ (“no”)"),
        ("typographic_quotes", "5'10\" and f' y'' isn't", "5'10\" and f' y'' isn’t"),
    ],
)
def test_styles_by_hand(name: str, before: str, after: str) -> None:
    other = 'It\'s "so". Well.\n\n# Why\n\n- **because** of it\n\n1. yes'
    new = rewritten(name, with_completions(before, other))
    assert new is not None
    assert new.completions[0] == after
    assert new.completions[1] != other


@pytest.mark.parametrize(
    "name", ["blank_lines", "bold_added", "bullets_added", "header_added", "trailing_spaces"]
)
def test_what_is_added_is_added_to_all_completions_or_none(name: str) -> None:
    code = "def f(x):\n    return x\n\nprint(f(1))"
    assert rewritten(name, with_completions("It is so.\n\nReally.", code)) is None
    assert rewritten(name, with_completions("It is so.\n\nReally.", "It is not.\n\nNever.")) is not None


def test_completions_that_would_become_the_same_keep_their_item_out() -> None:
    assert rewritten("markdown_removed", with_completions("**Two** it is.", "Two it is.")) is None
    assert rewritten("markdown_removed", with_completions("**Two** it is.", "Three it is.")) is not None


PROSE = st.text(alphabet=st.sampled_from("ab Z.,'\"*-#1)\n`$IA(:"), max_size=60)


@given(PROSE)
def test_styles_undone_give_the_text_again(text: str) -> None:
    plain = text.replace("*", "")
    assert texts.outside_code(texts.list_markers)(texts.outside_code(texts.list_markers)(text)) == text
    assert texts.first_letter_case(texts.first_letter_case(text)) == text
    assert texts.outside_code(texts.bold_added)(plain).replace("**", "") == plain
    straight = texts.outside_code(texts.typographic_quotes)(text).translate(str.maketrans("“”‘’", "\"\"''"))
    assert straight == text
    stripped = texts.outside_code(texts.markdown_removed)(text)
    assert re.findall(r"[a-zA-Z1]", stripped) == re.findall(r"[a-zA-Z1]", text)


@given(PROSE, st.sampled_from(["blank_lines", "trailing_spaces", "sentence_spaces", "punctuation_spaces"]))
def test_whitespace_changes_nothing_else(text: str, name: str) -> None:
    change = texts.outside_code(getattr(texts, name))
    assert "".join(change(text).split()) == "".join(text.split())


@given(PROSE, PROSE)
def test_code_is_kept_by_every_style(before: str, after: str) -> None:
    text = f"{before.replace('`', '').replace('$', '')}\n\n{FENCED}\n\nsee `x  = 'y'`, {after}"
    for name in ("blank_lines", "trailing_spaces", "typographic_quotes", "list_markers", "markdown_removed"):
        changed = texts.outside_code(getattr(texts, name))(text)
        assert FENCED in changed
        assert "`x  = 'y'`" in changed


@pytest.mark.parametrize(
    ("ending", "answer"),
    [
        ("so it is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("so\n\\[\n\\boxed{\\text{AAAAA}}\n\\]", "AAAAA"),
        ("so \\(\\boxed{6}\\).", "6"),
        ("so: **yes, no, yes**", "yes, no, yes"),
        ("so\n**Answer: 7**", "7"),
        ("so\n**Final Answer:** 7", None),
        ("so\n# Answer\n\n7", "7"),
        ("so\nThe answer is 7.", "7"),
        ("so\nAnswer: $x^2$", "x^2"),
        ("therefore: CCCCC.", "CCCCC"),
        ("it is 7", None),
        ("the answer is 7, I think.", None),
        ("**7** it is", None),
    ],
)
def test_final_answers_are_found_at_the_end(ending: str, answer: str | None) -> None:
    found = final_answer(f"First **3**, {ending}")
    assert (found and found[1]) == answer


@pytest.mark.parametrize("name", ["answer_boxed", "answer_bold", "answer_plain", "answer_header"])
def test_every_form_of_answer_holds_the_same_answer(name: str) -> None:
    endings = ["$\\boxed{\\frac{1}{2}}$", "**yes, no**", "BBBBB", "\nAnswer: 12", "\\(\\boxed{x^2}\\)."]
    item = with_completions(*(f"It comes to {ending}" for ending in endings))
    new = rewritten(name, item)
    assert new is not None
    old_answers = [final_answer(text) for text in item.completions]
    assert [final_answer(text) for text in new.completions] == old_answers
    assert rewritten(name, new) is None  # all have that form already
    assert rewritten(name, with_completions("It is **7**", "I do not know")) is None


def test_names_are_exchanged_everywhere_and_back() -> None:
    new = rewritten("other_names", ITEM, seed=3)
    assert new is not None
    [(emily, tom)] = re.findall(r"^(\w+) has three apples\. (\w+) eats one", new.prompt.instruction)
    assert emily in FEMALE
    assert tom in MALE
    back = rename(new, {emily: "Emily", tom: "Tom"})
    assert back == ITEM
    assert rename(ITEM, {"Emily": "Tom", "Tom": "Emily"}).prompt.instruction.startswith("Tom has three")
    assert new != rewritten("other_names", ITEM, seed=4)


@pytest.mark.parametrize(
    "question",
    [
        "How many apples has he?",  # nobody
        "What did Tim Cook found?",  # somebody who exists
        "We saw Uncle Bob. Who?",
        "Sort Emily and Tom by the alphabet.",
        "Emily runs `greet(Emily)`. What is shown?",
    ],
)
def test_names_that_matter_are_kept(question: str) -> None:
    assert rewritten("other_names", with_completions("Yes.", "No.", question=question)) is None


def test_all_names_of_the_lists_are_distinct() -> None:
    assert len({*FEMALE, *MALE}) == len(FEMALE) + len(MALE)


OPTIONS = "\n".join(f"({letter}) text {letter.lower()}{letter.lower()}" for letter in "ABCDEFGHIJ")
MULTIPLE = with_completions(
    "A good one. I think options I, B, and A fail. Between D and (E), I choose D.\n\n**D**\n\nDDDDD",
    "- **A**: no\n- B) no\nI cannot choose F or G. C is wrong. The answer is I.\n\nIIIII",
    question=f"Which?\n{OPTIONS}\nIf the answer is K, then write KKKKK.",
)


def test_letters_are_exchanged_where_they_are_options() -> None:
    letters = dict(zip("ABCDEFGHIJ", "MNOPQRSTUV", strict=True))
    new = relabelled(MULTIPLE, letters)
    assert new.completions == (
        "A good one. I think options U, N, and M fail. Between P and (Q), I choose P.\n\n**P**\n\nPPPPP",
        "- **M**: no\n- N) no\nI cannot choose R or S. O is wrong. The answer is U.\n\nUUUUU",
    )
    assert "\n(M) text aa\n(N) text bb\n" in new.prompt.instruction
    assert new.prompt.instruction.endswith("If the answer is K, then write KKKKK.")


@given(st.permutations("ABCDEFGHIJ"))
def test_a_permutation_and_its_inverse_give_the_item_again(order: list[str]) -> None:
    there = dict(zip("ABCDEFGHIJ", order, strict=True))
    item = with_completions(
        "Options B, C, and D are wrong: it is (E).\n\nEEEEE", "**A**\n\nAAAAA", question=OPTIONS
    )
    moved = relabelled(item, there)
    assert relabelled(moved, {new: old for old, new in there.items()}) == item
    assert moved.completions[0].endswith(there["E"] * 5)


def test_other_letters_are_in_order_and_unused() -> None:
    for seed in range(20):
        new = rewritten("other_letters", MULTIPLE, seed)
        assert new is not None
        letters = "".join(re.findall(r"^\(([A-Z])\)", new.prompt.instruction, re.MULTILINE))
        assert letters in "LMNOPQRSTUVWXYZ"  # K is in the item
        assert len(letters) == 10
        assert new.completions[0].endswith(letters[3] * 5)
        assert new.completions[1].endswith(letters[8] * 5)


def test_in_another_order_letters_keep_their_texts() -> None:
    right = {letter: f"text {letter.lower() * 2}" for letter in "ABCDEFGHIJ"}
    for seed in range(20):
        new = rewritten("other_order", MULTIPLE, seed)
        assert new is not None
        shown = re.findall(r"^\(([A-Z])\) (.*)$", new.prompt.instruction, re.MULTILINE)
        assert [letter for letter, _ in shown] == list("ABCDEFGHIJ")
        assert sorted(text for _, text in shown) == sorted(right.values())
        assert dict(shown) != right
        # The letter that each completion chose stands before the text that it chose.
        assert dict(shown)[new.completions[0][-1]] == right["D"]
        assert dict(shown)[new.completions[1][-1]] == right["I"]


@pytest.mark.parametrize(
    "completion",
    [
        "Let E = mc^2. The answer is A.",
        "Vitamin C helps. The answer is A.",
        "The probability P(B) is 1/2. The answer is A.",
        "$B$ is a set. The answer is A.",
        "The answer is AAAAAnd so on.",
        "C C C C C",
        "Options B, C, and I don't fit.",
        "Options B and C pass, but A is the smallest.",
        "Answer A talks about it. The answer is B.",
        "Option b is it.",
        "DNA is ACGDB.",
        'The letter "C" is a consonant. The answer is A.',
        "(B) **A decrease** is C or so. J.",
    ],
)
def test_an_item_with_a_letter_that_may_be_something_else_is_left_alone(completion: str) -> None:
    item = with_completions(completion, "The answer is B.", question=f"Which?\n{OPTIONS}")
    assert rewritten("other_letters", item) is None
    assert rewritten("other_order", item) is None


def test_letters_that_are_no_row_from_a_are_no_options() -> None:
    item = with_completions("The answer is A.", "No.", question="Which? (B) or (C)")
    assert rewritten("other_letters", item) is None


def test_options_that_speak_of_their_order_keep_it() -> None:
    question = "Which?\n(A) one\n(B) two\n(C) none of the above"
    item = with_completions("The answer is A.", "The answer is C.", question=question)
    assert rewritten("other_order", item) is None
    assert rewritten("other_letters", item) is not None


@pytest.mark.golden
def test_on_the_published_pairs_of_judgebench(golden: Path) -> None:
    items = load({"data": str(golden / "judgebench" / "gpt-4o-2024-05-13.jsonl.gz")})
    originals = {item.id: item for item in items}
    string = re.compile(r"(?<![A-Za-z])([A-Z])\1{3,}(?![A-Za-z])")
    for name, rewrite in BY_NAME.items():
        found = rewrite.apply(items, seed=1)
        subsets = Counter(item.subset for item in found)
        # Bare code is left alone; every rewrite finds items enough to measure a drop.
        assert len(found) >= 40, name
        assert subsets["coding"] == (42 if name == "tautology" else 0), name
        for new in found:
            old = originals[new.id]
            assert (new.labels, new.subset, new.prompt.id) == (old.labels, old.subset, old.prompt.id)
            if name.startswith(("other_letters", "other_order")):
                chosen = [set(string.findall(text)) for text in (*old.completions, *new.completions)]
                # Completions that chose different letters still do.
                assert (chosen[0] == chosen[1]) == (chosen[2] == chosen[3])
                assert list(map(len, old.completions)) == list(map(len, new.completions))
    assert len(BY_NAME["other_letters"].apply(items, 1)) > 80
