"""The README's commands and examples work as they stand there."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from capsbench.cli import main
from capsbench.suite.schema import Suite

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    """The code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands():
    """Every capsbench command of the README that needs neither an install nor a data set."""
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("capsbench ")]


@pytest.mark.parametrize("command", commands())
def test_commands(command, monkeypatch, capsys):
    """A command of the README ends well, or, where it would run a framework that is missing, says so."""
    arguments = shlex.split(command)[1:]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["capsbench", *arguments])
    code = main()
    out, err = capsys.readouterr()
    if "run" in arguments and code == 64:
        assert "not installed" in err
        return
    assert code == 0, err
    assert out.strip()


def test_there_are_commands():
    """The README shows the commands that a newcomer tries first."""
    verbs = {command.split()[1] for command in commands()}
    assert {"networks", "backends", "forecast", "run", "data", "schema"} <= verbs


def test_example_suite():
    """The suite that the README explains is a valid suite."""
    from capsbench.network.text import parse

    [text] = blocks("yaml")
    suite = parse(text, Suite, "README.md")
    assert suite.routing_iterations == (1, 2, 3)


def test_real_table():
    """The README shows a real table."""
    assert "@@" not in README
    assert "Accuracy" in README
    assert "tensorflow:graph" in README
