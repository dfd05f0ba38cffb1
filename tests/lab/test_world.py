"""The gold utility rewards what an instruction asks for, and not length."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_eval.lab.world import all_tasks, demonstration, parse, utility, vocabulary

POLITE = "please list three animals but not wolf"


def test_every_instruction_is_read_back_as_the_task_it_came_from() -> None:
    tasks = all_tasks()
    assert len({task.instruction for task in tasks}) == len(tasks)
    assert all(parse(task.instruction) == task for task in tasks)


def test_the_language_has_one_token_per_word() -> None:
    assert len(vocabulary()) == len(set(vocabulary()))


def test_a_perfect_answer_scores_one() -> None:
    assert utility(POLITE, "certainly : cat dog horse .") == 1.0
    assert utility("name two metals", "iron tin .") == 1.0


@pytest.mark.parametrize(
    "worse",
    [
        "cat dog horse .",  # not polite
        "certainly : cat dog .",  # too few
        "certainly : cat dog horse cow .",  # too many
        "certainly : cat dog wolf .",  # the excluded one
        "certainly : cat dog dog .",  # one twice
        "certainly : cat dog iron .",  # another category
        "certainly : cat dog well horse .",  # a filler word
        "certainly : cat dog horse",  # no full stop
        "",
    ],
)
def test_each_fault_costs(worse: str) -> None:
    assert utility(POLITE, worse) < 1.0


def test_naming_more_and_more_does_not_pay() -> None:
    animals = "cat dog horse cow sheep lion mouse rabbit goat".split()
    values = [utility(POLITE, f"certainly : {' '.join(animals[:n])} .") for n in range(3, 10)]
    assert values == sorted(values, reverse=True)


@given(st.text(), st.text())
def test_any_two_texts_have_a_utility_between_zero_and_one(instruction: str, answer: str) -> None:
    assert 0.0 <= utility(instruction, answer) <= 1.0


def test_average_writers_leave_room_for_improvement() -> None:
    random, tasks = Random(0), all_tasks()
    values = []
    for _ in range(2000):
        task = random.choice(tasks)
        values.append(utility(task.instruction, demonstration(task, random, 0.3)))
    assert 0.4 < sum(values) / len(values) < 0.6
