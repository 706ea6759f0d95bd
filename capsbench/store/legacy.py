"""Runs of older versions, which hold a line of JSON a case in records.jsonl: import them into a SQLite file.

`capsbench import` puts that file into the run's folder. Otherwise it lies in the user's own cache, never beside the
lines: a run that somebody passed on is read from its lines, not from what came with them.
"""

import hashlib
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from capsbench.errors import BadInput
from capsbench.record.codec import decode
from capsbench.store.database import VERSION, create_database, writing_to
from capsbench.store.write import SharedNames, write_record

LINES: Final = "records.jsonl"
_IMPORTER: Final = 1
"""Raise it with every change of how a line is imported, so that cached imports are made again."""


def cached_import(lines: Path) -> Path:
    """The database with the records of a records.jsonl; made where the cache has none of the file as it is now.

    Raises:
        BadInput: the lines cannot be read, or there is no room to import them.
    """
    try:
        status = lines.stat()
        stamp = (str(lines.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except OSError as error:
        raise BadInput(f"cannot read the run's records: {error.strerror}", str(lines)) from None
    where, what = (_digest(each) for each in (stamp[0], (_IMPORTER, VERSION, *stamp)))
    known = _cache() / f"{where}-{what}.sqlite"
    if not known.is_file():
        import_lines(lines, known)
        for other in known.parent.glob(f"{where}-*.sqlite"):
            if other != known:
                other.unlink(missing_ok=True)
    return known


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def import_lines(lines: Path, database: Path) -> None:
    """Import a records.jsonl; the database appears whole or not at all.

    Raises:
        BadInput: the lines cannot be read, or the database cannot be written.
    """
    temporary = database.with_name(f".{database.name}.{uuid.uuid4().hex}.tmp")
    try:
        create_database(temporary)
        with writing_to(temporary) as connection:
            connection.execute("INSERT INTO run VALUES (?, ?)", [lines.parent.name, "{}"])
            _import(connection, lines)
        temporary.replace(database)
    except (OSError, sqlite3.Error) as error:
        raise BadInput(f"cannot import the run's records into {database}: {error}", str(lines)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _import(connection: sqlite3.Connection, lines: Path) -> None:
    names = SharedNames(connection)
    for number, line in _numbered(lines):
        is_newer = False
        try:
            record = decode(line, "")
        except BadInput:
            record, is_newer = None, True
        if record is not None:
            connection.execute("SAVEPOINT line")
            try:
                write_record(connection, names, record, None)
            except (OverflowError, UnicodeError):  # a whole number beyond 64 bits
                connection.execute("ROLLBACK TO line")
                names = SharedNames(connection)
                record = None
            connection.execute("RELEASE line")
        if record is None:
            connection.execute("INSERT INTO skipped_line VALUES (?, ?)", [number, is_newer])


def _numbered(lines: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that hold something, with their numbers from 1."""
    with lines.open("rb", buffering=1 << 20) as file:
        yield from ((number, line) for number, line in enumerate(file, 1) if not line.isspace())


def _cache() -> Path:
    """The user's cache, or a folder for this process alone where that cannot be written."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(root) / "capsbench" / "imported"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(_temporary().name)


@cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    """Removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="capsbench-")
