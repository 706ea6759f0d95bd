"""`capsbench export` on a stored run."""

import os
import sys
from pathlib import Path

import pytest

from capsbench.cli import main
from capsbench.report.export import comma, plainjson
from capsbench.store.runs import create

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import case, record


@pytest.fixture
def results(tmp_path):
    """A results folder with one run."""
    store = create(tmp_path / "results", {"suites": []})
    for each in (record(), record(case("cnn-seed", iterations=None), status="oom")):
        store.append(each)
    return tmp_path / "results"


@pytest.fixture
def call(capsys, monkeypatch, results):
    """Run the command: exit code, stdout, stderr."""

    def run(*arguments):
        command = ["capsbench", "export", "latest", *map(str, arguments), "--results", str(results)]
        monkeypatch.setattr(sys, "argv", command)
        code = main()
        return code, *capsys.readouterr()

    return run


def test_all_tables_are_there_in_each_format(call):
    """What show prints with every section, and the notes beside the statuses, come back from csv and json."""
    titles = {}
    for name, read in (("csv", comma.read), ("json", plainjson.read)):
        code, out, err = call("--format", name)
        assert (code, err) == (0, "")
        titles[name] = [table.title for table in read(out)]
    assert titles["csv"] == titles["json"]
    for title in ("Accuracy", "Cost", "Most expensive ops: em-seed", "Layers: em-seed", "Routing: em-seed", "Notes"):
        assert title in titles["csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
@pytest.mark.parametrize("format_", ["csv", "json", "md", "latex"])
def test_many_processes_write_what_one_does(call, monkeypatch, format_):
    """Byte for byte, however many cores there are."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    alone = call("--format", format_)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr("capsbench.report.export.cores._LEAST", 1)
    assert call("--format", format_) == alone


def test_a_file_is_written_whole(call, tmp_path):
    """Only the tables asked for, and one line says where."""
    path = tmp_path / "accuracy.md"
    code, out, _ = call("--format", "md", "--table", "Acc*", "--output", path)
    assert code == 0
    assert out == f"{path}: 1 table\n"
    assert path.read_text("utf-8").startswith("### Accuracy\n")


def test_mistakes_leave_nothing_behind(call, tmp_path):
    """A table that is not there, a path through a file, another format: 64 and one sentence."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    gone = tmp_path / "file" / "tables.csv"
    for arguments, says in [
        (("--table", "Acuracy"), "no table is called 'Acuracy'; there are Accuracy, "),
        (("--output", gone), "cannot write there"),
        (("--format", "xml"), "csv"),
        (("--case", "vb"), "no case of"),
    ]:
        code, out, err = call(*arguments)
        assert (code, out) == (64, "")
        assert says in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "results"]
