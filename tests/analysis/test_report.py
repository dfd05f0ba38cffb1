import csv
import hashlib
import html
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.overall import load_settings, overall
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.report import write_report
from rlhf_eval.analysis.wording import headline, not_separable
from rlhf_eval.files import read_json, write_json

Add = Callable[..., Path]
HOSTILE = (
    "</td></pre></script><script>document.title='owned'</script>{{7*7}} $\\frac{1}{0}$ "
    "[x](javascript:alert(1))"
    "<img src=x onerror=alert(1)> <a href='javascript:alert(1)'>x</a> "
    "𝔘 \u202e ｆｕｌｌ \x00\u2028 &amp; 日本語"
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


def without_plotly(text: str) -> str:
    """The page but for Plotly's source, which holds every word there is."""
    return re.sub(r"<script>\n?/\*\*\n\* plotly.js.*?</script>", "<script></script>", text, flags=re.DOTALL)


def test_the_page_says_who_won_and_what_the_benchmark_told(lab: Path) -> None:
    text = without_plotly(reported(lab))
    assert "clean gives the best policy" in text
    assert "The benchmark lab_public would have chosen contaminated (95.0 %), number 4 of the 5" in text
    assert "Only 5 reward models" in text
    sections = (
        "ranking benchmark curves matrix length evaluations judges failures cost audit examples provenance"
    )
    for section in sections.split():
        assert f'id="{section}"' in text
        assert f'href="#{section}"' in text
    assert text.index("gives the best policy") < text.index('id="ranking"')
    assert "clean--lab_policy--grpo--s0--0a1b2c3d" in text
    assert "trl 1.16.0" in text
    assert "abc123" in text
    assert len(text) < 1_000_000


def test_the_page_runs_its_own_two_scripts_and_needs_nothing_from_anywhere(lab: Path) -> None:
    text = reported(lab)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 3  # the data, Plotly, and the page's own
    assert not {"link", "iframe", "object", "img", "form", "base"} & set(page.tags)
    assert not any(":" in address or address.startswith("/") for address in page.addresses)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1].replace("style-src 'unsafe-inline'", "")
    for part in ("connect-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:"):
        assert part in policy[1]


def test_hostile_text_is_shown_and_never_runs(experiment: Add, renamed: Callable) -> None:
    benchmarks = {HOSTILE: (300, 60.0)}
    folder = experiment("clean", answers=lambda i: HOSTILE, benchmarks=benchmarks, failed=1).parent
    state = {"state": "failed", "stage": "train", "error": HOSTILE}
    experiment("other", finished=False, state=state)
    runs = renamed(load_runs(folder), HOSTILE)
    text = write_report(runs, rank(runs), folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert page.open == []
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert page.actions == []
    assert not any("javascript" in address for address in page.addresses)
    shown = without_plotly(text)
    assert html.escape("<script>document.title") in shown
    assert "日本語" in shown
    assert "{{7*7}}" in shown
    assert "\x00" not in text
    assert "\u2028" not in text
    assert "\u202e" not in text
    assert "␀" in shown
    assert "[U+202E]" in shown


def test_a_long_answer_is_cut_and_the_page_stays_small(experiment: Add) -> None:
    folder = experiment("clean", values=[0.5] * 20, answers=lambda i: "<b>" * 350_000).parent
    text = without_plotly(reported(folder))
    assert len(text) < 300_000
    assert "1,048,000 more characters" in text


def test_half_a_character_does_not_stop_the_report(experiment: Add) -> None:
    path = experiment("clean")
    file = path / "stages/generate/alpaca_eval.jsonl"
    file.write_text(file.read_text("utf-8").replace("answer 0", r"half \ud83d"), "utf-8")
    assert "half \ufffd" in reported(path.parent)


def test_failures_and_skipped_runs_are_on_the_page(experiment: Add) -> None:
    folder = experiment("clean", values=[0.4, 0.6], failed=1).parent
    experiment("noisy", finished=False, state={"state": "running", "stage": "judge"})
    text = reported(folder)
    assert "time-out after 5 retries" in text
    assert "running in judge" in text


def cells(text: str, table: str) -> list[list[str]]:
    """The text of the cells of a table's rows."""
    body = re.search(rf'id="table-{table}">(.*?)</table>', text, re.DOTALL)
    assert body, f"no table {table}"
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.DOTALL)
    return [[html.unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


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
    head, *rows = cells(text, "suspicious_answers")
    assert head[3:] == ["empty", "constant", "addresses the judge", "truncated"]
    assert rows == [["clean", "0", "alpaca_eval", "0.0", "37.5", "0.0", "–"]], "Arena-Hard has none"
    _, *rows = cells(text, "judges")
    assert rows[0] == ["clean", "0", "other", "alpaca_eval", "61.5", "50.0", "91.2", "–", "7.8", "yes"]
    assert rows[1][4] == "44.5"
    write_json(file, {name: scores[name] for name in ("judge", "alpaca_eval", "arena_hard")})
    assert "Further judges" not in reported(path.parent)


def test_every_table_names_its_files_and_its_rows_are_a_csv_beside_the_page(lab: Path) -> None:
    text = reported(lab)
    found = re.findall(r'href="(report_tables/(\w+)\.csv)">.*?title="SHA-256 (\w{64})"', text)
    assert {name for _, name, _ in found} >= {"ranking", "correlation", "evaluations", "provenance", "cost"}
    assert len(re.findall(r'<p class="source">(?:.*?)From [^<]+', text)) == len(found)
    for address, name, sha256 in found:
        content = (lab / address).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8"))))
        assert len(rows) == len([row for row in cells(text, name)[1:] if len(row) > 1])
    ranking = rank(load_runs(lab))
    with (lab / "report_tables/ranking.csv").open() as stream:
        rows = {row["reward_model"]: row for row in csv.DictReader(stream)}
    assert float(rows["clean"]["score"]) == ranking.rows[0].score, "unrounded"


def test_a_name_is_no_formula_of_a_spreadsheet(experiment: Add, renamed: Callable) -> None:
    folder = experiment("clean").parent
    runs = renamed(load_runs(folder), "=HYPERLINK(1)")
    write_report(runs, rank(runs), folder / "report.html")
    with (folder / "report_tables/ranking.csv").open() as stream:
        assert next(csv.DictReader(stream))["reward_model"] == "'=HYPERLINK(1)"


def test_the_page_shows_the_first_rows_and_says_where_the_rest_is(experiment: Add) -> None:
    folder = Path()
    for i in range(210):
        folder = experiment(f"rm{i:03}", values=[0.3, 0.5, i / 250], kl=None).parent
    text = reported(folder)
    assert "The first 200 of 210 rows" in text
    assert "The plot shows the best 60 of 210 reward models." in text
    assert len([row for row in cells(text, "ranking")[1:] if len(row) > 1]) == 200
    with (folder / "report_tables/ranking.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 210


def test_time_and_verdicts_are_counted(experiment: Add) -> None:
    path = experiment("clean", values=[0.4, 0.6, 0.5], failed=1)
    with (path / "metrics.jsonl").open("a") as stream:
        for step in (1, 2):
            row = {"kind": "train", "step": step, "seconds": 90.0, "tokens": 1000, "generation_seconds": 45.0}
            stream.write(json.dumps(row) + "\n")
        stream.write('{"kind": "train", "seco')
    spent = {"judge": "lab_judge", "calls": 6, "input_tokens": 4000, "output_tokens": 500, "money": 0.25}
    (path / "stages/judge/spent.jsonl").write_text(2 * (json.dumps(spent) + "\n"))
    row = dict(zip(*cells(reported(path.parent), "cost"), strict=True))
    assert row["Training, minutes"] == "3.0"
    assert row["Tokens sampled"] == "2,000"
    assert row["Where the time went"] == "generation 50%"
    assert row["Verdicts"] == "12", "4 prompts of AlpacaEval once, 4 of Arena-Hard in two orders"
    assert (row["Calls"], row["Judge's tokens"], row["Money"]) == ("12", "9,000", "0.50")


def test_several_metrics_stand_beside_their_aggregate(lab: Path, tmp_path: Path) -> None:
    weights = {"alpaca_eval.win_rate": 1.0, "arena_hard.score": 1.0}
    found = overall(load_settings([lab]), weights)
    runs = [run for setting in found.settings for run in setting.runs]
    text = write_report(runs, found.ranking, tmp_path / "report.html", found).read_text("utf-8")
    head, *rows = cells(text, "settings")
    assert head[1:] == ["Aggregate", *(cell.name for cell in found.cells)]
    first = [cell.ranking.rows[0] for cell in found.cells]
    assert rows[0][2:] == [f"{row.score:.1f} ({row.rank})" for row in first]
    _, *rows = cells(text, "agreement")
    assert rows[0][1:] == ["1.00", f"{found.agreement[0, 1]:.2f}".replace("-", "−")]


def test_where_gold_reward_turns_is_on_the_page(experiment: Add) -> None:
    path = experiment("clean", kl=None)
    distances = np.linspace(0, 6, 13)
    gold = distances * (1.2 - 0.6 * np.log(np.where(distances > 0, distances, 1)))
    rows = [
        {
            "kind": "checkpoint",
            "step": i,
            "kl": d**2,
            "proxy_reward": d,
            "gold_reward": 0.1 + g,
            "length_tokens": 9.0,
        }
        for i, (d, g) in enumerate(zip(distances, gold, strict=True))
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    table = dict(zip(*cells(reported(path.parent), "frontiers"), strict=True))
    assert (table["α"], table["β"]) == ("1.200", "0.600")
    assert table["Turns at √KL"] == f"{np.exp(1.2 / 0.6 - 1):.2f}", "Gao et al. 2023"


def test_audits_are_linked_with_their_findings(experiment: Add) -> None:
    folder = experiment("clean").parent
    findings = [{"kind": "evidence", "text": "300 items <stand> in its training data."}]
    (folder / "audit/clean").mkdir(parents=True)
    write_json(folder / "audit/clean/audit.json", {"reward_model": "clean", "findings": findings})
    text = reported(folder)
    assert "300 items &lt;stand&gt; in its training data." in text
    assert 'href="audit/clean/audit.html"' in text


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


@pytest.mark.parametrize("count", [1, 2])
def test_few_reward_models(experiment: Add, count: int) -> None:
    for i in range(count):
        folder = experiment(
            f"rm{i}", values=[0.2, 0.4 + i / 10], benchmarks={"public": (300, 60.0 + i)}
        ).parent
    assert f"rm{count - 1} gives the best policy" in reported(folder)
