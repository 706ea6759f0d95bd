"""Records that lie in records.jsonl: what most tables look at is read at once, ops and layers when they are asked for.

Of a line the profiled steps are by far the most, and hardly a table looks at more than a few of them. A line is read as
`codec.encode` writes it; of another make it is read whole.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record import skim
from capsbench.record.packed import pack
from capsbench.record.schema import CaseKey, DataParallel, Fingerprint, Parity, Record, SplitFacts

_T = TypeVar("_T")

Decode = Callable[[bytes], Record | None]
"""Reads a whole line; None where it is damaged."""

_KEPT: Final = 64
"""Whole records that are kept, for tables that look at one more than once."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line lies: its number (from 1), its first byte, how many it has."""

    number: int
    at: int
    size: int


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
        self._layouts: dict[Any, Any] = {}
        self._wholes: OrderedDict[int, Record | None] = OrderedDict()

    def record(self, line: bytes, place: Place, glob: str | None = None) -> Record | CaseKey | None:
        """What the line at a place says; only its case where that is not like the glob.

        None where it must be read whole.
        """
        parts = skim.parts(line)
        if parts is None:
            return None
        try:
            case: CaseKey = _adapter(CaseKey).validate_json(parts.case)
            if glob is not None and not case.is_like(glob):
                return case
            metrics = pack(pydantic_core.from_json(parts.metrics), self._layouts)
            reason = "" if parts.reason == b'""' else json.loads(parts.reason)
            shared = _tail(parts.tail)
        except (ValidationError, ValueError):
            return None
        if metrics is None or not isinstance(reason, str):
            return None
        found, put = object.__new__(StoredRecord), object.__setattr__
        put(found, "schema", parts.schema)
        put(found, "run", parts.run)
        put(found, "case", case)
        put(found, "status", parts.status)
        put(found, "reason", reason)
        put(found, "metrics", metrics)
        put(found, "data", shared.data)
        put(found, "notes", shared.notes)
        put(found, "fingerprint", shared.fingerprint)
        put(found, "_lacks", parts.lacks)
        put(found, "_checks", parts.checks)
        put(found, "_place", place)
        put(found, "_shelf", self)
        return found

    def line(self, place: Place) -> bytes:
        """The line at a place."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(place.at)
            return file.read(place.size)

    def whole(self, place: Place) -> Record | None:
        """The record at a place with everything in it; None where its line is damaged, which is then known."""
        if place.at in self._wholes:
            self._wholes.move_to_end(place.at)
            return self._wholes[place.at]
        found = self._decode(self.line(place))
        self._wholes[place.at] = found
        if len(self._wholes) > _KEPT:
            self._wholes.popitem(last=False)
        if found is None:
            self._damaged(place.number)
        return found


class StoredRecord(Record):
    """A record whose line is read whole when its ops or layers are asked for; made by `Shelf.record`.

    Where the line turns out to be damaged then, there are none.
    """

    __slots__ = ("_checks", "_lacks", "_place", "_shelf")

    _lacks: frozenset[str]
    _checks: bytes
    _place: Place
    _shelf: Shelf

    def whole(self) -> Record:
        """The record as an ordinary one; without ops and layers where its line is damaged."""
        found = self._shelf.whole(self._place)
        return found or Record(run=self.run, case=self.case, status=self.status, fingerprint=self.fingerprint)

    def op_calls(self) -> int | None:
        """The calls of all ops of the profiled step; None where it was not profiled."""
        return None if "ops" in self._lacks else skim.op_calls(self._shelf.line(self._place))

    @property
    def parity(self) -> Parity | None:
        """As in `Record`."""
        return self._checked().parity

    @property
    def data_parallel(self) -> DataParallel | None:
        """As in `Record`."""
        return self._checked().data_parallel

    def _checked(self) -> "_Checks":
        found: _Checks = _adapter(_Checks).validate_json(self._checks)
        return found

    @property
    def ops(self) -> tuple[OpEvent, ...]:
        """As in `Record`."""
        return () if "ops" in self._lacks else self.whole().ops

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
        return self.whole().alive_at_peak

    @property
    def forward_profile(self) -> StepProfile | None:
        """As in `Record`."""
        return None if "forward_profile" in self._lacks else self.whole().forward_profile

    @property
    def equations(self) -> tuple[LayerCost, ...]:
        """As in `Record`."""
        return self.whole().equations

    @property
    def distributions(self) -> tuple[Distribution, ...]:
        """As in `Record`."""
        return () if "distributions" in self._lacks else self.whole().distributions

    @property
    def routing(self) -> tuple[RoutingIteration, ...]:
        """As in `Record`."""
        return () if "routing" in self._lacks else self.whole().routing


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of a record, which many share."""

    data: dict[str, SplitFacts]
    notes: tuple[str, ...]
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class _Checks:
    """What was checked before anything was timed."""

    parity: Parity | None
    data_parallel: DataParallel | None = None


@lru_cache(maxsize=10_000)
def _tail(text: bytes) -> _Tail:
    found: _Tail = _adapter(_Tail).validate_json(text)
    return found


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(kind)
