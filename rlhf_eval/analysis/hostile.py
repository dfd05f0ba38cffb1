"""Text that somebody else wrote, made harmless for a page: names, errors, answers of models.

Three places take such text, and each has one guard: HTML (`visible`, then Jinja's escaping), a script's data
(`script_json`), and the labels of Plotly, which reads `<b>`, `<a href>` and entities in any text
(`plot_label`).
"""

import base64
import hashlib
import json
import unicodedata
from typing import Any

from rlhf_eval.analysis.style import shortened

LABEL_CHARACTERS = 34
_UNSEEN = frozenset("\u2028\u2029\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """The text with characters that nobody sees made visible: control characters as their pictures (NUL as
    ␀), marks that end a line or turn the direction of writing as `[U+202E]`, halves of surrogate pairs as �.
    Tab and newline stay."""
    if text.isprintable():
        return text
    return "".join(map(_visible_character, text.replace("\r\n", "\n")))


def _visible_character(character: str) -> str:
    code = ord(character)
    if character in "\t\n" or character.isprintable():
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    if character in _UNSEEN or 0x7F <= code < 0xA0:
        return f"[U+{code:04X}]"
    return "\ufffd" if unicodedata.category(character) == "Cs" else character


def script_json(value: Any) -> str:
    """JSON that can stand in a `<script type="application/json">`: no character of it can end the element or
    begin a comment in it, and none is a line end to JavaScript (U+2028, U+2029). ASCII only.

    Raises:
        ValueError: a number is not finite; JSON has no NaN.
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def plot_label(name: str, characters: int = LABEL_CHARACTERS) -> str:
    """A name as a label in a Plotly figure: one line, shortened in the middle, and markup shown as it is."""
    line = shortened(visible(name), characters)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def script_hash(script: str) -> str:
    """The source expression of a content security policy that allows exactly this inline script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def security_policy(*scripts: str) -> str:
    """The content security policy of a page that runs these inline scripts and nothing else, and reaches
    nothing."""
    return (
        f"default-src 'none'; script-src {' '.join(map(script_hash, scripts))}; style-src 'unsafe-inline'; "
        "img-src data:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
