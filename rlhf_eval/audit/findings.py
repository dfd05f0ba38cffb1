"""What an audit found, in words: evidence against the numbers, what came out clear, what cannot be told.

Each method has one question fixed beforehand: the gap beyond the panel's, items found in the training data,
the first arm of an ablation, and the rewrites together (Holm's correction, Holm 1979). Other arms explain.
"""

from collections.abc import Iterator, Sequence
from typing import Any

ALPHA = 0.05
EVIDENCE, CLEAR, OPEN, UNKNOWN = "evidence", "clear", "inconclusive", "not testable"
TOLERANCE = 10.0
"""Points beyond the panel: "clear" is said where the interval excludes more, else "inconclusive"."""
SHARE = 0.02
"""Above this share of a benchmark's items an overlap is evidence; a few are in any large corpus."""


def findings(audit: dict[str, Any]) -> list[dict[str, str]]:
    """Sentences with their kind: evidence first, then what is inconclusive."""
    found = [*_gaps(audit), *_overlap(audit), *_ablation(audit), *_perturbation(audit)]
    order = (EVIDENCE, OPEN, CLEAR, UNKNOWN)
    return sorted(found, key=lambda finding: order.index(finding["kind"]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Holm 1979), in the order given."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _finding(kind: str, text: str) -> dict[str, str]:
    return {"kind": kind, "text": text}


def _beyond(difference: float, low: float, high: float, p: float) -> tuple[str, str]:
    """The kind of a difference from the panel, and the difference in words."""
    words = f"{difference:+.1f} points (95 %: {low:+.1f} to {high:+.1f})".replace("-", "−")
    if p < ALPHA and difference > 0:
        return EVIDENCE, words
    return CLEAR if high < TOLERANCE else OPEN, words


def _gaps(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    rows = [row for row in audit["gaps"] if row["difference"] is not None]
    adjusted = holm([row["p"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        sets = f"{row['public']} (public) and {row['private']} (private)"
        kind, words = _beyond(row["difference"], row["difference_low"], row["difference_high"], p)
        shown = (
            "is wider than the panel's" if kind == EVIDENCE else "is not shown to be wider than the panel's"
        )
        yield _finding(kind, f"Its gap between {sets} {shown}: {words}.")
    for row in audit["gaps"]:
        if row["difference"] is None:
            sets = f"{row['public']} (public) and {row['private']} (private)"
            yield _finding(UNKNOWN, f"The gap between {sets} is {row['gap']:.1f} points; there is no panel.")


def _overlap(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    if not audit["overlap"]:
        yield _finding(UNKNOWN, f"Overlap: {audit['overlap_note']}.")
    for entry in audit["overlap"]:
        found = max(entry["methods"], key=lambda row: row["flagged"], default=None)
        if entry["canaries"]:
            yield _finding(
                EVIDENCE, f"The canary of {entry['benchmark']} stands in the training data searched."
            )
        if found and found["share"] > 100 * SHARE:
            where = f"stand in the training data searched ({found['method']})"
            without = found["accuracy_without"]
            change = "nothing is left without them" if without is None else f"{without:.1f} % without them"
            yield _finding(
                EVIDENCE,
                f"{found['flagged']} items of {entry['benchmark']} ({found['share']:.0f} %) {where}; "
                f"its accuracy is {found['accuracy']:.1f} %, and {change}.",
            )
        else:
            flagged = found["flagged"] if found else 0
            yield _finding(
                CLEAR, f"{flagged} items of {entry['benchmark']} were found in the training data searched."
            )


def _ablation(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    for entry in audit["ablation"]:
        row = entry["arms"][0]
        fall = f"{row['drop']:.1f} points less on {row['n']} items"
        what = f"{entry['benchmark']}, {row['description']}: {fall}"
        if row["difference"] is None:
            kind = EVIDENCE if row["p"] < ALPHA and row["drop"] > 0 else UNKNOWN
            yield _finding(kind, f"{what} (McNemar p = {row['p']:.3g}); there is no panel to compare with.")
        else:
            kind, words = _beyond(
                row["difference"], row["difference_low"], row["difference_high"], row["difference_p"]
            )
            yield _finding(kind, f"{what}; beyond the panel {words}.")


def _perturbation(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    for entry in audit["perturbation"]:
        rows = entry["rewrites"]
        if rows[0]["difference"] is None:
            yield _finding(UNKNOWN, f"Rewrites of {entry['benchmark']} have no panel to compare with.")
            continue
        adjusted = holm([row["difference_p"] for row in rows])
        worse = [row for row, p in zip(rows, adjusted, strict=True) if p < ALPHA and row["difference"] > 0]
        if worse:
            names = ", ".join(f"{row['name']} ({row['difference']:.1f} points)" for row in worse)
            yield _finding(
                EVIDENCE, f"On {entry['benchmark']} it falls further than the panel under {names}."
            )
        else:
            most = max(rows, key=lambda row: row["difference"])
            yield _finding(
                CLEAR,
                f"None of {len(rows)} rewrites of {entry['benchmark']} is shown to hurt it more than the "
                f"panel; the largest difference is {most['difference']:.1f} points ({most['name']}, "
                f"p = {most['difference_p']:.2g} by itself).",
            )
