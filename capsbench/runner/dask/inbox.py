"""What a group on a station has to say, on its way into the run: files are written, records appended, stages shown.

A station is believed where it speaks of a case that it was given, and nowhere else.
"""

import re
from dataclasses import replace
from typing import Protocol

from pydantic import ValidationError

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput, Unwritten
from capsbench.record.codec import decode
from capsbench.runner.dask.parcel import Chunk, Ended, Over, Stage, decode_news
from capsbench.runner.dask.placing import Errand, Station
from capsbench.runner.schedule import Listener, Store
from capsbench.suite.cases import Case

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Board(Listener, Protocol):
    """Who wants to know what each worker does."""

    def waiting(self, what: str) -> None:
        """Nothing runs, for this reason."""

    def worker_stage(self, worker: str, case: Case, stage: str, done: int, total: int, detail: str) -> None:
        """As `case_stage`, on this worker."""

    def worker_free(self, worker: str) -> None:
        """Nothing runs there now."""


class Garbled(Exception):  # noqa: N818 - an answer that is none, which costs its sender the group
    """What came is not what a station of ours sends; the text says how, after the station's name."""


class Inbox:
    """Takes what one group at one station sends."""

    def __init__(self, errand: Errand, station: Station, store: Store, board: Board) -> None:
        self._cases = {case.id: case for case in errand.cases}
        self._station, self._store, self._board = station, store, board
        self._files: dict[tuple[str, str], bytearray] = {}
        self._unwritten: dict[str, str] = {}

    def left(self) -> tuple[Case, ...]:
        """The cases without a record."""
        return tuple(self._cases.values())

    def take(self, text: str, payload: bytes) -> Over | None:
        """Take one piece of news; the last is handed back.

        Raises:
            Garbled: it cannot be.
            Unwritten: the record could not be kept.
        """
        try:
            news = decode_news(text)
        except ValidationError:
            raise Garbled("sent what this capsbench does not understand") from None
        if isinstance(news, Over):
            return news
        case = self._cases.get(news.case)
        if case is None:
            raise Garbled("spoke of a case that it was not given")
        match news:
            case Stage():
                self._board.worker_stage(self._station.name, case, news.stage, news.done, news.total, news.detail)
            case Chunk():
                self._collect(case, news, payload)
            case Ended():
                self._record(case, payload)
        return None

    def _collect(self, case: Case, chunk: Chunk, payload: bytes) -> None:
        if _FILE_NAME.fullmatch(chunk.name) is None:
            raise Garbled(f"sent a file that it calls {chunk.name!r}")
        data = self._files.setdefault((case.id, chunk.name), bytearray())
        data += payload
        if not chunk.last:
            return
        del self._files[case.id, chunk.name]
        try:
            with whole_file(self._store.artifacts(case.id) / chunk.name) as file:
                file.write(data)
        except (OSError, Unwritten) as error:  # the record may find room where its files did not
            self._unwritten[case.id] = f"files of the case are missing: {error}"

    def _record(self, case: Case, line: bytes) -> None:
        try:
            record = decode(line, self._station.name)
        except BadInput:
            record = None
        if record is None or record.case != case.key() or record.run != self._store.run_id:
            raise Garbled("sent a record that is not of its case")
        if case.id in self._unwritten:
            record = replace(record, notes=(*record.notes, self._unwritten[case.id]))
        self._store.append(record)
        del self._cases[case.id]
        self._board.finished(record)
