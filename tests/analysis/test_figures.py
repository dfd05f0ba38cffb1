import csv
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlhf_eval.analysis.comparison_figures import draw_head_to_head
from rlhf_eval.analysis.experiment import load_runs
from rlhf_eval.analysis.figures import draw_correlation, draw_ranking, write_figures
from rlhf_eval.analysis.head_to_head import head_to_head
from rlhf_eval.analysis.ranking import rank
from rlhf_eval.analysis.style import inline_svg, wrapped

Add = Callable[..., Path]


def drawn(folder: Path) -> dict[str, Path]:
    runs = load_runs(folder)
    return {path.name: path for path in write_figures(runs, rank(runs), folder / "figures")}


@pytest.fixture(scope="module")
def of_lab(lab: Path) -> dict[str, Path]:
    return drawn(lab)


def test_each_figure_is_png_svg_pdf_and_the_numbers_it_shows(of_lab: dict[str, Path]) -> None:
    files = of_lab
    names = ("ranking", "correlation", "curves", "frontiers", "head_to_head", "length")
    assert sorted(files) == sorted(
        f"{name}.{kind}" for name in names for kind in ("png", "svg", "pdf", "csv")
    )
    for name, path in files.items():
        if name.endswith("png"):
            assert path.read_bytes().startswith(b"\x89PNG")
        if name.endswith("svg"):
            ElementTree.parse(path)
        if name.endswith("pdf"):
            content = path.read_bytes()
            assert content.startswith(b"%PDF")
            assert b"/CIDFontType2" in content, "TrueType fonts (Type 42), as journals ask for"
            assert b"/Type3" not in content
    with files["correlation.csv"].open() as stream:
        rows = {row["reward_model"]: row for row in csv.DictReader(stream)}
    assert float(rows["contaminated"]["accuracy"]) == 95.0
    assert len(rows) == 8
    with files["curves.csv"].open() as stream:
        curve = [
            row for row in csv.DictReader(stream) if row["reward_model"] == "clean" and row["seed"] == "0"
        ]
    assert [float(row["sqrt_kl"]) ** 2 for row in curve] == pytest.approx([float(row["kl"]) for row in curve])


def test_the_same_runs_give_the_same_files(lab: Path, of_lab: dict[str, Path]) -> None:
    before = {name: path.read_bytes() for name, path in of_lab.items()}
    assert {name: path.read_bytes() for name, path in drawn(lab).items()} == before


def test_labels_cover_neither_each_other_nor_points(experiment: Add) -> None:
    rng = np.random.default_rng(0)
    for i in range(9):
        name = f"Skywork-Reward-V2-Llama-3.1-{i}B"
        values = np.clip(0.5 + 0.02 * i + rng.normal(0, 0.02, 200), 0, 1)
        folder = experiment(name, 0, values, benchmarks={"public": (2000, 84.0 + i)}).parent
    figure = draw_correlation(rank(load_runs(folder)))
    axes = figure.axes[0]
    renderer = figure.canvas.get_renderer()
    boxes = [a.get_window_extent(renderer) for a in axes.texts if a.get_text().startswith("Skywork")]
    assert len(boxes) == 9
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    points = [
        axes.transData.transform(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "o"
    ]
    assert not any(box.contains(*point) for box in boxes for point in points)


@pytest.mark.parametrize("count", [1, 2])
def test_few_reward_models(experiment: Add, count: int) -> None:
    for i in range(count):
        folder = experiment(f"rm{i}", 0, [0.2, 0.4 + i / 10], benchmarks={"public": (300, 60.0 + i)}).parent
    assert len(drawn(folder)) == (20 if count == 1 else 24)


def test_without_benchmark_and_curves_ranking_and_length_are_drawn(experiment: Add) -> None:
    folder = experiment("clean", kl=None).parent
    assert {path.split(".")[0] for path in drawn(folder)} == {"ranking", "length"}


def test_many_reward_models_stay_readable(experiment: Add) -> None:
    rng = np.random.default_rng(0)
    for i in range(60):
        folder = experiment(
            f"Skywork-Reward-V2-Llama-3.1-{i}B", 0, rng.random(30), benchmarks={"public": (200, 60.0 + i / 3)}
        ).parent
    ranking = rank(load_runs(folder))
    figure = draw_ranking(ranking)
    assert len(figure.axes[0].get_yticks()) == 40
    assert "best 40 of 60" in figure.axes[0].get_title(loc="left")
    axes = draw_correlation(ranking).axes[0]
    numbers = [text for text in axes.texts if text.get_text().isdigit()]
    assert len(numbers) == 60, "places in the ranking instead of names"
    matrix = draw_head_to_head(head_to_head(load_runs(folder), ranking))
    ticks = matrix.axes[0].get_yticklabels()
    assert len(ticks) == 40
    assert len({tick.get_text() for tick in ticks}) == 40, "long names still differ"


def test_the_win_rate_matrix_counts_prompts(experiment: Add) -> None:
    experiment("a", 0, [0.9, 0.2, 0.5, 0.7], prompt_ids="wxyz")
    experiment("a", 1, [0.1, 0.3, 0.5, np.nan], prompt_ids="wxyz", failed=1)
    folder = experiment("b", 0, [0.4, 0.4, 0.5, 0.1], prompt_ids="wxyz").parent
    runs = load_runs(folder)
    found = head_to_head(runs, rank(runs))
    place = {name: i for i, name in enumerate(found.names)}
    # Seed 0 wins w and z, loses x, draws y: 2.5 of 4. Seed 1 loses w and x, draws y, has no z: 0.5 of 3.
    assert found.shares[place["a"], place["b"]] == pytest.approx(100 * np.mean([2.5 / 4, 0.5 / 3]))
    assert found.shares[place["b"], place["a"]] == pytest.approx(100 * np.mean([1.5 / 4, 2.5 / 3]))
    assert np.isnan(np.diag(found.shares)).all()


def test_length_and_style_stand_beside_the_score(lab: Path, of_lab: dict[str, Path]) -> None:
    with of_lab["length.csv"].open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["reward_model"] == "clean"]
    runs = [run for run in load_runs(lab) if run.reward_model == "clean"]
    assert [row["evaluation"] for row in rows] == ["alpaca_eval", "arena_hard"]
    assert float(rows[0]["mean_characters"]) == pytest.approx(83.1)
    expected = np.mean([run.scores["arena_hard"]["score"] for run in runs])
    assert float(rows[1]["score"]) == pytest.approx(expected)
    assert rows[1]["controlled_score"] == ""


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["$\\frac{", "奖励 模型", "a" * 200, "<b>&amp;", "line\nbreak\u202e"])
def test_any_name_can_be_drawn(experiment: Add, renamed: Callable, tmp_path: Path, name: str) -> None:
    runs = renamed(load_runs(experiment("clean", benchmarks={name: (300, 60.0)}).parent), name)
    for path in write_figures(runs, rank(runs), tmp_path):
        if path.suffix == ".svg":
            ElementTree.parse(path)


def test_names_break_where_a_reader_expects() -> None:
    assert wrapped("Skywork-Reward-V2-Llama-3.1-8B") == "Skywork-Reward-V2-Llama-\n3.1-8B"
    assert wrapped("clean_small") == "clean_small"
    assert max(map(len, wrapped("x" * 500).split("\n"))) < 60


def test_inline_figures_share_a_page_without_sharing_ids(lab: Path) -> None:
    ranking = rank(load_runs(lab))
    one, other = (inline_svg(draw_correlation(ranking), prefix, "x < y") for prefix in "ab")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((one, other), ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= own
    assert "<metadata" not in one
    assert "<!DOCTYPE" not in one
    assert "var(--ink)" in one
