"""`rlhf-eval power`: with a prior, with a pilot, and with what cannot be planned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_eval.analysis.power import Target, power
from rlhf_eval.analysis.variance import PRIOR, Components
from rlhf_eval.cli import main
from tests.analysis.conftest import write_run


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["power", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def pilot(folder: Path, seeds: int, models: int = 6, n: int = 400, **changes: Any) -> Path:
    """Spreads in points: seeds 3, prompts by reward model 10, residual 15."""
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 0.08, n)
    for model in range(models):
        own = 0.5 + hardness + rng.normal(0, 0.10, n)
        for seed in range(seeds):
            values = own + rng.normal(0, 0.03) + rng.normal(0, 0.15, n)
            write_run(folder, f"model{model}", seed, values, **changes)
    write_run(folder, "untrained", 0, np.full(n, 0.9), None, True, "untrained", kl=None, **changes)
    return folder


def test_a_prior_gives_what_the_formula_gives(capsys) -> None:
    found = told(capsys, "--difference", "6", "--reward-models", "4", "--compare", "best")
    assert found["components"] == {"seed": 1.5, "prompt": 20.0, "residual": 22.0, "seed_degrees": None}
    assert found["target"]["reward_models"] == 4
    assert found["chosen"]["comparisons"] == 3
    for design in found["table"]:
        expected = power(PRIOR, Target(6.0, 4, every_pair=False), design["seeds"], design["prompts"])
        assert design["power"] == pytest.approx(expected)
        assert design["prompts"] <= 805
    assert found["chosen"]["cheapest"]["power"] >= 0.8


def test_spreads_that_are_given_are_taken(capsys) -> None:
    spreads = ("--seed-sd", "1", "--prompt-sd", "15", "--residual-sd", "25", "--prompts", "500")
    found = told(capsys, *spreads, "--difference", "7", "--reward-models", "3")
    assert found["prompts"] == 500
    last = next(d for d in found["table"] if (d["seeds"], d["prompts"]) == (4, 500))
    assert last["power"] == pytest.approx(power(Components(1, 15, 25), Target(7.0, 3), 4, 500))


def test_a_pilot_is_estimated_from_and_its_set_is_the_limit(tmp_path, capsys) -> None:
    found = told(capsys, str(pilot(tmp_path / "lab", seeds=4)), "--difference", "9")
    assert found["components"]["seed"] == pytest.approx(3, rel=0.4)
    assert found["components"]["prompt"] == pytest.approx(10, rel=0.1)
    assert found["components"]["residual"] == pytest.approx(15, rel=0.05)
    assert found["components"]["seed_degrees"] == 18
    assert found["target"]["reward_models"] == 6
    assert found["prompts"] == 400
    assert max(design["prompts"] for design in found["table"]) == 400


def test_a_pilot_on_part_of_a_set_may_be_followed_by_the_whole(tmp_path, capsys) -> None:
    prompts = {"alpaca_eval": {"reference_outputs": "lab:alpaca.json", "limit": 50}}
    folder = pilot(tmp_path / "lab", seeds=2, models=2, n=50, prompts=prompts)
    assert told(capsys, str(folder), "--difference", "9")["prompts"] == 805


def test_a_pilot_of_one_seed_takes_the_spread_from_the_prior_and_says_so(tmp_path, capsys) -> None:
    folder = pilot(tmp_path / "lab", seeds=1)
    assert main(["power", str(folder), "--difference", "9"]) == 0
    text = capsys.readouterr().out
    assert "the spread between seeds is unknown and taken from the prior" in text
    assert "between seeds 1.50" in text
    given = told(capsys, str(folder), "--difference", "9", "--seed-sd", "4")
    assert given["components"]["seed"] == 4.0


def test_what_no_number_of_prompts_can_do_is_said(capsys) -> None:
    assert main(["power", "--difference", "2", "--reward-models", "5"]) == 0
    text = capsys.readouterr().out
    assert "no number of prompts separates" in text
    assert "A single seed is not offered" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--difference", "0"], "no number above 0"),
        (["--power", "1"], "not between 0 and 1"),
        (["--level", "x"], "not between 0 and 1"),
        (["--reward-models", "1"], "from 2 on"),
        (["--prompts", "1"], "from 2 on"),
        (["--seed-sd", "-1"], "from 0 on"),
        (["--metric", "alpaca_eval.winrate"], "Did you mean"),
        (["nowhere"], "There is no experiment folder"),
    ],
)
def test_what_cannot_be_planned_is_refused(words, message, capsys) -> None:
    assert main(["power", *words]) in (1, 2)
    assert message in capsys.readouterr().err
