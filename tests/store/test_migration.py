"""Runs that an older capsbench stored."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import record

from capsbench.store.database import VERSION, writing_to
from capsbench.store.runs import create


def test_a_file_of_version_1_is_read_and_brought_up_to_date(tmp_path):
    """Its records say nothing of later parts of parity; writing to the run adds the columns in their places."""
    store = create(tmp_path, {})
    store.append(record())
    database = store.folder / "run.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('record')")]
        later = [name for name in names if name.startswith(("perturbed_", "steps_", "parity_failure"))]
        for name in later:
            connection.execute(f"ALTER TABLE record DROP COLUMN {name}")
        connection.execute("PRAGMA user_version = 1")
    [old] = store.latest_records()
    assert (len(later), old.parity.perturbed, old.parity.train_steps, old.parity.failure) == (11, None, None, "")
    with writing_to(database) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM pragma_table_info('record')")]
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert found == names
    assert store.latest_records() == (old,)
