# A thin door on tox; the environments are described in tox.ini.
PYTHON ?= python3.11
TOX := .tools/bin/tox

# The two commits of `make track`, and how it calls asv: FLAGS="--bench quick --factor 1.02".
BASE ?= main
HEAD ?= HEAD
FLAGS ?=

.PHONY: quickstart track test test-all test-portability benchmarks lint clean

quickstart: $(TOX)
	$(TOX) run -e quickstart

# Frameworks come from .venv, which is made first where it is missing.
track: $(TOX) | .venv
	$(TOX) run -e track -- $(FLAGS) $(BASE) $(HEAD)

.venv: | $(TOX)
	$(TOX) run -e quickstart --notest

# Both environments are made at a time; tests have the machine for themselves.
test: $(TOX)
	$(TOX) run-parallel --notest --parallel 2 --parallel-no-spinner
	$(TOX) run --skip-pkg-install

# With the tests marked exhaustive, which pyproject.toml leaves out: of two -m, the later one counts.
test-all: export PYTEST_ADDOPTS = -m ""
test-all: export CAPSBENCH_KILLS ?= 8
test-all: test

# The numeric tests as other processors compute. Not part of `make test`, which runs them as this one does.
test-portability: $(TOX)
	$(TOX) run -e portability

# What the harness itself takes.
benchmarks: $(TOX)
	$(TOX) run -e benchmarks

lint: $(TOX)
	$(TOX) run -e lint

$(TOX):
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet "tox>=4.22"

clean:
	rm -rf .tools .tox .venv .asv dist build
