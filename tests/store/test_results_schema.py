"""The tables of run.sqlite are those that docs/results-schema.md promises."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

from capsbench.store.database import VERSION
from capsbench.store.runs import create

DOCUMENT = (Path(__file__).parents[2] / "docs" / "results-schema.md").read_text("utf-8")


def test_every_table_and_column_is_described(tmp_path):
    """The document lists exactly the tables, views and columns that a new run has, in their order."""
    described = {
        table: re.findall(r"^\| (\w+) \| ", rows, re.MULTILINE)[1:]
        for table, rows in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
        if table != "Views"
    }
    views = re.findall(r"^\| (v_\w+) \| ([\w, ]+) \|", DOCUMENT, re.MULTILINE)
    described |= {view: columns.split(", ") for view, columns in views}
    with closing(sqlite3.connect(create(tmp_path, {}).folder / "run.sqlite")) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
        ]
        found = {
            name: [column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", [name])]
            for name in names
        }
    assert described == found
    assert f"Version {VERSION} of" in DOCUMENT
