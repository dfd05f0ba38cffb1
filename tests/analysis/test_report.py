import html
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.report import write_report
from rlhf_eval.analysis.wording import headline, not_separable
from rlhf_eval.files import read_json, write_json

Add = Callable[..., Path]
HOSTILE = (
    "</td></pre><script>document.title='owned'</script>"
    "<img src=x onerror=alert(1)> 𝔘 \u202e ｆｕｌｌ &amp; 日本語"
)


def reported(folder: Path) -> str:
    runs = load_runs(folder)
    return write_report(runs, rank(runs), folder / "report.html").read_text("utf-8")


class Page(HTMLParser):
    """Tags, attributes that act, addresses, and whether the tags nest."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.actions: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.actions += [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_says_who_won_and_what_the_benchmark_told(lab: Path) -> None:
    text = reported(lab)
    assert "clean gives the best policy" in text
    assert "The benchmark lab_public would have chosen contaminated (95.0 %), number 4 of the 5" in text
    assert "Only 5 reward models" in text
    for section in ("ranking", "benchmark", "curves", "evaluations", "failures", "examples", "provenance"):
        assert f'id="{section}"' in text
    assert "clean--lab_policy--grpo--s0--0a1b2c3d" in text
    assert "trl 1.16.0" in text
    assert "abc123" in text
    assert text.count("<svg") == 3
    assert len(text) < 1_000_000


def test_the_page_needs_nothing_from_anywhere(lab: Path) -> None:
    text = reported(lab)
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html.unescape(text)


def test_hostile_text_is_shown_and_never_runs(experiment: Add, renamed: Callable) -> None:
    benchmarks = {HOSTILE: (300, 60.0)}
    folder = experiment("clean", answers=lambda i: HOSTILE, benchmarks=benchmarks, failed=1).parent
    state = {"state": "failed", "stage": "train", "error": HOSTILE}
    experiment("other", finished=False, state=state)
    runs = renamed(load_runs(folder), HOSTILE)
    text = write_report(runs, rank(runs), folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert page.actions == []
    assert html.escape("<script>document.title") in text
    assert "日本語" in text


def test_failures_and_skipped_runs_are_on_the_page(experiment: Add) -> None:
    folder = experiment("clean", values=[0.4, 0.6], failed=1).parent
    experiment("noisy", finished=False, state={"state": "running", "stage": "judge"})
    text = reported(folder)
    assert "time-out after 5 retries" in text
    assert "running in judge" in text


def test_suspicious_answers_and_further_judges_are_on_the_page(experiment: Add) -> None:
    path = experiment("clean", values=[0.4, 0.6])
    file = path / "stages/score/scores.json"
    scores = read_json(file)
    shares = {"empty": 0.0, "constant": 37.5, "addresses the judge": 0.0, "truncated": None}
    scores["suspicious_answers"] = {"alpaca_eval": shares, "arena_hard": dict.fromkeys(shares, 0.0)}
    agreement = {"n": 2, "same": 91.25, "kappa": None, "favour": 7.75, "baseline_of_its_family": True}
    scores["second_judges"] = {
        "other": {
            "alpaca_eval": {"win_rate": 61.5},
            "arena_hard": {"score": 44.5},
            "agreement": {"alpaca_eval": agreement, "arena_hard": agreement},
        }
    }
    write_json(file, scores)
    text = reported(path.parent)
    assert "<th>addresses the judge</th>" in text
    assert "<td>37.5</td>" in text
    assert text.count("<td>0.0</td><td>37.5</td>") == 1  # Arena-Hard, without any, has no line
    for number in ("61.5", "44.5", "91.2", "7.8", "–"):
        assert f"<td>{number}</td>" in text
    write_json(file, {name: scores[name] for name in ("judge", "alpaca_eval", "arena_hard")})
    assert "Further judges" not in reported(path.parent)


def test_one_run_without_benchmark_curves_or_stored_answers(experiment: Add) -> None:
    path = experiment("clean", kl=None)
    shutil.rmtree(path / "stages/generate")
    (path / "manifest.json").unlink()
    text = reported(path.parent)
    for sentence in ("measured a benchmark", "recorded checkpoints", "not stored", "not recorded"):
        assert sentence in text


def test_controls_alone_recommend_nothing(experiment: Add) -> None:
    folder = experiment("random", control=True).parent
    assert headline(rank(load_runs(folder)))[0].startswith("Only controls are finished")


def test_a_tie_is_called_a_tie(experiment: Add) -> None:
    rng = np.random.default_rng(0)
    base = rng.random(300) * 0.8
    for name, values in {"a": base + 0.1, "b": rng.random(300) * 0.8 + 0.09, "c": base + 0.02}.items():
        folder = experiment(name, values=values).parent
    ranking = rank(load_runs(folder))
    assert not_separable(ranking) == ["b"], "c is surely behind a: the same prompts, paired"
    assert any("cannot be told apart from b" in sentence for sentence in headline(ranking))


def test_a_browser_opens_it_offline_without_complaint(lab: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    reported(lab)
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --v=0"
    log = subprocess.run(
        [
            chromium,
            *flags.split(),
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1200,6000",
            f"--screenshot={tmp_path / 'page.png'}",
            (lab / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stderr
    assert not re.findall(r".*CONSOLE.*", log), "errors, or what the content security policy refused"

    from matplotlib.image import imread

    pixels = imread(tmp_path / "page.png")[..., :3]
    assert pixels.shape[:2] == (6000, 1200)
    blue = (pixels[..., 2] > 0.6) & (pixels[..., 0] < 0.2)
    assert blue.sum() > 2000, "the figures are painted"
