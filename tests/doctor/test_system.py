"""Limits, processors and the compiler of this machine."""

import resource
from collections.abc import Iterator
from functools import partial

import pytest

from rlhf_eval.config.compose import compose
from rlhf_eval.doctor import system
from tests.doctor.conftest import found


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_too_few_open_files_is_a_warning_with_the_command() -> None:
    config = compose(["experiment=lab", "reward_model=lab_clean", "judge.concurrency=2000"])
    told = found(partial(system.open_files, config))["open files"]
    assert told.state == "warning"
    assert told.seen.startswith("512 of at most")
    assert "4256" in told.seen


def test_more_threads_than_processors_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5000")
    assert found(partial(system.processors, None))["CPUs"].state == "warning"
    config = compose(["experiment=lab", "reward_model=lab_clean", f"threads={system.usable_cpus() + 1}"])
    told = found(partial(system.processors, config))["CPUs"]
    assert f"threads={system.usable_cpus()}" in told.cure


def test_without_a_compiler_deepspeed_on_the_cpu_cannot_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    told = found(partial(system.compiler, True, False))["compiler"]
    assert told.state == "failure"
    assert "c++, ninja" in told.seen
    assert found(partial(system.compiler, False, True))["compiler"].state == "warning"
