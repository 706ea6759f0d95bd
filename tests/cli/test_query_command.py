"""`capsbench query`, `import` and `export --format jsonl`: a run as a database, and as lines."""

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import case, record

from capsbench.cli import main
from capsbench.record.codec import decode, encode
from capsbench.store.run import RunStore
from capsbench.store.runs import create


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run a command on a run with two records; its exit code and what it printed."""
    store = create(tmp_path, {"suites": []})
    for seed in (0, 1):
        store.append(record(case(seed=seed)))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["capsbench", *arguments, "--results", str(tmp_path)])
        code = main()
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_rows_are_printed_in_three_formats(call):
    """A table for people, csv and json for programs."""
    sql = "SELECT network, seed, train_step_seconds, NULL AS missing FROM v_cost ORDER BY seed"
    code, table = call("query", "latest", sql)
    assert code == 0
    assert table.split()[:6] == ["2", "rows", "network", "seed", "train_step_seconds", "missing"]
    names, *rows = csv.reader(call("query", "latest", sql, "--format", "csv")[1].splitlines())
    assert names == ["network", "seed", "train_step_seconds", "missing"]
    told = json.loads(call("query", "latest", sql, "--format", "json")[1])
    assert [[str("" if value is None else value) for value in row.values()] for row in told] == rows
    assert [row["seed"] for row in told] == [0, 1]
    assert json.loads(call("query", "latest", "SELECT 1 WHERE 0", "--format", "json")[1]) == []


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT absent", "no such column: absent"),
        ("DELETE FROM record", "readonly"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "a SELECT is expected"),
        ("PRAGMA query_only = OFF", "a SELECT is expected"),
    ],
)
def test_what_is_no_query_is_refused(call, sql, says):
    """One sentence and 64; nothing is changed."""
    code, text = call("query", "latest", sql)
    assert code == 64
    assert says in text
    assert text.count("\n") == 1
    assert json.loads(call("query", "latest", "SELECT count(*) AS n FROM record", "--format", "json")[1]) == [{"n": 2}]


def test_lines_are_exported_and_imported_again(call, tmp_path):
    """What `export --format jsonl` writes is a records.jsonl that `import` turns into the same records."""
    [folder] = (tmp_path / "runs").iterdir()
    before = list(RunStore(folder).records())
    assert call("export", "latest", "--format", "jsonl", "--output", str(folder / "records.jsonl"))[0] == 0
    assert [decode(line, "") for line in (folder / "records.jsonl").read_bytes().splitlines()] == before
    assert "has its records in SQLite already" in call("import", "latest")[1]
    (folder / "run.sqlite").unlink()
    assert call("import", "latest")[0] == 0
    assert (folder / "run.sqlite").is_file()
    assert list(map(encode, RunStore(folder).records())) == list(map(encode, before))
