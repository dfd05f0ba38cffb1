"""Training prompts: formats that are read, and the one order in which every reward model sees them."""

import json
from pathlib import Path

import pytest

from rlhf_eval.errors import DataError
from rlhf_eval.records import user_prompt
from rlhf_eval.training.prompts import in_training_order, load_prompts


def _file(folder: Path, *rows: dict) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_text_messages_and_instructions_are_read(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "b"}, {"role": "assistant", "content": "an answer"}]
    source = _file(tmp_path, {"id": "x", "prompt": "a"}, {"messages": turns}, {"instruction": "c"})
    prompts = load_prompts(source)
    assert [prompt.instruction for prompt in prompts] == ["a", "b", "c"]
    assert [prompt.id for prompt in prompts] == ["x", "1", "2"]


def test_a_row_without_a_prompt_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2"):
        load_prompts(_file(tmp_path, {"prompt": "a"}, {"text": "b"}))


def test_order_depends_on_the_seed_alone_and_uses_each_prompt_once_per_pass() -> None:
    prompts = [user_prompt(str(i), f"prompt {i}") for i in range(10)]
    order = in_training_order(prompts, 25, seed=1)
    assert order == in_training_order(prompts, 25, seed=1)
    assert order != in_training_order(prompts, 25, seed=2)
    assert {prompt.id for prompt in order[:10]} == {prompt.id for prompt in order[10:20]}
    assert len(order) == 25
