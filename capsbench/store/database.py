"""Open run.sqlite: which connection writes, which reads, and which schema version each file has."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from capsbench.errors import BadInput

APPLICATION_ID: Final = 0x43617073
"""`Caps` in ASCII: marks a SQLite file as a run of capsbench."""

_PATIENCE_SECONDS: Final = 600.0
"""How long a writer waits for readers, and a reader for a writer, before it gives up."""

_MIGRATIONS: Final[tuple[str, ...]] = (
    # Parts two and three of parity.
    "".join(
        f"ALTER TABLE record ADD COLUMN {column};\n"
        for column in (
            "perturbed_images INTEGER", "perturbed_batch INTEGER", "perturbed_forward_error REAL",
            "perturbed_gradient_error REAL", "perturbed_draws INTEGER", "steps_taken INTEGER", "steps_batch INTEGER",
            "steps_error REAL", "steps_limit REAL", "steps_worst TEXT", "parity_failure TEXT",
        )
    ),
)  # fmt: skip
"""SQL that takes version n + 1 to n + 2, in order; `schema.sql` is always the newest version."""

VERSION: Final = 1 + len(_MIGRATIONS)


def create_database(path: Path) -> None:
    """Create an empty run.sqlite.

    Raises:
        sqlite3.Error: the folder cannot be written, or its disk is full.
    """
    script = files("capsbench.store").joinpath("schema.sql").read_text(encoding="utf-8")
    with closing(_connect(path, "rwc")) as connection:
        connection.executescript(
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};\nBEGIN;\n{script}\nCOMMIT;"
        )


@contextmanager
def writing_to(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an existing file, in one transaction that is on the disk when the block ends.

    Raises:
        sqlite3.Error: the file is gone, is no database, cannot be written, or its disk is full.
        BadInput: a newer capsbench wrote it.
    """
    with closing(_connect(path, "rw")) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection, path)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing.

    Raises:
        BadInput: the file cannot be opened, is no run of capsbench, is damaged, or a newer capsbench wrote it.
    """
    try:
        connection = _connect(path, _mode_to_read(path))
        connection.execute("PRAGMA query_only = ON")
        _check(connection, path)
    except sqlite3.Error as error:
        raise BadInput(f"cannot read the run's records: {error}", str(path)) from None
    return connection


@contextmanager
def reading_from(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that changes nothing, while the block runs.

    Raises:
        BadInput: as `connect_to_read`, and where the file turns out to be damaged.
    """
    with closing(connect_to_read(path)) as connection:
        try:
            yield connection
        except (sqlite3.Error, TypeError, KeyError, OverflowError) as error:
            raise BadInput(f"cannot read the run's records: {error}", str(path)) from None


def _mode_to_read(path: Path) -> str:
    """Read-only, unless a killed writer left a journal, which only a writable connection can roll back."""
    return "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(address, _PATIENCE_SECONDS, isolation_level=None, uri=True)


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version.

    Raises:
        BadInput: it is no run of capsbench, or of a newer one.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version < 1:
        raise BadInput("a SQLite file, but not a run of capsbench", str(path))
    if version > VERSION:
        raise BadInput(f"a newer capsbench wrote this (schema {version}, this one knows up to {VERSION})", str(path))
    return int(version)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the tables of an older version up to date."""
    for version, script in enumerate(_MIGRATIONS[_check(connection, path) - 1 :], _check(connection, path) + 1):
        connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;")
