# make demo    the whole way once on the embedded lab; then open runs/lab/report.html
# make test    the test suite            make lint    ruff and pyright
# make bench   the figures of the README make clean   remove what setup and tests made
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := demo
.PHONY: setup setup-dev demo test lint bench clean

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

setup: .venv/installed
setup-dev: .venv/installed-dev

# torch first and by itself: asked for with the rest, pip may take a build with gigabytes of CUDA.
.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/rlhf-eval demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/installed-dev
	for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean:
	rm -rf .venv .cache runs build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
