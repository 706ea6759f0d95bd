"""A run on disk: one folder with what was asked (run.json), one line a case (records.jsonl) and larger artifacts.

Lines are appended and synced as cases end, so that a crash loses at most the case that was running. A line that such a
crash tore is skipped by readers and never joined to the next one.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from capsbench.dataset.atomic import sync_folder, whole_file
from capsbench.errors import BadInput, Unwritten, unknown_name
from capsbench.measure.privacy import scrubbed
from capsbench.record import skim
from capsbench.record.codec import decode, encode, strict
from capsbench.record.columns import Place
from capsbench.record.kept_catalog import catalog_of, kept_catalog
from capsbench.record.log import append_line, holding_room
from capsbench.record.schema import Record
from capsbench.record.skim import Glimpse
from capsbench.record.stored import Shelf
from capsbench.record.stored_rows import Lines, StoredRecords, latest, like
from capsbench.record.turn import alone_in

LATEST = "latest"
_RUN_TIME = "%Y%m%dT%H%M%SZ"
_MOST_SET_BACK = timedelta(days=1)
_BUFFER_BYTES = 1 << 20  # lines of some ten kilobytes


class RunStore:
    """One run's folder.

    Attributes:
        folder: `results/runs/<run id>`.
        run_id: UTC time of its start and six random digits.
        damaged_lines: numbers (from 1) of the lines that the last full reading had to skip.
        newer_lines: of those that `glimpses` skipped because a newer capsbench wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_id = folder.name
        self.damaged_lines: tuple[int, ...] = ()
        self.newer_lines: tuple[int, ...] = ()

    def header(self) -> dict[str, Any]:
        """What run.json says: suites as resolved, environment, machine, commit, versions.

        Raises:
            BadInput: run.json is missing or no JSON object.
        """
        path = self.folder / "run.json"
        try:
            header = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read what the run was: {_reason(error)}", str(path)) from None
        if not isinstance(header, dict):
            raise BadInput("a JSON object is expected", str(path))
        return header

    def append(self, record: Record) -> None:
        """Add the record of a case that has ended, and wait until it is on the disk.

        Raises:
            Unwritten: the disk is full or gone; whether the record is safe all the same, its message says.
        """
        append_line(self._records_path(), encode(record))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run for this process alone, and room for its last records, while the block runs.

        Raises:
            BadInput: another process writes this run.
            Unwritten: the folder cannot be written, or its disk is full.
        """
        with alone_in(self.folder), holding_room(self.folder):
            yield

    def records(self) -> Iterator[Record]:
        """Every record in the order written, one at a time; damaged lines are counted in `damaged_lines`.

        Raises:
            BadInput: a record of a newer capsbench.
        """
        damaged: list[int] = []
        for number, line in self._lines():
            record = decode(line, f"{self._records_path()}:{number}")
            if record is None:
                damaged.append(number)
            else:
                yield record
        self.damaged_lines = tuple(damaged)

    def latest_records(self, glob: str | None = None) -> tuple[Record, ...]:
        """The last record of each case, in the order in which the cases first ended.

        Args:
            glob: only of cases like this, as `CaseKey.is_like` means it.

        Raises:
            BadInput: cases have ended, but none is like the glob.
        """
        return self._latest(self.records(), glob)

    def stored_records(self, glob: str | None = None) -> Sequence[Record]:
        """As `latest_records`, of any number of cases: of a line ops and layers are read when they are asked for.

        A line that is found to be damaged only then is counted in `damaged_lines` from then on.
        """
        self.damaged_lines = ()
        if not self._records_path().is_file():
            return ()
        records = self._stored()
        chosen = records if glob is None else like(records, glob)
        if records and not chosen:
            raise self._unlike(glob, records[0].case.id)
        return chosen

    def _stored(self) -> StoredRecords:
        """The last record of each case; lines of another make are read whole."""
        shelf, catalog = self._shelf(), catalog_of(self._records_path())
        odd = {row: (place.number, shelf.read(place)) for row, place in catalog.odd()}
        self.damaged_lines = tuple(number for number, record in odd.values() if record is None)
        lines = Lines(catalog, shelf, {row: record for row, (_, record) in odd.items() if record is not None})
        damaged = {row for row, (_, record) in odd.items() if record is None}
        return latest(lines, [row for row in range(len(catalog.columns.lines)) if row not in damaged])

    def _latest(self, records: Iterable[Record], glob: str | None) -> tuple[Record, ...]:
        """The last of each case."""
        by_id = {each.case.id: each for each in records}
        chosen = tuple(each for each in by_id.values() if glob is None or each.case.is_like(glob))
        if by_id and not chosen:
            raise self._unlike(glob, next(iter(by_id)))
        return chosen

    def _unlike(self, glob: str | None, first: str) -> BadInput:
        return BadInput(f"no case of {self.run_id} is like {glob!r}; the first is {first!r}", "--case")

    def _found_damaged(self, number: int) -> None:
        self.damaged_lines = tuple(sorted({*self.damaged_lines, number}))

    def glimpses(self, metric: str) -> Iterator[Glimpse]:
        """What every record says of one metric, in the order written and without the rest of it.

        Lines that are damaged, and those of a newer capsbench, are left out and counted.
        """
        damaged: list[int] = []
        newer: list[int] = []
        for number, line in self._lines():
            found = skim.glimpse(line, metric)
            if found is None:
                try:
                    record = decode(line, "")
                except BadInput:
                    newer.append(number)
                    continue
                found = skim.of_record(record, metric) if record is not None else None
            if found is None:
                damaged.append(number)
            else:
                yield found
        self.damaged_lines, self.newer_lines = tuple(damaged), tuple(newer)

    def metric_names(self) -> set[str]:
        """What the metrics of the records are called, as far as their lines are as capsbench writes them."""
        return {name for _, line in self._lines() for name in skim.metric_names(line)}

    def finished(self) -> set[str]:
        """Ids of the cases that need not run again: their last record's status is not `crash`."""
        status = dict(self._outcomes())
        return {case for case, ended in status.items() if ended != "crash"}

    def _outcomes(self) -> Iterator[tuple[str, str]]:
        """Case id and status of each line that is not damaged."""
        path = self._records_path()
        catalog = kept_catalog(path) if path.is_file() else None
        if catalog is None:
            yield from filter(None, (_outcome(line, f"{path}:{number}") for number, line in self._lines()))
            return
        shelf = self._shelf()
        for found in catalog.outcomes():
            if not isinstance(found, Place):
                yield found
            elif (record := shelf.read(found)) is not None:
                yield record.case.id, record.status

    def artifacts(self, case_id: str) -> Path:
        """The folder for a case's larger files; it is created.

        Raises:
            BadInput: an id that cannot be the name of a folder.
            Unwritten: it cannot be made.
        """
        if case_id in {"", ".", ".."} or re.search(r"[/\\\0]", case_id):
            raise BadInput(f"{case_id!r} cannot name a folder; a case id holds no path separators")
        folder = self.folder / "artifacts" / case_id
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unwritten(folder, error) from None
        return folder

    def discard_empty(self) -> None:
        """Remove the folder of a run in which no case has ended."""
        if not self._records_path().exists():
            shutil.rmtree(self.folder)

    def _shelf(self) -> Shelf:
        path = self._records_path()
        return Shelf(path, lambda line, number: decode(line, f"{path}:{number}"), self._found_damaged)

    def _records_path(self) -> Path:
        return self.folder / "records.jsonl"

    def _lines(self, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
        """The lines with their numbers, from 1; without those that hold nothing, unless these are asked for."""
        if self._records_path().is_file():
            with self._records_path().open("rb", buffering=_BUFFER_BYTES) as file:
                yield from ((number, line) for number, line in enumerate(file, 1) if blank or not line.isspace())


def create(results: Path, header: dict[str, Any]) -> RunStore:
    """Start a run: its folder appears at once, with run.json in it.

    Args:
        results: the folder above `runs`; made where it is missing.
        header: plain data for run.json; the run's id is added, and what names a person or a host taken out.

    Raises:
        BadInput: the folder cannot be made or written.
    """
    run_id = f"{_start(results):{_RUN_TIME}}-{secrets.token_hex(3)}"
    temporary = results / "runs" / f".{run_id}.tmp"
    text = json.dumps({"run": run_id, **strict(scrubbed(header))}, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        temporary.mkdir(parents=True)
        with whole_file(temporary / "run.json") as file:
            file.write(text.encode())
        folder = temporary.rename(results / "runs" / run_id)
        sync_folder(folder.parent)
        return RunStore(folder)
    except OSError as error:
        raise BadInput(f"cannot write results there: {_reason(error)}", str(results)) from None


def all_runs(results: Path) -> tuple[RunStore, ...]:
    """The stored runs, oldest first."""
    return tuple(RunStore(results / "runs" / name) for name in _run_ids(results))


def open_run(results: Path, run: str) -> RunStore:
    """Find a stored run.

    Args:
        results: the folder above `runs`.
        run: a folder, a run id, the beginning of one, or `latest`.

    Raises:
        BadInput: no run, or more than one, is meant.
    """
    runs = _run_ids(results)
    if run == LATEST and runs:
        return RunStore(results / "runs" / runs[-1])
    if run in runs:
        return RunStore(results / "runs" / run)
    if run and (Path(run) / "run.json").is_file():
        return RunStore(Path(run).resolve())
    begun = [name for name in runs if run and name.startswith(run)]
    if len(begun) == 1:
        return RunStore(results / "runs" / begun[0])
    if begun:
        raise BadInput(f"run {run!r} could be any of {len(begun)}, among them {begun[0]} and {begun[-1]}")
    if not runs:
        raise BadInput(f"there is no run {run!r}, nor any other, in {results / 'runs'}")
    newest = unknown_name("run", run, [*runs[-5:], LATEST])
    raise BadInput(f"{newest} ({len(runs):,} in {results / 'runs'}, the newest are shown)")


def _outcome(line: bytes, where: str) -> tuple[str, str] | None:
    """Case id and status of a line; None where it is damaged."""
    found = skim.outcome(line)
    if found is None and (record := decode(line, where)) is not None:
        return record.case.id, record.status
    return found


def _start(results: Path) -> datetime:
    """When a run starts: now, or just after the newest run where the clock has been set back since.

    So the newest run stays the last one. A run more than a day ahead was misdated itself, and is not followed.
    """
    now = datetime.now(UTC)
    try:
        newest = datetime.strptime(_run_ids(results)[-1].partition("-")[0], _RUN_TIME).replace(tzinfo=UTC)
    except (IndexError, ValueError):  # none yet, or a folder of another name
        return now
    return newest + timedelta(seconds=1) if now < newest < now + _MOST_SET_BACK else now


def _run_ids(results: Path) -> list[str]:
    """The stored runs, oldest first; runs begun in the same second by when run.json was written."""
    found = [path for path in (results / "runs").glob("*/run.json") if not path.parent.name.startswith(".")]
    found.sort(key=lambda path: (path.parent.name.partition("-")[0], path.stat().st_mtime_ns))
    return [path.parent.name for path in found]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
