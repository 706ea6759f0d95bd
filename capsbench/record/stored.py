"""Records that lie in records.jsonl: what most tables look at is read at once, ops and layers when they are asked for.

Of a line the profiled steps are by far the most, and hardly a table looks at more than a few of them. The rest comes
from the catalog of the file.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.columns import ParityErrorName, Place, Row
from capsbench.record.schema import DataParallel, Fingerprint, Parity, Record, SplitFacts

Decode = Callable[[bytes, int], Record | None]
"""Reads a whole line, of which it is told the number; None where it is damaged."""

_KEPT_BYTES: Final = 8 << 20
"""Of lines whose whole records are kept, for tables that look at one more than once; these take a few times more."""


class Shelf:
    """The lines of one records.jsonl that records are read from.

    Args:
        path: of the file.
        decode: reads a whole line.
        damaged: is told the number of a line that turns out to be damaged when the whole of it is asked for.
    """

    def __init__(self, path: Path, decode: Decode, damaged: Callable[[int], None]) -> None:
        self._path = path
        self._decode = decode
        self._damaged = damaged
        self._wholes: OrderedDict[int, tuple[Record | None, int]] = OrderedDict()
        self._kept_bytes = 0

    def record(self, row: Row) -> Record:
        """The record of a row of the file's catalog."""
        found, put = object.__new__(StoredRecord), object.__setattr__
        put(found, "case", row.case)
        put(found, "status", row.kind.status)
        put(found, "metrics", row.metrics)
        put(found, "row", row)
        put(found, "_shelf", self)
        return found

    def _line(self, place: Place) -> bytes:
        """The line at a place."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(place.at)
            return file.read(place.size)

    def read(self, place: Place) -> Record | None:
        """The record at a place, read whole; None where its line is damaged."""
        return self._decode(self._line(place), place.number)

    def whole(self, place: Place) -> Record | None:
        """As `read`, and kept for a while; a line that is damaged is then known."""
        if place.at in self._wholes:
            self._wholes.move_to_end(place.at)
            return self._wholes[place.at][0]
        found = self.read(place)
        self._wholes[place.at] = found, place.size
        self._kept_bytes += place.size
        while self._kept_bytes > _KEPT_BYTES and len(self._wholes) > 1:
            self._kept_bytes -= self._wholes.popitem(last=False)[1][1]
        if found is None:
            self._damaged(place.number)
        return found


class StoredRecord(Record):
    """A record whose line is read whole when its ops or layers are asked for; made by `Shelf.record`.

    Where the line turns out to be damaged then, there are none.

    Attributes:
        row: what the catalog says of the line.
    """

    __slots__ = ("_shelf", "row")

    row: Row
    _shelf: Shelf

    def whole(self) -> Record:
        """The record as an ordinary one; without ops and layers where its line is damaged."""
        found = self._shelf.whole(self.row.place)
        return found or Record(run=self.run, case=self.case, status=self.status, fingerprint=self.fingerprint)

    @property
    def schema(self) -> int:
        """As in `Record`."""
        return self.row.kind.schema

    @property
    def run(self) -> str:
        """As in `Record`."""
        return self.row.kind.run

    @property
    def reason(self) -> str:
        """As in `Record`."""
        return self.row.kind.reason

    @property
    def data(self) -> dict[str, SplitFacts]:
        """As in `Record`."""
        return self.row.kind.data

    @property
    def notes(self) -> tuple[str, ...]:
        """As in `Record`."""
        return self.row.kind.notes

    @property
    def fingerprint(self) -> Fingerprint:
        """As in `Record`."""
        return self.row.kind.fingerprint

    @property
    def parity(self) -> Parity | None:
        """As in `Record`."""
        return self.row.checks.parity

    @property
    def data_parallel(self) -> DataParallel | None:
        """As in `Record`."""
        return self.row.checks.data_parallel

    @property
    def ops(self) -> tuple[OpEvent, ...]:
        """As in `Record`."""
        return () if "ops" in self.row.kind.lacks else self.whole().ops

    @property
    def step_profile_seconds(self) -> float | None:
        """As in `Record`."""
        return self.whole().step_profile_seconds

    @property
    def step_profile_bytes(self) -> int | None:
        """As in `Record`."""
        return self.whole().step_profile_bytes

    @property
    def step_bare_seconds(self) -> float | None:
        """As in `Record`."""
        return self.whole().step_bare_seconds

    @property
    def alive_at_peak(self) -> tuple[LiveTensor, ...]:
        """As in `Record`."""
        return () if "alive_at_peak" in self.row.kind.lacks else self.whole().alive_at_peak

    @property
    def forward_profile(self) -> StepProfile | None:
        """As in `Record`."""
        return None if "forward_profile" in self.row.kind.lacks else self.whole().forward_profile

    @property
    def equations(self) -> tuple[LayerCost, ...]:
        """As in `Record`."""
        return self.whole().equations

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """As in `Record`."""
        return () if "distributions" in self.row.kind.lacks else self.whole().distributions

    @property
    def routing(self) -> tuple[RoutingIteration, ...]:
        """As in `Record`."""
        return () if "routing" in self.row.kind.lacks else self.whole().routing


def op_calls(record: Record) -> int | None:
    """How many calls its profiled step made; None where no step was profiled."""
    if isinstance(record, StoredRecord):
        return record.row.op_calls
    return sum(event.calls for event in record.ops) if record.ops else None


def whole_of(record: Record) -> Record:
    """The record, its line read whole, for whoever asks for several of its parts."""
    return record.whole() if isinstance(record, StoredRecord) else record


def may_have(record: Record, part: str) -> bool:
    """Whether a field that is left out of catalogs may hold something; without reading the line."""
    return part not in record.row.kind.lacks if isinstance(record, StoredRecord) else bool(getattr(record, part))


def op_names(record: Record) -> frozenset[str]:
    """The canonical ops of its profiled step."""
    return record.row.kind.op_names if isinstance(record, StoredRecord) else frozenset(each.op for each in record.ops)


def parity_error(record: Record, name: ParityErrorName) -> float | None:
    """How far a realization lay from the oracle; None where that was not measured."""
    if isinstance(record, StoredRecord):
        return record.row.parity_error(name)
    error: float | None = getattr(record.parity, name, None)
    return error
