"""A visit leaves a record whatever happens, and no process."""

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from capsbench.record.codec import encode
from capsbench.suite.schema import load_suite
from capsbench.track import visit
from capsbench.track.cells import cells, text_for
from capsbench.track.checkout import Checkout
from capsbench.track.revisions import Repository, Revision

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import record

SUITE = """\
name: tests
dataset: mnist
networks: [networks/linear.yaml]
backends: ["torch:eager"]
batch: [8]
measure: [memory, time]
"""
LINEAR = Path(__file__).parents[1] / "fake" / "linear.yaml"
REVISION = Revision(name="topic", commit="0123456789" * 4, subject="A change")


@pytest.fixture
def cell(tmp_path):
    """One case, of a network that lies beside its suite."""
    (tmp_path / "suites" / "networks").mkdir(parents=True)
    (tmp_path / "suites" / "networks" / "linear.yaml").write_text(LINEAR.read_text("utf-8"))
    path = tmp_path / "suites" / "suite.yaml"
    path.write_text(SUITE)
    return cells([(path, load_suite(path))], {}, None)[0]


@pytest.fixture
def visited(cell, tmp_path, monkeypatch):
    """Visit a revision whose capsbench is a few lines of Python."""

    def run(code, **options):
        (tmp_path / "scratch").mkdir(exist_ok=True)
        around = visit.Surroundings(
            repository=Repository(root=tmp_path, project=Path()), data=tmp_path, scratch=tmp_path / "scratch"
        )
        made = Checkout(folder=tmp_path, environment=dict(os.environ))
        side = visit.Side(name="head", revision=REVISION, root=tmp_path, checkout=made)
        line = [sys.executable, "-c", code, str(tmp_path / "scratch" / "visit-head")]
        monkeypatch.setattr(visit, "_command", lambda *_arguments: line)
        found = visit.visit(side, cell, ("memory",), around, **options)
        assert list((tmp_path / "scratch").iterdir()) == []
        return found

    return run


def leaving(line):
    """Code that leaves a run of one line behind."""
    return (
        "import pathlib, sys\nrun = pathlib.Path(sys.argv[1]) / 'runs' / '20261126T000000Z-000000'\n"
        f"run.mkdir(parents=True)\n(run / 'run.json').write_text('{{}}')\n(run / 'records.jsonl').write_text({line!r})"
    )


def test_what_a_run_leaves_is_the_record(visited):
    """Also where the run ends with 2, as it does where the case failed."""
    told = record(status="oom", reason="too little")
    assert visited(f"{leaving(encode(told).decode())}\nsys.exit(2)") == told


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("import sys; sys.exit('capsbench: no such thing')", "crash", "no such thing"),
        ("import sys; print('capsbench: bad', file=sys.stderr); sys.exit(64)", "unsupported", "bad"),
        ("raise SystemExit(3)", "crash", "its capsbench ended with 3 and left no record"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crash", "ended with -9"),
        (leaving(json.dumps({"schema": 99})), "crash", "a newer capsbench wrote this"),
    ],
)
def test_a_run_that_leaves_none_is_a_record_with_a_reason(visited, cell, code, status, reason):
    """What it said last, or how it ended."""
    found = visited(code)
    assert (found.status, found.case) == (status, cell.case.key())
    assert reason in found.reason


def test_an_interrupted_visit_leaves_no_process(visited):
    """The run is asked to end, and is gone when the interruption goes on."""
    pids = []

    def tell(line):
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        visited("import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(3600)", tell=tell)
    assert not psutil.pid_exists(pids[0])


def test_a_network_by_its_file_is_each_revisions_own(cell, tmp_path):
    """A file in the repository is looked for in the worktree; one outside stays where it is."""
    inside = Repository(root=tmp_path, project=Path())
    assert f"- {tmp_path}/worktree/suites/networks/linear.yaml" in text_for(
        cell, ("time",), inside, tmp_path / "worktree"
    )
    outside = Repository(root=tmp_path / "elsewhere", project=Path())
    text = text_for(cell, ("time",), outside, tmp_path / "worktree")
    assert f"- {tmp_path}/suites/networks/linear.yaml" in text
    assert "measure:\n- time\n" in text
    assert "- memory" not in text
