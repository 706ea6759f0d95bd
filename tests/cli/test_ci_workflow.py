"""The workflow that compares pull requests: what it may do, that our command line takes its commands, that it works."""

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from capsbench.cli import app

ROOT = Path(__file__).parents[2]
PATH = ROOT / ".github" / "workflows" / "capsbench.yml"
TEXT = PATH.read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load(TEXT)
STEPS = WORKFLOW["jobs"]["compare"]["steps"]
SUITE = """\
name: ci
dataset: mnist
networks: [linear.yaml]
backends: ["fake:fast"]
batch: [8]
measure: [parity, memory]
"""


def script(name):
    """What the step of a name runs."""
    [step] = [step for step in STEPS if step.get("name") == name]
    return step["run"]


def commands():
    """The arguments of every capsbench command, shell variables and patterns as words of their own."""
    for step in STEPS:
        for line in re.sub(r"\\\n\s*", "", step.get("run", "")).splitlines():
            words = shlex.split(line, comments=True)
            for place, word in enumerate(words):
                if word.endswith("/bin/capsbench"):
                    end = next((i for i, w in enumerate(words) if i > place and w.startswith((">", "|", ")"))), None)
                    yield tuple(words[place + 1 : end])


def test_it_may_read_and_nothing_else():
    """Least rights, no secrets, actions by tag, the whole history, and no credentials left for the code it runs."""
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in WORKFLOW["jobs"].values())
    assert "secrets." not in TEXT
    assert "pull_request_target" not in TEXT
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+(\.\d+)*", step["uses"]) for step in STEPS if "uses" in step)
    assert STEPS[0]["with"] == {"fetch-depth": 0, "persist-credentials": False}
    assert WORKFLOW["concurrency"]["cancel-in-progress"] is True
    # What comes from outside goes through the environment, never into a script.
    assert not any("${{" in step.get("run", "") for step in STEPS)


def test_our_command_line_takes_its_commands():
    """Every command, option and word in it is one of ours."""
    found = list(commands())
    assert {arguments[0] for arguments in found} == {"run", "compare"}
    group = get_command(app)
    for name, *arguments in found:
        command = group.get_command(None, name)
        with command.make_context(name, list(arguments)) as context:
            assert context.params["results" if name == "run" else "fail_on"]


@pytest.fixture
def checkouts(tmp_path, mnist_root):
    """A base and a head as the steps before leave them, with a suite of the fake backend; and the environment."""
    for side in ("base", "head"):
        folder = tmp_path / side
        (folder / "suites").mkdir(parents=True)
        (folder / "data").symlink_to(mnist_root)
        (folder / "suites" / "quick.yaml").write_text(SUITE, encoding="utf-8")
        (folder / "suites" / "linear.yaml").write_bytes((ROOT / "tests" / "fake" / "linear.yaml").read_bytes())
        program = tmp_path / "temp" / side / "bin" / "capsbench"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m capsbench "$@"\n', encoding="utf-8")
        program.chmod(0o755)
    (tmp_path / "work").mkdir()
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GITHUB_WORKSPACE": str(tmp_path / "work"),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "SUITE": WORKFLOW["env"]["SUITE"],
        "RESULTS": WORKFLOW["env"]["RESULTS"],
    }


def run(name, environment):
    """Run a step as the service does; its exit code."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(name)]
    folder = environment["GITHUB_WORKSPACE"]
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, timeout=600, capture_output=True
    ).returncode


def test_its_steps_gate_on_what_is_exact(checkouts):
    """Equal sides pass with a table in the summary; more bytes at the head fail the job."""
    summary = Path(checkouts["GITHUB_STEP_SUMMARY"])
    assert run("Run the suite on either side", checkouts) == 0
    assert run("Compare", checkouts) == 0
    assert "## suites/quick.yaml: base (A) and head (B)\n### Verdicts on B\n" in summary.read_text("utf-8")
    [database] = Path(checkouts["GITHUB_WORKSPACE"]).glob("results/ci/head/runs/*/run.sqlite")
    with closing(sqlite3.connect(database)) as connection:
        named = "SELECT id FROM metric_name WHERE name = 'allocated_bytes'"
        connection.execute(f"UPDATE metric SET value = value + 1 WHERE metric_id IN ({named})")  # noqa: S608
        connection.commit()
    assert run("Compare", checkouts) == 1
    assert re.search(r"\| allocated\\_bytes \|.* worse \|", summary.read_text("utf-8"))


def test_a_base_without_the_suite_is_told(checkouts, tmp_path):
    """A pull request that brings the suite passes, and says why there is no table."""
    (tmp_path / "base" / "suites" / "quick.yaml").unlink()
    assert run("Run the suite on either side", checkouts) == 0
    assert run("Compare", checkouts) == 0
    assert "The base has no suites/quick.yaml" in Path(checkouts["GITHUB_STEP_SUMMARY"]).read_text("utf-8")
