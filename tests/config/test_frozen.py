"""Configurations that version 0.1 froze: the same runs, same names, new fields at what was done then.

`frozen_0_1/` was written by that version; `names.json` holds the names of its run directories and the hashes
of what their stages depended on.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_eval.config.compose import compose, freeze, hash8, load, run_name
from rlhf_eval.config.plain import fingerprint
from rlhf_eval.errors import ConfigError
from rlhf_eval.files import read_json
from rlhf_eval.runs.stage_inputs import input_hash

FOLDER = Path(__file__).parent / "frozen_0_1"
NAMES = read_json(FOLDER / "names.json")
LAB = ["experiment=lab", "reward_model=lab_clean", "algorithm=grpo_lab"]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_the_last_version_keeps_its_name_and_its_stages(name: str) -> None:
    config = load(FOLDER / f"{name}.yaml")
    assert run_name(config) == NAMES[name]["run_name"]
    outputs = {"train": "t", "generate": "g", "judge": "j"}
    hashes = {stage: input_hash(stage, fingerprint(config), {}, outputs) for stage in NAMES[name]["stages"]}
    assert hashes == NAMES[name]["stages"]


def test_a_field_that_an_old_file_lacks_is_read_as_what_was_done_then() -> None:
    algorithm = load(FOLDER / "ppo.yaml").algorithm
    assert "missing_eos_penalty" not in (FOLDER / "ppo.yaml").read_text()
    assert algorithm.kind == "ppo"
    assert (algorithm.missing_eos_penalty, algorithm.mask_truncated) == (None, False)
    assert (algorithm.learning_rate_schedule, algorithm.weight_decay, algorithm.top_p) == ("constant", 0, 1)


@pytest.mark.parametrize(
    "change",
    [
        "algorithm.missing_eos_penalty=3",
        "algorithm.learning_rate_schedule=linear",
        "algorithm.weight_decay=0.01",
        "algorithm.top_p=0.9",
        "algorithm.rollout.importance_correction=none",
        "algorithm.rollout.importance_cap=2",
    ],
)
def test_a_new_field_with_another_value_is_another_run(change: str, tmp_path: Path) -> None:
    plain, changed = compose(LAB), compose([*LAB, change])
    assert hash8(changed) != hash8(plain)
    (tmp_path / "config.yaml").write_text(freeze(changed))
    assert load(tmp_path / "config.yaml") == changed


def test_a_new_field_can_be_in_a_grid() -> None:
    grid = "grid={algorithm.weight_decay: [0.0, 0.01]}"
    assert compose([*LAB, grid]).grid == {"algorithm.weight_decay": (0.0, 0.01)}
    with pytest.raises(ConfigError, match="weight_decoy"):
        compose([*LAB, "grid={algorithm.weight_decoy: [0.0]}"])


def test_where_it_runs_changes_no_name() -> None:
    config = load(FOLDER / "grpo.yaml")
    other = replace(config, accelerate=replace(config.accelerate, gradient_checkpointing=False))
    assert hash8(other) == hash8(config)
