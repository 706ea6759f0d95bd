"""A run's folder: run.json says what was asked, run.sqlite has a record a case, artifacts/ has larger files.

A record is on the disk before `RunStore.append` returns, whole or not at all.
"""

import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from errno import EIO, ENOENT, ENOSPC, EROFS
from pathlib import Path
from typing import Any, Final

from capsbench.errors import BadInput, Unwritten
from capsbench.measure.privacy import scrubbed
from capsbench.metrics import OP_CALLS
from capsbench.record.schema import SCHEMA, CaseKey, Fingerprint, Metric, Record
from capsbench.store.database import reading_from, writing_to
from capsbench.store.folder import locked, release_space, space_reserved
from capsbench.store.legacy import LINES, cached_import, import_lines
from capsbench.store.read import CASE, fingerprint_from, read_records
from capsbench.store.records import stored_records
from capsbench.store.write import SharedNames, write_record, write_start

DATABASE: Final = "run.sqlite"


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a record says of one metric.

    Attributes:
        case: which case it is of.
        status: how that ended.
        fingerprint: the record's.
        metric: None where the record has no such metric; without its samples.
    """

    case: CaseKey
    status: str
    fingerprint: Fingerprint
    metric: Metric | None


class RunStore:
    """One run's folder.

    Attributes:
        folder: `results/runs/<run id>`.
        run_id: UTC time of its start and six random digits.
        damaged_lines: numbers (from 1) of the lines of an older run's records.jsonl that the last reading skipped.
        newer_lines: of those that `glimpses` skipped because a newer capsbench wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.damaged_lines: tuple[int, ...] = ()
        self.newer_lines: tuple[int, ...] = ()
        self._start: int | None = None

    def header(self) -> dict[str, Any]:
        """What run.json says: suites as resolved, environment, machine, commit, versions.

        Raises:
            BadInput: run.json is missing or no JSON object.
        """
        path = self.folder / "run.json"
        try:
            header = json.loads(path.read_bytes())
        except RecursionError:
            raise BadInput("cannot read what the run was: nested too deeply", str(path)) from None
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read what the run was: {reason(error)}", str(path)) from None
        if not isinstance(header, dict):
            raise BadInput("a JSON object is expected", str(path))
        return header

    def append(self, record: Record) -> None:
        """Add the record of a case that has ended, or replace the case's older one, and wait until it is on the disk.

        Raises:
            BadInput: a whole number in it does not fit into 64 bits.
            Unwritten: the disk is full or gone; whether the record is safe all the same, its message says.
        """
        try:
            self._append(record)
        except sqlite3.Error as error:
            if not _is_full(error) or not release_space(self.folder):
                raise self._unwritten(error) from None
            try:
                self._append(record)
            except sqlite3.Error as again:
                raise self._unwritten(again) from None
            raise self._unwritten(error, kept=True) from None

    def _append(self, record: Record) -> None:
        with writing_to(self._database()) as connection:
            try:
                write_record(connection, SharedNames(connection), record, self._start)
            except OverflowError:
                raise BadInput("a record with a whole number beyond 64 bits", record.case.id) from None

    @contextmanager
    def writing(self, start: dict[str, Any] | None = None) -> Iterator[None]:
        """Hold the run for this process alone, and disk space for its last record, while the block runs.

        Args:
            start: what run.json would say if the run began now: when, environment, suites; run.json's by default.

        Raises:
            BadInput: another process writes this run.
            Unwritten: the folder cannot be written, or its disk is full.
        """
        with locked(self.folder), space_reserved(self.folder):
            self.import_lines()
            try:
                with writing_to(self._database()) as connection:
                    self._start = write_start(connection, self.header() if start is None else scrubbed(start))
            except sqlite3.Error as error:
                raise self._unwritten(error) from None
            yield

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from writing the run.

        Raises:
            BadInput: another process writes it.
            Unwritten: its folder cannot be written.
        """
        return locked(self.folder)

    def import_lines(self) -> None:
        """Put the records of an older run's records.jsonl into its run.sqlite, unless it has one already.

        Raises:
            BadInput: the lines cannot be read, or the folder cannot be written.
        """
        if not self._database().exists() and self._lines().is_file():
            import_lines(self._lines(), self._database())

    def records(self) -> Iterator[Record]:
        """The record of each case, in the order in which the cases first ended.

        Raises:
            BadInput: the file is damaged, or a newer capsbench wrote it.
        """
        path = self._readable()
        if path is not None:
            with reading_from(path) as connection:
                yield from read_records(connection)

    def latest_records(self, glob: str | None = None) -> tuple[Record, ...]:
        """As `records`, all at once.

        Args:
            glob: only of cases like this, as `CaseKey.is_like` means it.

        Raises:
            BadInput: as for `records`, or cases have ended, but none is like the glob.
        """
        records = tuple(self.records())
        chosen = tuple(each for each in records if glob is None or each.case.is_like(glob))
        if records and not chosen:
            raise self._unlike(glob, records[0].case.id)
        return chosen

    def stored_records(self, glob: str | None = None) -> Sequence[Record]:
        """As `latest_records`, of any number of cases: ops and layers are read when they are asked for."""
        path = self._readable()
        if path is None:
            return ()
        try:
            chosen, first = stored_records(path, glob)
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise BadInput(f"cannot read the run's records: {error}", str(path)) from None
        if first is not None and not chosen:
            raise self._unlike(glob, first)
        return chosen

    def _unlike(self, glob: str | None, first: str) -> BadInput:
        return BadInput(f"no case of {self.run_id} is like {glob!r}; the first is {first!r}", "--case")

    def glimpses(self, metric: str) -> Iterator[Glimpse]:
        """What every record says of one metric, or of `op_calls`, in the order in which the cases first ended.

        Lines of an older run that are damaged, and those of a newer capsbench, are left out and counted.
        """
        path = self._readable(newer_too=True)
        if path is None:
            return
        columns = ("case_id", *CASE, "status", "network_hash", "protocol_hash", "environment_hash", "op_calls")
        query = (
            f"SELECT {', '.join(columns)}, value, unit, direction, kind, low, high FROM record LEFT JOIN"  # noqa: S608
            " (SELECT * FROM metric JOIN metric_name ON metric_name.id = metric_id WHERE name = ?)"
            " ON record_id = record.id ORDER BY record.id"
        )
        with reading_from(path) as connection:
            cursor = connection.execute(query, [metric])
            names = [column[0] for column in cursor.description]
            for values in cursor:
                row = dict(zip(names, values, strict=True))
                case = CaseKey(id=row["case_id"], **{name: row[name] for name in CASE})
                yield Glimpse(case, row["status"], fingerprint_from(row), _glimpsed(row, metric))

    def metric_names(self) -> set[str]:
        """What the metrics of the records are called."""
        path = self._readable(newer_too=True)
        if path is None:
            return set()
        with reading_from(path) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM metric_name")}
            profiled = connection.execute("SELECT 1 FROM record WHERE op_calls IS NOT NULL LIMIT 1").fetchone()
        return names | ({OP_CALLS} if profiled else set())

    def finished(self) -> set[str]:
        """Ids of the cases that need not run again: their status is not `crash`."""
        path = self._readable()
        if path is None:
            return set()
        with reading_from(path) as connection:
            return {case for (case,) in connection.execute("SELECT case_id FROM record WHERE status <> 'crash'")}

    def database(self) -> Path:
        """The SQLite file to read: the run's own, or the cached import of an older run's lines.

        Raises:
            BadInput: there is none.
        """
        path = self._readable()
        if path is None:
            raise BadInput("no records are there", str(self.folder))
        return path

    def artifacts(self, case_id: str) -> Path:
        """The folder for a case's larger files; it is created.

        Raises:
            BadInput: an id that cannot be the name of a folder.
            Unwritten: it cannot be made, or the run's folder is gone.
        """
        if case_id in {"", ".", ".."} or re.search(r"[/\\\0]", case_id):
            raise BadInput(f"{case_id!r} cannot name a folder; a case id holds no path separators")
        folder = self.folder / "artifacts" / case_id
        try:
            if not self.folder.is_dir():
                raise FileNotFoundError(ENOENT, "the run's folder is gone")
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unwritten(folder, error) from None
        return folder

    def discard_empty(self) -> None:
        """Remove the folder of a run in which no case has ended."""
        if self.folder.is_dir() and not self._lines().exists() and next(self.records(), None) is None:
            shutil.rmtree(self.folder)

    def _readable(self, *, newer_too: bool = False) -> Path | None:
        """The SQLite file to read, None where nothing was ever written; also notes which lines were skipped."""
        own, lines = self._database(), self._lines()
        if not own.exists() and not lines.is_file():
            return None
        path = own if own.exists() else cached_import(lines)
        with reading_from(path) as connection:
            skipped = connection.execute("SELECT number, newer FROM skipped_line ORDER BY number").fetchall()
        self.damaged_lines = tuple(number for number, newer in skipped if not newer)
        self.newer_lines = tuple(number for number, newer in skipped if newer)
        if self.newer_lines and not newer_too:
            message = f"a newer capsbench wrote this (this one knows records up to schema {SCHEMA})"
            raise BadInput(message, f"{lines}:{self.newer_lines[0]}")
        return path

    def _database(self) -> Path:
        return self.folder / DATABASE

    def _lines(self) -> Path:
        return self.folder / LINES

    def _unwritten(self, error: sqlite3.Error, *, kept: bool = False) -> Unwritten:
        name = getattr(error, "sqlite_errorname", "")
        if not self._database().exists():
            found = OSError(ENOENT, "the file is gone")
        elif _is_full(error):
            found = OSError(ENOSPC, os.strerror(ENOSPC))
        elif name.startswith("SQLITE_READONLY"):
            found = OSError(EROFS, os.strerror(EROFS))
        else:
            found = OSError(EIO, str(error))
        return Unwritten(self._database(), found, kept=kept)


def _glimpsed(row: dict[str, Any], metric: str) -> Metric | None:
    """The metric in a row of `glimpses`."""
    if metric == OP_CALLS and row["op_calls"] is not None:
        return Metric(value=row["op_calls"], unit="1", direction="lower", kind="exact")
    if row["kind"] is None:
        return None
    value, ends = row["value"], (row["low"], row["high"])
    return Metric(
        value=float(value) if isinstance(value, str) else value,
        unit=row["unit"],
        direction=row["direction"],
        kind=row["kind"],
        interval=None if ends[0] is None else (float(ends[0]), float(ends[1])),
    )


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"


def reason(error: Exception) -> str:
    """Why a file could not be read or written, without its name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
