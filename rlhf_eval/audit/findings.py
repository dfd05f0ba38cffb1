"""What an audit found, in words: evidence against the numbers, what came out clear, what cannot be told.

Each method has one question fixed beforehand: the gap beyond the panel's, items found in the training data,
the first arm of an ablation, and the rewrites together (Holm's correction, Holm 1979). Other arms explain.
"""

from collections.abc import Iterator, Sequence
from typing import Any

ALPHA = 0.05
EVIDENCE, CLEAR, UNKNOWN = "evidence", "clear", "not testable"
SHARE = 0.02
"""Above this share of a benchmark's items an overlap is evidence; a few are in any large corpus."""


def findings(audit: dict[str, Any]) -> list[dict[str, str]]:
    """Sentences with their kind, evidence first."""
    found = [*_gaps(audit), *_overlap(audit), *_ablation(audit), *_perturbation(audit)]
    order = (EVIDENCE, CLEAR, UNKNOWN)
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


def _gaps(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    for row in audit["gaps"]:
        sets = f"{row['public']} (public) and {row['private']} (private)"
        if row["difference"] is None:
            yield _finding(UNKNOWN, f"The gap between {sets} is {row['gap']:.1f} points; there is no panel.")
        elif row["difference_low"] > 0:
            yield _finding(
                EVIDENCE,
                f"Its gap between {sets} is {row['difference']:.1f} points wider than the panel's "
                f"(95 %: {row['difference_low']:.1f} to {row['difference_high']:.1f}).",
            )
        else:
            yield _finding(CLEAR, f"Its gap between {sets} is no wider than the panel's.")


def _overlap(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    if not audit["overlap"]:
        yield _finding(UNKNOWN, f"Overlap: {audit['overlap_note']}.")
    for entry in audit["overlap"]:
        found = max(entry["methods"], key=lambda row: row["flagged"], default=None)
        if entry["canaries"]:
            yield _finding(EVIDENCE, f"The canary of {entry['benchmark']} stands in its training data.")
        if found and found["share"] > 100 * SHARE:
            where = f"stand in its training data ({found['method']})"
            without = found["accuracy_without"]
            change = "nothing is left without them" if without is None else f"{without:.1f} % without them"
            yield _finding(
                EVIDENCE,
                f"{found['flagged']} items of {entry['benchmark']} ({found['share']:.0f} %) {where}; "
                f"its accuracy is {found['accuracy']:.1f} %, and {change}.",
            )
        else:
            flagged = found["flagged"] if found else 0
            yield _finding(CLEAR, f"{flagged} items of {entry['benchmark']} were found in its training data.")


def _ablation(audit: dict[str, Any]) -> Iterator[dict[str, str]]:
    for entry in audit["ablation"]:
        row = entry["arms"][0]
        fall = f"{row['drop']:.1f} points less on {row['n']} items"
        what = f"{entry['benchmark']}, {row['description']}: {fall}"
        if row["difference"] is None:
            kind = EVIDENCE if row["p"] < ALPHA and row["drop"] > 0 else UNKNOWN
            yield _finding(kind, f"{what} (McNemar p = {row['p']:.3g}); there is no panel to compare with.")
        else:
            kind = EVIDENCE if row["difference_low"] > 0 else CLEAR
            yield _finding(
                kind,
                f"{what}, {row['difference']:.1f} beyond the panel "
                f"(95 %: {row['difference_low']:.1f} to {row['difference_high']:.1f}).",
            )


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
            yield _finding(
                CLEAR, f"None of {len(rows)} rewrites of {entry['benchmark']} hurts it more than the panel."
            )
