"""Answers that a judge's score should not be believed on: told with the score, never left out of it.

A constant answer that speaks to the judge can win AlpacaEval (Zheng et al. 2024, arXiv:2410.07137), so its
share belongs beside every win rate.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping

CONSTANT_LEAST = 3
"""Prompts with one and the same answer from which it counts as constant."""
REPEATED_WORDS, REPEATED_SHARE = 8, 0.5
"""An answer repeats itself if this share of its runs of so many words have stood in it before."""

TO_THE_JUDGE = re.compile(
    r"\[\[[AB<>=]+\]\]"
    r"|<\|(?:im_start|im_end|The (?:Start|End) of Assistant|User Prompt)"
    r"|\bmodel_identifier\b"
    r"|\b(?:output|response|answer|assistant) \(?[abm12]\)? is (?:clearly |much |far )?"
    r"(?:better|superior|the best)"
    r"|\b(?:ignore|disregard) (?:all |any |the )?(?:previous|prior|above|other) "
    r"(?:instructions?|answers?|outputs?)"
    r"|\b(?:dear|attention,?|note to the) (?:judge|evaluator|grader)\b"
    r"|\bas (?:a|the) (?:judge|evaluator|grader),? you (?:must|should|will)\b",
    re.IGNORECASE,
)
"""Verdicts, marks of judges' prompts, and sentences that are meant for whoever compares."""


def suspicious(
    answers: Mapping[str, str], truncated: Collection[str] | None = None
) -> dict[str, float | None]:
    """Shares of a policy's answers, in percent, by what is wrong with them; one answer can be in several.

    Args:
        answers: by prompt id.
        truncated: ids of the answers that were cut at the token limit; None where that is not known.
    """
    times = Counter(answers.values())
    found: dict[str, list[bool]] = {
        "empty": [not text.strip() for text in answers.values()],
        "constant": [times[text] >= CONSTANT_LEAST and bool(text.strip()) for text in answers.values()],
        "repeats itself": [repeats_itself(text) for text in answers.values()],
        "addresses the judge": [bool(TO_THE_JUDGE.search(text)) for text in answers.values()],
    }
    shares: dict[str, float | None] = {name: 100 * sum(flags) / len(flags) for name, flags in found.items()}
    cut = None if truncated is None else 100 * len(answers.keys() & set(truncated)) / len(answers)
    return shares | {"truncated": cut}


def repeats_itself(text: str) -> bool:
    """Whether most runs of eight words stand in the text before; shorter texts do not."""
    words = text.split()
    runs = [tuple(words[i : i + REPEATED_WORDS]) for i in range(len(words) - REPEATED_WORDS + 1)]
    return len(runs) > REPEATED_WORDS and 1 - len(set(runs)) / len(runs) >= REPEATED_SHARE
