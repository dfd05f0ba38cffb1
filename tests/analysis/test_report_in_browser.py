"""The report in headless Chromium: opened from a file, used, and watched for errors, refusals and
requests."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.report import write_report

Add = Callable[..., Path]
ATTACKS = (
    "</script><script>window.owned = 1</script>",
    "<img src=x onerror='window.owned = 1'>",
    "<svg onload=window.owned=1><a href='javascript:window.owned=1'>here</a>",
    "<b>bold</b><a href='http://example.invalid/'>link</a>",
    "$\\frac{1}{2}$ {{7*7}} ${7*7} %{x} &lt;b&gt;",
    "\u202egnp.exe\u202c \u2066x\u2069 \x00 \u2028 end",
)
PLOTS = ("ranking", "correlation", "training", "matrix", "length")


@dataclass
class Visit:
    """A page of the browser and what it complained of or asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, file: Path) -> Any:
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(file.as_uri())
        return self.page

    def require_calm(self, file: Path) -> None:
        """No console message, hence no error and nothing that the policy refused; nothing asked for but the
        file."""
        assert self.complaints == []
        assert {url.split("#")[0] for url in self.requests} == {file.as_uri()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup-dev)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def visit(browser: Any, request: pytest.FixtureRequest) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme=request.param)
    yield Visit(context.new_page())
    context.close()


def written(folder: Path) -> Path:
    runs = load_runs(folder)
    return write_report(runs, rank(runs), folder / "report.html")


def test_every_plot_is_drawn_and_nothing_is_asked_of_anybody(lab: Path, visit: Visit, tmp_path: Path) -> None:
    file = written(lab)
    page = visit.open(file)
    for name in PLOTS:
        assert page.locator(f"#plot-{name} svg.main-svg").first.is_visible()
    assert page.locator("#plot-ranking .points path").count() == 8
    assert page.locator("#plot-matrix .annotation-text").all_text_contents()[1] != ""
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    visit.require_calm(file)

    from matplotlib.image import imread

    pixels = imread(tmp_path / "page.png")[..., :3]
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.4) & (pixels[..., 1] > 0.35)
    assert blue.sum() > 2000, "the figures are painted"


def test_the_axes_are_chosen_without_a_server(lab: Path, visit: Visit) -> None:
    file = written(lab)
    page = visit.open(file)

    def axes() -> list[str]:
        return [page.locator(f"#plot-correlation .{axis}title").text_content() for axis in ("x", "y")]

    assert axes() == ["lab_public (%)", "AlpacaEval win rate (%)"]
    before = page.locator("#correlation-words").text_content()
    page.select_option("#x-axis", label="mean of all benchmarks")
    page.select_option("#y-axis", label="Arena-Hard score")
    assert axes() == ["mean of all benchmarks (%)", "Arena-Hard score (%)"]
    words = page.locator("#correlation-words").text_content()
    assert words != before

    from scipy.stats import spearmanr

    rows = [row for row in rank(load_runs(lab)).rows if not row.control]
    x = [np.mean(list(row.benchmarks.values())) for row in rows]
    found, _ = spearmanr(x, [row.scores["arena_hard.score"] for row in rows])
    assert f"Over 5 candidates: Spearman {found:.2f}" in words
    page.focus("#x-axis")
    page.keyboard.press("Home")
    assert axes()[0] == "lab_public (%)", "by keyboard"
    page.select_option("#length-evaluation", label="Arena-Hard score")
    assert page.locator("#plot-length .ytitle").first.text_content() == "Arena-Hard score (%)"
    visit.require_calm(file)


def test_a_point_says_what_it_is(lab: Path, visit: Visit) -> None:
    file = written(lab)
    page = visit.open(file)
    page.locator("#plot-correlation").scroll_into_view_if_needed()
    box = page.locator("#plot-correlation .points path").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = page.locator("#plot-correlation .hovertext")
    hover.wait_for()
    assert "clean" in hover.text_content()
    assert "lab_public: 82.0 (77.3 to 85.9)" in hover.text_content()
    visit.require_calm(file)


def test_an_example_is_opened(lab: Path, visit: Visit) -> None:
    file = written(lab)
    page = visit.open(file)
    assert page.locator(".example:visible").count() == 1
    first = page.locator(".example:visible .prompt").text_content()
    page.select_option("#example-choice", index=3)
    assert page.locator(".example:visible").count() == 1
    assert page.locator(".example:visible .prompt").text_content() != first
    assert page.locator(".example:visible .answer").count() == 9
    visit.require_calm(file)


def test_on_a_telephone_the_page_does_not_scroll_sideways(lab: Path, visit: Visit) -> None:
    file = written(lab)
    page = visit.open(file)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(600)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#plot-training").bounding_box()["width"] <= 400
    visit.require_calm(file)


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_models_and_names_say_is_shown_and_never_runs(
    experiment: Add, renamed: Callable, browser: Any, attack: str
) -> None:
    rng = np.random.default_rng(0)
    benchmarks = {attack: (300, 60.0), "plain": (300, 55.0)}
    for name in ("one", "two"):
        path = experiment(
            name, values=rng.random(12), answers=lambda i: attack, benchmarks=benchmarks, gold=0.5, failed=1
        )
    experiment("late", finished=False, state={"state": "failed", "stage": "train", "error": attack})
    runs = load_runs(path.parent)
    named = [*renamed(runs[1:2], attack), *renamed(runs[2:], f"2 {attack}"), runs[0]]
    file = write_report(named, rank(named), path.parent / "report.html")
    visit = Visit(browser.new_page())
    page = visit.open(file)
    page.select_option("#x-axis", index=2)
    page.select_option("#y-axis", index=1)
    page.wait_for_timeout(100)
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.querySelectorAll('img, iframe, object, embed, form, base').length") == 0
    plots = page.evaluate("[...document.querySelectorAll('.plot a')].filter(a => a.closest('svg')).length")
    assert plots == 0, "Plotly makes no link of a name"
    shown = page.locator(".example:visible .answer pre").first.text_content()
    visible = attack.replace("\x00", "␀")
    for character in "\u2028\u202e\u202c\u2066\u2069":
        visible = visible.replace(character, f"[U+{ord(character):04X}]")
    assert shown == visible
    if attack.startswith("<b>bold"):
        ticks = page.locator("#plot-ranking .ytick text").all_text_contents()
        assert any(text.startswith("<b>bold</b>") for text in ticks), "markup in a name is text"
    visit.require_calm(file)
    page.close()
