# A thin door on tox; the environments are described in tox.ini.
PYTHON ?= python3.11
TOX := .tools/bin/tox

# The two commits of `make track`, and how it calls asv: FLAGS="--bench quick --factor 1.02".
BASE ?= main
HEAD ?= HEAD
FLAGS ?=

.PHONY: quickstart track test test-all lint clean

quickstart: $(TOX)
	$(TOX) run -e quickstart

# Frameworks come from .venv, which is made first where it is missing.
track: $(TOX) | .venv
	$(TOX) run -e track -- $(FLAGS) $(BASE) $(HEAD)

.venv: | $(TOX)
	$(TOX) run -e quickstart --notest

# Environments are made two at a time, which is mostly unpacking; tests have the machine for themselves.
test: $(TOX)
	$(TOX) run-parallel --notest --parallel 2 --parallel-no-spinner
	$(TOX) run --skip-pkg-install

# With the tests marked exhaustive, which pyproject.toml leaves out: of two -m, the later one counts.
test-all: export PYTEST_ADDOPTS = -m ""
test-all: export CAPSBENCH_KILLS ?= 8
test-all: test

lint: $(TOX)
	$(TOX) run -e lint

$(TOX):
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet "tox>=4.22"

clean:
	rm -rf .tools .tox .venv .asv dist build
