"""What the lines of records.jsonl say but for their ops and layers, in columns: a kilobyte or less a record.

A line is read as `codec.encode` writes it; one of another make is only noted, for whoever can read it whole.
"""

import zlib
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, TypeVar

import numpy as np
import pydantic_core
from numpy.typing import NDArray
from pydantic import TypeAdapter

from capsbench.record import skim
from capsbench.record.columns import NO_CALLS, Checks, Columns, Kind, Place, Row, Shared, case_maker, whole_numbers
from capsbench.record.packed import Layouts, PackedMetrics, Places
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
        self._makers: dict[int, Callable[[str, int], CaseKey]] = {}
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

    @property
    def places(self) -> list[Places]:
        """Where the metrics of each layout lie."""
        return self._layouts.all_places

    @property
    def number_counts(self) -> NDArray[np.int64]:
        """How many numbers the metrics of each row have; [rows]."""
        return np.array([*self._layouts.sizes, 0], dtype=np.int64)[whole_numbers(self.columns.layout_of)]

    def row(self, at: int, first: int) -> Row:
        """What is known of a line that is not of another make; `first` is where the numbers of its metrics begin."""
        known, shared = self.columns, self._shared
        name, setting = shared.ids[at], known.setting_of[at]
        assert name is not None  # noqa: S101 - whoever asks knows
        make = self._makers.get(setting)
        if make is None:
            make = self._makers[setting] = case_maker(shared.settings[setting])
        metrics = PackedMetrics(self._layouts.all_places[known.layout_of[at]], self.numbers, first)
        return Row(at, known, shared, make(name, known.seeds[at]), metrics)

    def odd(self) -> Iterator[tuple[int, Place]]:
        """Row and place of each line of another make, which must be read whole."""
        settings = whole_numbers(self.columns.setting_of)
        yield from ((at, self.columns.place(at)) for at in np.flatnonzero(settings < 0).tolist())

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
        if {len(shared.ids)} != set(map(len, known.each)):
            raise ValueError("columns of unequal lengths")
        odd = np.fromiter((name is None for name in shared.ids), dtype=np.bool_, count=len(shared.ids))
        starts, sizes = whole_numbers(known.starts), whole_numbers(known.sizes)
        covered = self.covered.bytes
        pointing = (
            (known.setting_of, shared.settings),
            (known.checks_of, shared.checks),
            (known.kind_of, shared.kinds),
            (known.layout_of, layouts.all),
        )
        if (
            min(starts.min(initial=0), sizes.min(initial=0)) < 0
            or sizes.max(initial=0) > covered  # so that the next sum is within 64 bits
            or (starts > covered - sizes).any()
            or any(not np.array_equal(whole_numbers(column) < 0, odd) for column, _ in pointing)
            or any(whole_numbers(column).min(initial=-1) < -1 for column, _ in pointing)
            or any(whole_numbers(column).max(initial=-1) >= len(pointed) for column, pointed in pointing)
            or self.number_counts.max(initial=0) > len(self.numbers)  # so that their sum is within 64 bits
            or self.number_counts.sum() != len(self.numbers)
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
