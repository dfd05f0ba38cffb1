"""Best of n: its arithmetic beside an enumeration of all choices, and whole runs on the small lab."""

import math
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.config.compose import compose
from rlhf_eval.config.schema import RunConfig
from rlhf_eval.files import read_json, read_jsonl
from rlhf_eval.judging.stage import evaluation_prompts
from rlhf_eval.lab.build import ensure
from rlhf_eval.progress import SilentProgress
from rlhf_eval.rewards.interface import load_reward_model
from rlhf_eval.runs.directory import RunDirectory
from rlhf_eval.runs.stages import execute
from rlhf_eval.sources import localise
from rlhf_eval.training.best_of_n import _mean, divergence_bound, selection_weights, sizes

SAMPLES = 4


def enumerated(scores: list[float], n: int) -> list[float]:
    """The share of all draws of n valid samples that each sample wins; equal ones win an equal share."""
    valid = [place for place, score in enumerate(scores) if math.isfinite(score)]
    draws = list(combinations(valid, min(n, len(valid)))) if valid else []
    weights = [0.0] * len(scores)
    for draw in draws:
        best = max(scores[place] for place in draw)
        winners = [place for place in valid if scores[place] == best]
        for place in winners:
            weights[place] += 1 / len(winners) / len(draws)
    return weights


# Few values, so that there are ties, and scores that are not valid.
rows = st.lists(st.sampled_from([-1.5, 0.0, 0.5, 2.0, 3.0]) | st.just(math.nan), min_size=1, max_size=7)


@given(rows, st.integers(1, 8))
def test_weights_are_the_share_of_draws_that_a_sample_wins(scores: list[float], n: int) -> None:
    [weights] = selection_weights(np.array([scores]), n)
    assert weights.tolist() == pytest.approx(enumerated(scores, n), abs=1e-12)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=40))
def test_the_best_of_more_is_never_worse(scores: list[float]) -> None:
    table = np.array([scores])
    expected = [(selection_weights(table, n) * table).sum() for n in range(1, len(scores) + 1)]
    assert expected[0] == pytest.approx(np.mean(scores), abs=1e-9)
    assert expected[-1] == pytest.approx(max(scores), abs=1e-9)
    assert all(more >= less - 1e-9 for less, more in pairwise(expected))


def test_the_divergence_of_the_best_of_n() -> None:
    assert divergence_bound(1) == 0
    assert divergence_bound(2) == pytest.approx(math.log(2) - 1 / 2)
    assert divergence_bound(4) == pytest.approx(0.6363, abs=1e-4)
    assert divergence_bound(64) == pytest.approx(3.1745, abs=1e-4)


def test_the_divergence_is_that_of_choosing_the_highest_of_n_different_scores() -> None:
    """Of N equally likely answers the best of n drawn with replacement has known chances; their divergence
    approaches the formula as N grows."""
    rank = np.arange(1, 20_001) / 20_000
    for n in (2, 4, 8):
        chances = np.diff(rank**n, prepend=0.0)
        divergence = (chances * np.log(chances * len(rank))).sum()
        assert divergence_bound(n) == pytest.approx(divergence, abs=1e-3)


def test_a_mean_takes_in_what_has_a_value() -> None:
    """A gold reward model may fail where the reward model did not, and the other way about."""
    proxies = np.array([[0.0, 1.0], [2.0, math.nan], [math.nan, math.nan], [1.0, 0.0]])
    golds = np.array([[4.0, math.nan], [6.0, 7.0], [8.0, 9.0], [math.nan, math.nan]])
    for n in (1, 2):
        weights = selection_weights(proxies, n)
        assert _mean(weights, proxies) == pytest.approx([3.0, 4.0][n - 1] / 3)
        assert _mean(weights[1:], golds[1:]) == 6.0
    assert _mean(selection_weights(proxies, 1), golds) == 5.0
    assert _mean(np.zeros((2, 2)), np.ones((2, 2))) is None


@pytest.mark.parametrize(
    ("largest", "points"), [(2, [1, 2]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (9, [1, 2, 4, 8, 9])]
)
def test_the_frontier_has_a_point_at_each_power_of_two(largest: int, points: list[int]) -> None:
    assert sizes(largest) == points


@pytest.fixture(scope="module")
def configured(small_lab: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunConfig]:
    """A function: reward model → configuration of a run of best-of-4 on the small lab."""
    lab = [word for word in small_lab if not word.startswith("algorithm.")]
    algorithm = ["algorithm=best_of_n_lab", f"algorithm.samples={SAMPLES}", "algorithm.normaliser_prompts=8"]
    output = tmp_path_factory.mktemp("best_of_n")
    return lambda name: compose([*lab, *algorithm, f"reward_model={name}", f"output={output}"])


@pytest.fixture(scope="module")
def executed(configured: Callable[[str], RunConfig]) -> tuple[Path, Path]:
    """Two finished runs of one experiment, which differ in the reward model."""
    paths = []
    for name in ("lab_clean_small", "lab_noisy"):
        config = configured(name)
        path = Path(config.output) / "lab" / name
        execute(config, path, SilentProgress())
        paths.append(path)
    return paths[0], paths[1]


def samples_of(path: Path) -> Path:
    [folder] = (path.parent / "shared" / "samples").iterdir()
    return folder


def test_a_run_ends_with_scores(executed: tuple[Path, Path]) -> None:
    for path in executed:
        assert RunDirectory(path).status()["state"] == "done"
        scores = read_json(path / "stages" / "score" / "scores.json")
        assert {"alpaca_eval", "arena_hard"} <= scores.keys()
        assert not (path / "stages" / "train" / "policy").exists()


def test_two_reward_models_choose_among_the_same_samples(
    configured: Callable[[str], RunConfig], executed: tuple[Path, Path]
) -> None:
    """And each answer chosen is the one that its reward model, asked again by itself, scores highest."""
    chosen: dict[str, list[str]] = {}
    for path in executed:
        config = configured(path.name)
        assert config.lab is not None
        config = localise(config, ensure(config.lab, 1, SilentProgress()))
        reward_model = load_reward_model(config.reward_model)
        for evaluation, prompts in evaluation_prompts(config.prompts).items():
            samples = read_jsonl(samples_of(path) / f"{evaluation}.jsonl")
            assert [row["prompt_id"] for row in samples] == [
                f"{prompt.id}#{n}" for prompt in prompts for n in range(SAMPLES)
            ]
            answers = read_jsonl(path / "stages" / "generate" / f"{evaluation}.jsonl")
            assert [row["prompt_id"] for row in answers] == [prompt.id for prompt in prompts]
            for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
                texts = [row["text"] for row in samples[place * SAMPLES : (place + 1) * SAMPLES]]
                scores = [reward_model.score([prompt.answered(text)]).scores[0] for text in texts]
                assert answer["text"] == texts[answer["sample"]]
                assert scores[answer["sample"]] == pytest.approx(max(scores), abs=1e-5)
            chosen.setdefault(evaluation, []).append(str([row["text"] for row in answers]))
    # They are of two minds somewhere, so sharing the samples is not sharing the choice.
    assert any(first != second for first, second in chosen.values())


def test_the_second_run_samples_nothing(executed: tuple[Path, Path]) -> None:
    first, second = executed
    began = (second / "config.yaml").stat().st_mtime_ns
    assert all(file.stat().st_mtime_ns < began for file in samples_of(first).glob("*.jsonl"))


def test_the_frontier_is_recorded(executed: tuple[Path, Path]) -> None:
    for path in executed:
        rows = read_jsonl(path / "metrics.jsonl")
        assert [(row["kind"], row["step"], row["samples"]) for row in rows] == [
            ("checkpoint", n, n) for n in (1, 2, 4)
        ]
        for row in rows:
            assert row["kl"] == pytest.approx(math.log(row["step"]) - (row["step"] - 1) / row["step"])
            assert 0 <= row["gold_reward"] <= 1
            assert 0 < row["length_tokens"] <= 24
        proxies = [row["proxy_reward"] for row in rows]
        assert proxies == sorted(proxies)
        assert proxies[0] < proxies[-1]


def test_a_second_call_does_nothing_anew(
    configured: Callable[[str], RunConfig], executed: tuple[Path, Path]
) -> None:
    path = executed[0]
    before, samples = moments(path / "stages"), moments(path.parent / "shared")
    execute(configured(path.name), path, SilentProgress())
    assert moments(path / "stages") == before
    assert moments(path.parent / "shared") == samples


def moments(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    return {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
