"""What the lines of records.jsonl say but for their ops and layers, in columns: a kilobyte or less a record.

A line is read as `codec.encode` writes it; one of another make is only noted, for whoever can read it whole.
"""

import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from operator import add
from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import TypeAdapter

from capsbench.record import skim
from capsbench.record.packed import Layout, Layouts, PackedMetrics
from capsbench.record.schema import CaseKey, DataParallel, Fingerprint, Parity, SplitFacts, Status

_T = TypeVar("_T")

_ODD: Final = -1
"""Stands where a line of another make would have a kind and a layout."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line lies: its number (from 1), its first byte, how many it has."""

    number: int
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Kind:
    """What many records have in common.

    Attributes:
        schema: as in `Record`, and so are those that are not told of here.
        lacks: which of the fields left out are empty.
        op_names: of the profiled step.
    """

    schema: int
    run: str
    status: Status
    reason: str
    lacks: frozenset[str]
    op_names: frozenset[str]
    data: dict[str, SplitFacts]
    notes: tuple[str, ...]
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Checks:
    """What was checked before anything was timed."""

    parity: Parity | None
    data_parallel: DataParallel | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """A row a line that holds something.

    Attributes:
        lines: their numbers, from 1.
        starts: where they begin, in bytes.
        sizes: in bytes.
        cases: None for a line of another make, which must be read whole.
        checks: likewise.
        op_calls: of all ops of the profiled step; None where it was not profiled.
        kind_of: index of a row's kind.
        layout_of: number of the layout of its metrics.
        kinds: what rows have in common.
        layouts: of metrics, by number.
    """

    lines: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    cases: list[CaseKey | None] = field(default_factory=list)
    checks: list[Checks | None] = field(default_factory=list)
    op_calls: list[int | None] = field(default_factory=list)
    kind_of: list[int] = field(default_factory=list)
    layout_of: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    layouts: tuple[Layout, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What a catalog says of a line."""

    place: Place
    case: CaseKey
    checks: Checks
    op_calls: int | None
    kind: Kind
    metrics: PackedMetrics


@dataclass(frozen=True, slots=True)
class Covered:
    """The part of a file that is read: lines, blank ones included, bytes, and their CRC-32."""

    lines: int
    bytes: int
    checksum: int


_NOTHING: Final = Covered(0, 0, 0)


class Catalog:
    """The lines of a file as far as they are read.

    Attributes:
        covered: what of the file that is.
        columns: what the lines say but for the numbers of metrics.
        numbers: of metrics, record by record.
    """

    def __init__(
        self, covered: Covered = _NOTHING, columns: Columns | None = None, numbers: "array[float] | None" = None
    ) -> None:
        """A catalog of nothing, or one that was kept.

        Raises:
            ValueError: its parts do not belong together.
        """
        self.covered = covered
        self.columns = columns or Columns()
        self.numbers = array("d") if numbers is None else numbers
        self._layouts = Layouts(self.columns.layouts)
        self._kinds: dict[tuple[object, ...], int] = {}
        self._check()

    def add(self, line: bytes) -> None:
        """Add the next line."""
        known = self.covered
        if not line.isspace():
            self._add(line, Place(known.lines + 1, known.bytes, len(line)))
        self.covered = Covered(known.lines + 1, known.bytes + len(line), zlib.crc32(line, known.checksum))

    def all_columns(self) -> Columns:
        """The columns with the layouts that came with the last lines."""
        return replace(self.columns, layouts=self._layouts.all)

    def rows(self) -> Iterator[Row | Place]:
        """What is known of each line that holds something, in their order; of one of another make only its place."""
        first, known = 0, self.columns
        for number, start, size, case, checks, op_calls, kind, layout in zip(*_lists(known), strict=True):
            place = Place(number, start, size)
            if case is None or checks is None:
                yield place
                continue
            metrics = PackedMetrics(self._layouts.places(layout), self.numbers, first)
            first += self._layouts.size(layout)
            yield Row(place, case, checks, op_calls, known.kinds[kind], metrics)

    def outcomes(self) -> Iterator[tuple[str, Status] | Place]:
        """Case id and status of each line that holds something; of one of another make only its place."""
        known = self.columns
        columns = (known.lines, known.starts, known.sizes, known.cases, known.kind_of)
        for number, start, size, case, kind in zip(*columns, strict=True):
            yield Place(number, start, size) if case is None else (case.id, known.kinds[kind].status)

    def _add(self, line: bytes, place: Place) -> None:
        known = self._known(line) or (None, None, None, _ODD, _ODD)
        for column, value in zip(_lists(self.columns), (place.number, place.at, place.size, *known), strict=True):
            column.append(value)

    def _known(self, line: bytes) -> tuple[CaseKey, Checks, int | None, int, int] | None:
        """Case, checks, calls, index of the kind and number of the layout; None for a line of another make."""
        parts = skim.parts(line)
        if parts is None:
            return None
        try:
            case: CaseKey = _adapter(CaseKey).validate_json(parts.case)
            checks: Checks = _adapter(Checks).validate_json(parts.checks)
            kind = self._kind(parts, skim.op_names(line))
            layout = self._layouts.pack(pydantic_core.from_json(parts.metrics), self.numbers)
        except ValueError:  # no JSON, no UTF-8, or not of the fields' types
            return None
        return None if layout is None else (case, checks, skim.op_calls(line), kind, layout)

    def _kind(self, parts: skim.Parts, op_names: frozenset[str]) -> int:
        key = (parts.schema, parts.run, parts.status, parts.reason, parts.lacks, op_names, parts.tail)
        found = self._kinds.get(key)
        if found is None:
            reason: str = _adapter(str).validate_json(parts.reason)
            tail: _Tail = _adapter(_Tail).validate_json(parts.tail)
            told = (op_names, tail.data, tail.notes, tail.fingerprint)
            kind = Kind(parts.schema, parts.run, parts.status, reason, parts.lacks, *told)
            found = self._kinds[key] = len(self.columns.kinds)
            self.columns.kinds.append(kind)
        return found

    def _check(self) -> None:
        """See that every index is one, and no number too many or too few."""
        known, layouts = self.columns, self._layouts
        whole = [i for i, case in enumerate(known.cases) if case is not None]
        if (
            [i for i, checks in enumerate(known.checks) if checks is not None] != whole
            or len(set(map(len, _lists(known)))) > 1
            or min((*known.starts, *known.sizes), default=0) < 0
            or max(map(add, known.starts, known.sizes), default=0) > self.covered.bytes
            or not all(0 <= known.kind_of[i] < len(known.kinds) for i in whole)
            or not all(0 <= known.layout_of[i] < len(layouts.all) for i in whole)
            or sum(layouts.size(known.layout_of[i]) for i in whole) != len(self.numbers)
        ):
            raise ValueError("a catalog whose parts do not belong together")


def _lists(columns: Columns) -> tuple[list[Any], ...]:
    """Those that have a row a line."""
    places = columns.lines, columns.starts, columns.sizes
    return (*places, columns.cases, columns.checks, columns.op_calls, columns.kind_of, columns.layout_of)


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of a record, which many share."""

    data: dict[str, SplitFacts]
    notes: tuple[str, ...]
    fingerprint: Fingerprint


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(kind)
