# A thin door on tox; the environments are described in tox.ini.
PYTHON ?= python3.11
TOX := .tools/bin/tox

.PHONY: quickstart test lint clean

quickstart: $(TOX)
	$(TOX) run -e quickstart

test: $(TOX)
	$(TOX) run

lint: $(TOX)
	$(TOX) run -e lint

$(TOX):
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet "tox>=4.22"

clean:
	rm -rf .tools .tox .venv dist build
