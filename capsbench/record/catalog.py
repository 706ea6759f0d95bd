"""What the lines of records.jsonl say but for their ops and layers, in columns: a kilobyte or less a record.

A line is read as `codec.encode` writes it; one of another make is only noted, for whoever can read it whole.
"""

import zlib
from array import array
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from operator import add
from typing import Final, TypeVar

import numpy as np
import pydantic_core
from pydantic import TypeAdapter

from capsbench.record import skim
from capsbench.record.columns import NO_CALLS, Checks, Columns, Kind, Place, Row, Shared, case_maker
from capsbench.record.packed import Layouts, PackedMetrics
from capsbench.record.schema import CaseKey, Fingerprint, SplitFacts, Status

_T = TypeVar("_T")
_H = TypeVar("_H", bound=Hashable)

_ODD: Final = (0, 0, -1, -1, -1, -1, 0.0, 0.0)
"""What a line of another make has in the columns after its place."""


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
        self,
        covered: Covered = _NOTHING,
        columns: Columns | None = None,
        shared: Shared | None = None,
        numbers: "array[float] | None" = None,
    ) -> None:
        """A catalog of nothing, or one that was kept.

        Raises:
            ValueError: its parts do not belong together.
        """
        self.covered = covered
        self.columns = columns or Columns()
        self._each = self.columns.each
        self.numbers = array("d") if numbers is None else numbers
        self._shared = shared or Shared()
        self._layouts = Layouts(self._shared.layouts)
        self._settings = _numbered(self._shared.settings)
        self._checks = _numbered(self._shared.checks)
        self._kinds: dict[tuple[object, ...], int] = {}
        self._check()

    @property
    def shared(self) -> Shared:
        """What the columns point to."""
        return replace(self._shared, layouts=self._layouts.all)

    def add(self, line: bytes) -> None:
        """Add the next line."""
        known = self.covered
        if not line.isspace():
            name, told = self._known(line) or (None, _ODD)
            self._shared.ids.append(name)
            for column, value in zip(self._each, (known.lines + 1, known.bytes, len(line), *told), strict=True):
                column.append(value)
        self.covered = Covered(known.lines + 1, known.bytes + len(line), zlib.crc32(line, known.checksum))

    def rows(self) -> Iterator[Row | Place]:
        """What is known of each line that holds something, in their order; of one of another make only its place."""
        first, columns, shared = 0, self.columns, self._shared
        cases = [case_maker(setting) for setting in shared.settings]
        told = zip(shared.ids, columns.seeds, columns.setting_of, columns.layout_of, strict=True)
        for at, (name, seed, setting, layout) in enumerate(told):
            if name is None:
                yield columns.place(at)
                continue
            metrics = PackedMetrics(self._layouts.places(layout), self.numbers, first)
            first += self._layouts.size(layout)
            yield Row(at, columns, shared, cases[setting](name, seed), metrics)

    def outcomes(self) -> Iterator[tuple[str, Status] | Place]:
        """Case id and status of each line that holds something; of one of another make only its place."""
        statuses = [kind.status for kind in self._shared.kinds]
        for at, (name, kind) in enumerate(zip(self._shared.ids, self.columns.kind_of, strict=True)):
            yield self.columns.place(at) if name is None else (name, statuses[kind])

    def _known(self, line: bytes) -> tuple[str, tuple[float, ...]] | None:
        """The case's id and what the columns after the place have; None for a line of another make."""
        try:
            parts = skim.parts(line)
            if parts is None:
                return None
            case: CaseKey = _adapter(CaseKey).validate_json(parts.case)
            checks: Checks = _adapter(Checks).validate_json(parts.checks)
            kind = self._kind(parts, skim.op_names(line))
            found = skim.op_calls(line)
            calls = NO_CALLS if found is None else found
            array("q", (case.seed, calls))
            layout = self._layouts.pack(pydantic_core.from_json(parts.metrics, allow_inf_nan=False), self.numbers)
        except (ValueError, OverflowError):  # no JSON, no UTF-8, not of the fields' types, beyond 64 bits
            return None
        if layout is None:
            return None
        setting = _index(replace(case, id="", seed=0), self._shared.settings, self._settings)
        bare, parity = _index(checks.bare(), self._shared.checks, self._checks), checks.parity
        errors = (parity.forward_max_relative_error, parity.gradient_relative_error) if parity else (0.0, 0.0)
        return case.id, (case.seed, calls, setting, bare, kind, layout, *errors)

    def _kind(self, parts: skim.Parts, op_names: frozenset[str]) -> int:
        key = (parts.schema, parts.run, parts.status, parts.reason, parts.lacks, op_names, parts.tail)
        found = self._kinds.get(key)
        if found is None:
            reason: str = _adapter(str).validate_json(parts.reason)
            tail: _Tail = _adapter(_Tail).validate_json(parts.tail)
            told = (op_names, tail.data, tail.notes, tail.fingerprint)
            kind = Kind(parts.schema, parts.run, parts.status, reason, parts.lacks, *told)
            found = self._kinds[key] = len(self._shared.kinds)
            self._shared.kinds.append(kind)
        return found

    def _check(self) -> None:
        """See that every index is one, and no number too many or too few."""
        known, shared, layouts = self.columns, self._shared, self._layouts
        odd = [at for at, name in enumerate(shared.ids) if name is None]
        pointing = (
            (known.setting_of, shared.settings),
            (known.checks_of, shared.checks),
            (known.kind_of, shared.kinds),
            (known.layout_of, layouts.all),
        )
        if (
            {len(shared.ids)} != set(map(len, known.each))
            or min((*known.starts, *known.sizes), default=0) < 0
            or max(map(add, known.starts, known.sizes), default=0) > self.covered.bytes
            or any([at for at, index in enumerate(column) if index < 0] != odd for column, _ in pointing)
            or any(max(column, default=-1) >= len(pointed) for column, pointed in pointing)
            or sum(layouts.size(index) for index in known.layout_of if index >= 0) != len(self.numbers)
            or not np.isfinite(self.numbers).all()  # what is not finite is a text in a line, which is read whole
        ):
            raise ValueError("a catalog whose parts do not belong together")


def _numbered(values: Iterable[_H]) -> dict[_H, int]:
    return {value: index for index, value in enumerate(values)}


def _index(value: _H, values: list[_H], numbered: dict[_H, int]) -> int:
    """Where a value lies in a list, to which it is added where it is new."""
    found = numbered.setdefault(value, len(values))
    if found == len(values):
        values.append(value)
    return found


@dataclass(frozen=True, slots=True)
class _Tail:
    """The end of a record, which many share."""

    data: dict[str, SplitFacts]
    notes: tuple[str, ...]
    fingerprint: Fingerprint


@cache
def _adapter(kind: type[_T]) -> TypeAdapter[_T]:
    return TypeAdapter(kind)
