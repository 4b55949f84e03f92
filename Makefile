# On a fresh machine: `make darcy` and `make test`. Everything goes into .venv, made from pyproject.toml.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Large pages spare a CPU run thousands of page faults per step (docs/benchmarks.md); ignored where unknown.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: darcy test test-slow lint docs clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.plot: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[plot]"
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[plot,test]"
	touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	touch $@

darcy: $(VENV)/.plot  ## data, training, judgement, figure
	$(BIN)/python examples/darcy.py

test: $(VENV)/.test  ## the quick tests, some minutes on two cores; a file's tests share what they compile
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/.test  ## the longer studies, with all of XLA's optimisations
	XLA_FLAGS=--xla_force_host_platform_device_count=2 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## the site, into site/
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site outputs
