"""Rewrites of benchmark items that keep the meaning, and with it which completion is right.

A reward model that has learnt a task ranks the completions of a rewritten item as before; one that has learnt
the benchmark's texts may not (reWordBench, arXiv:2503.11751). What a rewrite adds is added to all completions
of an item alike, so that it favours none; an item for which that cannot be done takes no part in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from rlhf_eval.audit import rewrite_answers as answers
from rlhf_eval.audit import rewrite_texts as texts
from rlhf_eval.audit.rewrite_names import other_names
from rlhf_eval.audit.rewrite_options import other_letters, other_order
from rlhf_eval.benchmarks.items import Item


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One way of rewriting items.

    Attributes:
        change: from an item and its random numbers to the rewritten item, or itself if it does not apply.
    """

    name: str
    description: str
    change: texts.Change

    def apply(self, items: Sequence[Item], seed: int) -> list[Item]:
        """The rewritten items, only those that it changed, under their old ids and in their old order.

        An item's rewrite depends on the seed, the rewrite and its id, and on no other item. An item of which
        two completions would become the same is left out.
        """
        rewritten = [self.change(item, Random(f"{seed} {self.name} {item.id}")) for item in items]
        return [
            new
            for old, new in zip(items, rewritten, strict=True)
            if new != old and len(set(new.completions)) == len(set(old.completions))
        ]


def rewrites() -> Mapping[str, Rewrite]:
    """Every rewrite by its name."""
    return {rewrite.name: rewrite for rewrite in _REWRITES}


_REWRITES = (
    Rewrite("answer_boxed", "final answers as $\\boxed{X}$", answers.answer_as(answers.boxed)),
    Rewrite("answer_bold", "final answers as **Answer: X**", answers.answer_as(answers.bold)),
    Rewrite("answer_plain", "final answers as Answer: X", answers.answer_as(answers.plain)),
    Rewrite("answer_header", "final answers below a header # Answer", answers.answer_as(answers.header)),
    Rewrite(
        "blank_lines",
        "one more blank line between paragraphs of the completions",
        texts.in_every_completion(texts.blank_lines),
    ),
    Rewrite(
        "trailing_spaces",
        "a space at the end of every line of the completions",
        texts.in_every_completion(texts.trailing_spaces),
    ),
    Rewrite(
        "sentence_spaces",
        "two spaces after every sentence of prompt and completions",
        texts.in_prompt_and_completions(texts.sentence_spaces),
    ),
    Rewrite(
        "punctuation_spaces",
        "a space before every punctuation mark of prompt and completions",
        texts.in_prompt_and_completions(texts.punctuation_spaces),
    ),
    Rewrite(
        "quoted", "prompt and completions in quotation marks", texts.in_prompt_and_completions(texts.quoted)
    ),
    Rewrite(
        "tautology", "prompt with a true and empty sentence at its end", texts.in_instruction(texts.tautology)
    ),
    Rewrite(
        "bold_added",
        "the first sentence of every paragraph of the completions in bold",
        texts.in_every_completion(texts.bold_added),
    ),
    Rewrite("header_added", "a header above the completions", texts.in_every_completion(texts.header_added)),
    Rewrite(
        "bullets_added",
        "a bullet before every paragraph of one line of the completions",
        texts.in_every_completion(texts.bullets_added),
    ),
    Rewrite(
        "markdown_removed",
        "completions without bold, headers and bullets",
        texts.in_some_completions(texts.markdown_removed),
    ),
    Rewrite(
        "list_markers",
        "other markers of lists in the completions: * for -, 1) for 1.",
        texts.in_some_completions(texts.list_markers),
    ),
    Rewrite(
        "typographic_quotes",
        "curly quotation marks and apostrophes in the completions",
        texts.in_some_completions(texts.typographic_quotes),
    ),
    Rewrite(
        "first_letter_case",
        "the first letter of the completions small instead of a capital, or the other way round",
        texts.in_every_completion(texts.first_letter_case),
    ),
    Rewrite("other_names", "other names of persons in prompt and completions", other_names),
    Rewrite("other_letters", "other letters of options in prompt and completions", other_letters),
    Rewrite("other_order", "options in another order, letters in the completions to match", other_order),
)
