# The two commands: `make demo` (the main job) and `make test`. Each makes .venv/ when there is none.
# `make demo PYTHON=/path/to/python` uses that Python as it is and installs nothing.

SHELL := /bin/bash
# the first Python on the path that runs and is new enough
BOOTSTRAP ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
# CUDA's major version as the driver reports it; empty without a GPU, so such a machine installs no CUDA wheels
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA[^:]*Version: *\([0-9]*\).*/\1/p' | head -1)
LOCK := requirements$(if $(filter 12,$(CUDA)),-cuda12,$(if $(CUDA),-cuda13)).lock

ifdef PYTHON
ENV :=
else
PYTHON := .venv/bin/python
ENV := .venv/.ready-$(LOCK)
endif

.PHONY: env demo demo-h100 models test soak check docs format lock clean

demo: $(ENV)
	$(PYTHON) -m coordinator demo

# the same with a recorded H100 in place of this machine, power and energy included
demo-h100: $(ENV)
	$(PYTHON) -m coordinator demo --dataset datasets/h100_demo.parquet

# the model in the package, from datasets/; commit what it writes
models: $(ENV)
	$(PYTHON) -m costmodel.shipped

# All cores; the tests of a file share their models and clusters, so a file stays in one process.
test: $(ENV)
	$(PYTHON) -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 10

# Faults on clusters of several nodes, over and over: make soak COUNT=10
COUNT := 1
soak: $(ENV)
	for round in $$(seq $(COUNT)); do $(PYTHON) -m pytest -q -x -m soak tests/cluster tests/security || exit 1; done

SITE := $(PYTHON) -m sphinx --quiet --builder html --fail-on-warning --keep-going docs

check: $(ENV)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/test_imports.py
	$(SITE) build/site

# The site, docs/site/index.html, and the page that asks the model, docs/site/ask.html (needs npm)
docs: $(ENV)
	$(SITE) docs/site
	$(PYTHON) docs/build_ask.py

format: $(ENV)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

.venv/.ready-$(LOCK): $(LOCK) requirements.lock pyproject.toml
	@test -n "$(BOOTSTRAP)" || { echo "gemmcast needs Python 3.11 or newer with venv; none was found on the PATH"; exit 1; }
	@echo "making .venv/ from $(LOCK) with $(BOOTSTRAP) (about a minute) ..."
	@test -x .venv/bin/python || $(BOOTSTRAP) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock $(if $(CUDA),-r $(LOCK))
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The locks: one for everybody, the CUDA ones on top of it. No index address in them.
UV = uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url
lock:
	$(UV) --extra fleet --extra signing --group dev pyproject.toml -o requirements.lock
	$(UV) --extra cuda13 --extra triton -c requirements.lock pyproject.toml -o requirements-cuda13.lock
	$(UV) --extra cuda12 --extra triton -c requirements.lock pyproject.toml -o requirements-cuda12.lock

env: $(ENV)

clean:
	rm -rf .venv demo dist build docs/site page/build page/node_modules .mypy_cache .ruff_cache .pytest_cache
