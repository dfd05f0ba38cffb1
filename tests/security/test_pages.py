"""An audit's page shows whatever its JSON holds, and runs none of it (the report's: `tests/analysis`)."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.analysis.audit_page import write_audit_page
from rlhf_eval.files import write_json
from tests.analysis.test_audit_page import audit

FORBIDDEN = {"script", "iframe", "object", "embed", "img", "link", "base", "form"}


class Elements(HTMLParser):
    """What a browser would make of a page.

    Attributes:
        tags: names of elements.
        attributes: (name, value) pairs.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def with_text(value: Any, text: str) -> Any:
    """The same values with a text added to every text that is shown and names no file."""
    if isinstance(value, dict):
        return {key: child if key == "figure" else with_text(child, text) for key, child in value.items()}
    if isinstance(value, list):
        return [with_text(child, text) for child in value]
    return value + text if isinstance(value, str) else value


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "\"'><svg onload=alert(1)>",
        "</title></style></td></svg><iframe src=javascript:alert(1)>",
        "javascript:alert(1)",
        "{{ 913 * 7919 }}{% raw %}",
        "\u2028\u202e\x00\x1b[31m",
    ],
)
def test_no_text_of_an_audit_becomes_markup(text: str, tmp_path: Path) -> None:
    whole = audit()
    kinds = {"findings": whole["findings"], "openness": whole["openness"]}  # some words of these are keys
    hostile = with_text({key: child for key, child in whole.items() if key not in kinds}, text)
    hostile["findings"] = [one | {"text": one["text"] + text} for one in whole["findings"]]
    hostile["openness"] = [one | {"consequence": one["consequence"] + text} for one in whole["openness"]]
    hostile["panel"] = whole["panel"]
    for row in hostile["benchmarks"]:
        row["panel"] = dict.fromkeys(whole["panel"], 65.0)
    write_json(tmp_path / "audit.json", hostile | {"written_at": whole["written_at"]})
    page = write_audit_page(tmp_path).read_text()
    found = Elements(page)
    assert not found.tags & FORBIDDEN
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not [value for name, value in found.attributes if "javascript:" in value and name == "href"]
    assert "7230047" not in page
    assert not {"\u2028", "\u202e", "\x00", "\x1b"} & set(page), "what nobody sees is made visible"
