"""The style of an answer as Arena-Hard's style control sees it: length, headers, lists, bold text.

Li et al. 2024, arXiv:2406.11939 and arena-hard-auto's `utils/add_markdown_info.py`, whose counts are
reproduced exactly. Two answers are compared by four relative differences, see `difference`.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

FEATURES = ("length", "headers", "lists", "bold")
PUBLISHED_LENGTH = "token_len of the answer files"
"""Tokens of GPT-4o's tokenizer, which arena-hard-auto stores beside every answer."""
OWN_LENGTH = "UTF-8 bytes / 4"
"""What is counted where an answer has no `token_len`. The relative difference of two lengths does not depend
on the unit. On the 750 published answers of o3-mini-2025-01-31 it correlates .956 with `token_len` (words:
.79, words and marks: .90) and their sums differ by 5.5 %."""

_FENCED = re.compile("```([^`]*)```")
_COUNTED = {
    "headers": (re.compile(r"^#{1,6}\s", re.MULTILINE),),
    "lists": (re.compile(r"^\s*\d+\.\s", re.MULTILINE), re.compile(r"^\s*[-*+]\s", re.MULTILINE)),
    "bold": (re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__")),
}
_METADATA = {"headers": "header_count", "lists": "list_count", "bold": "bold_count"}


def style(text: str) -> np.ndarray:
    """Length by `OWN_LENGTH`, headers, list items and bold spans of a text; shape (4,).

    Markdown inside fenced code is not counted.
    """
    prose = text
    # The original takes a block's inside out wherever it stands, not only inside the fence.
    for block in _FENCED.findall(text):
        prose = prose.replace(block, "")
    counts = [sum(len(p.findall(prose)) for p in patterns) for patterns in _COUNTED.values()]
    return np.array([len(text.encode("utf-8", "surrogatepass")) / 4, *counts], dtype=np.float64)


def published_style(metadata: Mapping[str, Any]) -> np.ndarray:
    """The same from the `metadata` of a published answer, with its `token_len` as length; shape (4,).

    Raises:
        KeyError, TypeError: a count is missing or no number.
    """
    counts = [_total(metadata[name]) for name in _METADATA.values()]
    return np.array([_total(metadata["token_len"]), *counts], dtype=np.float64)


def difference(policy: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """How the policy's style differs from the baseline's; zero where both are alike.

    Length: (p − b) / (p + b), in [−1, 1]. Headers, lists and bold, as densities d = count / (length + 1):
    (d_p − d_b) / (d_p + d_b + 1). This is arena-hard-auto's `show_result.py`; two empty answers, on which
    it stops, are alike.

    Args:
        policy, baseline: shape (…, 4), see `style`; one counter of length for both.

    Returns:
        Shape (…, 4).
    """
    length = policy[..., :1] + baseline[..., :1]
    relative = (policy[..., :1] - baseline[..., :1]) / np.where(length == 0, 1, length)
    p, b = (counts[..., 1:] / (counts[..., :1] + 1) for counts in (policy, baseline))
    return np.concatenate([relative, (p - b) / (p + b + 1)], axis=-1)


def _total(count: Any) -> float:
    return float(sum(count.values()) if isinstance(count, dict) else count)
