"""The page of an audit is drawn from its JSON alone, escapes what it shows, and names what is not there."""

from pathlib import Path
from typing import Any

import pytest

from rlhf_eval.analysis.audit_page import write_audit_page
from rlhf_eval.errors import DataError
from rlhf_eval.files import write_json

EVIL = "<script>alert(1)</script>"


def change(name: str, drop: float) -> dict[str, Any]:
    own = {"original": 70.0, "changed": 70 - drop, "drop": drop, "low": drop - 2, "high": drop + 2, "p": 1e-6}
    beyond = {"panel_drop": 0.0, "difference": drop, "difference_low": 1.0, "difference_high": 9.0}
    models = [{"reward_model": model, "fell": 1, "rose": 0} | own for model in (EVIL, "open $x_1$")]
    about = {"name": name, "description": f"what {EVIL} does", "n": 50, "invalid": 0}
    return about | own | beyond | {"difference_p": 0.0123, "models": models}


def audit() -> dict[str, Any]:
    changes = [change("first", 5.0), change("control", 0.0)]
    row = {"benchmark": "b", "accuracy": 70.0, "low": 60.0, "high": 80.0, "n": 50, "private": True}
    match = {"id": "p1", "method": "13-gram", "part": "prompt", "place": "c, row 1, text", "text": EVIL}
    method = {"method": "13-gram", "flagged": 50, "share": 100.0, "accuracy": 70.0, "n_without": 0}
    method |= {"accuracy_without": None, "low": None, "high": None, "accuracy_of_flagged": 70.0}
    return {
        "reward_model": EVIL,
        "panel": ["open $x_1$"],
        "notes": ["a note"],
        "findings": [{"kind": "evidence", "text": f"It is {EVIL}."}],
        "benchmarks": [row | {"panel": {"open $x_1$": 65.0}, "notes": ["another version"]}],
        "gaps": [],
        "overlap": [
            {
                "benchmark": "b",
                "sources": ["train.jsonl"],
                "documents": 9,
                "methods": [method],
                "canaries": [],
                "matches": [match],
                "notes": [],
            }
        ],
        "overlap_note": "",
        "ablation": [
            {"benchmark": "b", "rule": "own", "n": 50, "figure": "ablation_b", "arms": changes},
        ],
        "ablation_note": "",
        "perturbation": [{"benchmark": "b", "figure": "perturbation_b", "rewrites": changes}],
        "openness": [{"what": "weights", "state": "open", "consequence": "scores can be reproduced"}],
        "version": "0",
        "written_at": "2026-11-25T00:00:00+00:00",
    }


def test_a_page_shows_everything_and_runs_nothing(tmp_path: Path) -> None:
    write_json(tmp_path / "audit.json", audit())
    page = write_audit_page(tmp_path).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; can be believed" in page
    assert "another version" in page
    assert "&lt; 0.0001" in page
    assert "0.0123" in page
    assert page.count("<svg") == 2
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        f"{kind}_b.{end}" for kind in ("ablation", "perturbation") for end in ("png", "svg", "pdf", "csv")
    }


def test_the_same_json_gives_the_same_page(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_json(tmp_path / folder / "audit.json", audit())
        write_audit_page(tmp_path / folder)
    for name in ("audit.html", "figures/ablation_b.svg", "figures/perturbation_b.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_figures_that_are_no_audits_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    for name in ("ranking.png", "ablation_old.png"):
        (tmp_path / "figures" / name).touch()
    write_json(tmp_path / "audit.json", audit())
    write_audit_page(tmp_path)
    assert (tmp_path / "figures" / "ranking.png").exists()
    assert not (tmp_path / "figures" / "ablation_old.png").exists()


def test_sections_without_content_say_so(tmp_path: Path) -> None:
    nothing = {"overlap": [], "ablation": [], "perturbation": [], "overlap_note": "training data closed"}
    write_json(tmp_path / "audit.json", audit() | nothing | {"ablation_note": "No benchmark has one."})
    page = write_audit_page(tmp_path).read_text()
    assert "Not searched: training data closed." in page
    assert "No benchmark has one." in page
    assert "No benchmark was rewritten." in page


def test_there_must_be_an_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"audit\.json does not exist"):
        write_audit_page(tmp_path)
