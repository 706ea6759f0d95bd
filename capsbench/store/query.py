"""Run SQL of the user's on a run, which it cannot change."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from capsbench.errors import BadInput
from capsbench.store.database import connect_to_read


@contextmanager
def selected(database: Path, sql: str) -> Iterator[tuple[tuple[str, ...], Iterator[Sequence[object]]]]:
    """The names of a query's columns and its rows, read as they are asked for.

    Args:
        database: a run.sqlite.
        sql: one statement that returns rows.

    Raises:
        BadInput: it is no such statement, or would change something.
    """
    with closing(connect_to_read(database)) as connection:
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise BadInput("a SELECT is expected, which returns rows", "SQL")
            yield tuple(column[0] for column in cursor.description), iter(cursor)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(str(error), "SQL") from None
