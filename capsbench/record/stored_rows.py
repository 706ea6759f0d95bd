"""The records of a records.jsonl as columns: numbers of all at once, and a record where one is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf, nan
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from capsbench.record.catalog import Catalog
from capsbench.record.classes import Classed, Classes, H, Places, classes_of
from capsbench.record.columns import NO_CALLS, ParityErrorName, whole_numbers
from capsbench.record.packed import Place, interval_of, sample_count, samples_of, value_of
from capsbench.record.schema import Record
from capsbench.record.stored import Shelf, op_calls, parity_error

Numbers = npt.NDArray[np.float64]

_NONE: Final = -1


class Lines:
    """What is known of the lines of a file, which all selections of its records share.

    Args:
        catalog: of the file.
        shelf: its lines.
        odd: records of lines of another make, by their row in the catalog.

    Attributes:
        catalog: of the file.
        odd: see above.
        firsts: where the numbers of each row's metrics begin, [rows].
        numbers: of all rows.
    """

    def __init__(self, catalog: Catalog, shelf: Shelf, odd: Mapping[int, Record]) -> None:
        self.catalog = catalog
        self.odd = odd
        columns = catalog.columns
        known = (columns.setting_of, columns.kind_of, columns.layout_of, columns.checks_of)
        self.settings, self.kinds, self.layouts, self.checks = map(whole_numbers, known)
        self.seeds, self.calls = map(whole_numbers, (columns.seeds, columns.op_calls))
        sizes = catalog.number_counts
        self.firsts: Places = np.cumsum(sizes) - sizes
        self.numbers = np.frombuffer(catalog.numbers, dtype=np.float64) if len(catalog.numbers) else np.zeros(0)
        self._ids = catalog.shared.ids
        self._shelf = shelf
        self._examples: dict[int, Record] = {}

    @cached_property
    def classes(self) -> Classes:
        """Of all rows; see `StoredRecords`."""
        return classes_of(self.settings, self.checks, *self._shape)

    @cached_property
    def shapes(self) -> Classes:
        """Likewise."""
        return classes_of(*self._shape)

    @property
    def _shape(self) -> tuple[Places, ...]:
        own = np.full(len(self.kinds), _NONE, dtype=np.int64)
        odd = np.fromiter(self.odd, dtype=np.int64, count=len(self.odd))
        own[odd] = odd
        return self.kinds, self.layouts, own, (self.calls == NO_CALLS).astype(np.int64)

    def example(self, number: int) -> Record:
        """A record of a class."""
        found = self._examples.get(number)
        if found is None:
            found = self._examples[number] = self.record(int(self.classes.firsts[number]))
        return found

    def case_id(self, row: int) -> str:
        """The id of the case of a row."""
        found = self._ids[row]
        return self.odd[row].case.id if found is None else found

    def record(self, row: int) -> Record:
        """The record of a row."""
        odd = self.odd.get(row)
        return self._shelf.record(self.catalog.row(row, int(self.firsts[row]))) if odd is None else odd


class StoredRecords(Classed[Record]):
    """Some of the records of a file.

    Args:
        lines: of the file.
        rows: of the catalog, [records], of lines that can be read.
    """

    def __init__(self, lines: Lines, rows: Places) -> None:
        self.lines = lines
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Record]:
        return map(self.lines.record, self.rows.tolist())

    def item(self, place: int) -> Record:
        """The record at a place."""
        return self.lines.record(int(self.rows[place]))

    def take(self, places: Places) -> Self:
        """The records at some places."""
        return type(self)(self.lines, self.rows[places])

    @cached_property
    def classes(self) -> Classes:
        """Records are alike that have setting, status, notes, data, checks and the layout of their metrics in common.

        One of another make is like no other.
        """
        return classes_of(self.lines.classes.of[self.rows])

    @cached_property
    def shapes(self) -> Classes:
        """Likewise, but whatever their settings and checks are."""
        return classes_of(self.lines.shapes.of[self.rows])

    def by_class(self, tell: Callable[[Record], H]) -> list[H]:
        """What is told of each class."""
        return list(map(tell, self.alike(self.classes.firsts)))

    def alike(self, places: Places) -> Iterator[Record]:
        """A record like the one at each place, of which there is one for all of a class."""
        return map(self.lines.example, self.lines.classes.of[self.rows[places]].tolist())

    @cached_property
    def _odd(self) -> Places:
        """Places of records of another make."""
        return np.flatnonzero(self.lines.settings[self.rows] < 0) if self.lines.odd else np.zeros(0, dtype=np.int64)

    @cached_property
    def seeds(self) -> Places:
        """Of the cases, [records]."""
        found = self.lines.seeds[self.rows]
        odd = {place: self.item(place).case.seed for place in self._odd.tolist()}
        if any(abs(seed) >= -NO_CALLS for seed in odd.values()):
            found = found.astype(object)
        for place, seed in odd.items():
            found[place] = seed
        return found

    @property
    def calls(self) -> Numbers:
        """Of all ops of the profiled step, [records]; NaN where no step was profiled."""
        whole = self.lines.calls[self.rows]
        found = np.where(whole == NO_CALLS, np.nan, whole)
        for place in self._odd.tolist():
            found[place] = _real(op_calls(self.item(place)))
        return found

    def values(self, metric: str) -> Numbers:
        """Of a metric, [records]; NaN where a record has none of the name."""
        at = self._offsets([None if place is None else place.at for place in self._places(metric)])
        found = np.where(at < 0, np.nan, self.lines.numbers[np.maximum(at, 0)] if self.lines.numbers.size else np.nan)
        for place in self._odd.tolist():
            found[place] = _real(value_of(self.item(place).metrics, metric))
        return found

    def exact_values(self, metric: str) -> list[float | int | None]:
        """Of a metric, whole numbers as such; None where a record has none of the name."""
        found: list[float | int | None] = self.values(metric).tolist()
        places = [*self._places(metric), None]
        layouts = self.lines.layouts[self.rows]
        lacking = np.array([each is None for each in places])[layouts]
        whole = np.array([each is not None and each.is_whole for each in places])[layouts]
        for place in np.flatnonzero(lacking).tolist():
            found[place] = None
        for place in np.flatnonzero(whole).tolist():
            found[place] = int(found[place] or 0)
        for place in self._odd.tolist():
            found[place] = value_of(self.item(place).metrics, metric)
        return found

    def intervals(self, metric: str) -> list[tuple[float, float] | None]:
        """Of a metric; None where a record has none."""
        has = [place if place is not None and place.has_interval else None for place in self._places(metric)]
        at = self._offsets([None if place is None else place.at + 2 for place in has])
        found: list[tuple[float, float] | None] = [None] * len(self)
        known = np.flatnonzero(at >= 0)
        ends = self.lines.numbers[at[known][:, None] + np.arange(2)]
        for place, (low, high) in zip(known.tolist(), ends.tolist(), strict=True):
            found[place] = low, high
        for place in self._odd.tolist():
            found[place] = interval_of(self.item(place).metrics, metric)
        return found

    def parity_errors(self, name: ParityErrorName) -> list[float | None]:
        """Of the checks against the oracle; None where there was none."""
        columns = self.lines.catalog.columns
        column = columns.forward_errors if name.startswith("forward") else columns.gradient_errors
        has = self.by_class(lambda record: record.parity is not None)
        told = zip(np.frombuffer(column, dtype=np.float64)[self.rows].tolist(), self.classes.of.tolist(), strict=True)
        found = [error if has[number] else None for error, number in told]
        for place in self._odd.tolist():
            found[place] = parity_error(self.item(place), name)
        return found

    def samples(self, metric: str) -> Numbers:
        """Of a metric that all records have, with equally many samples, [records, samples]."""
        first = self.item(0) if len(self) else None
        count = 0 if first is None else sample_count(first.metrics, metric)
        if self._odd.size:
            return np.array([samples_of(each.metrics, metric) for each in self], dtype=np.float64).reshape(-1, count)
        at = self._offsets([None if place is None else place.end - count for place in self._places(metric)])
        samples: Numbers = self.lines.numbers[at[:, None] + np.arange(count)]
        return samples

    def _places(self, metric: str) -> list[Place | None]:
        return [places.get(metric) for places in self.lines.catalog.places]

    def _offsets(self, of_layouts: Sequence[int | None]) -> Places:
        """Where something lies among the numbers, [records], by where it lies among those of a layout; -1 for None."""
        known = np.array([*(_NONE if each is None else each for each in of_layouts), _NONE], dtype=np.int64)
        offsets = known[self.lines.layouts[self.rows]]
        return np.where(offsets < 0, _NONE, self.lines.firsts[self.rows] + offsets)


def seeds_of(records: Sequence[Record]) -> list[int]:
    """Seeds of the cases of records."""
    return records.seeds.tolist() if isinstance(records, StoredRecords) else [each.case.seed for each in records]


def values_of(records: Sequence[Record], metric: str) -> list[float | int | None]:
    """Of a metric, as records have it; None where one has none of the name."""
    if not isinstance(records, StoredRecords):
        return [value_of(each.metrics, metric) for each in records]
    return records.exact_values(metric)


def intervals_of(records: Sequence[Record], metric: str) -> list[tuple[float, float] | None]:
    """The intervals of a metric; None where a record has none."""
    if not isinstance(records, StoredRecords):
        return [interval_of(each.metrics, metric) for each in records]
    return records.intervals(metric)


def parity_errors_of(records: Sequence[Record], name: ParityErrorName) -> list[float | None]:
    """How far realizations lay from the oracle; None where that was not measured."""
    if not isinstance(records, StoredRecords):
        return [parity_error(each, name) for each in records]
    return records.parity_errors(name)


def _real(value: float | None) -> float:
    """A number as an array holds it: NaN for None, an end for one that is too large."""
    try:
        return nan if value is None else float(value)
    except OverflowError:
        return inf


def latest(lines: Lines, rows: Sequence[int]) -> StoredRecords:
    """The last record of each case among rows, in the order in which the cases first come."""
    of_case = {lines.case_id(row): row for row in rows}
    return StoredRecords(lines, np.fromiter(of_case.values(), dtype=np.int64, count=len(of_case)))


def like(records: StoredRecords, glob: str) -> StoredRecords:
    """The records of cases like a glob, as `CaseKey.is_like` means it."""
    named = records.by_class(lambda each: any(fnmatchcase(text, glob) for text in each.case.names))
    told = zip(records.rows.tolist(), records.classes.of.tolist(), strict=True)
    chosen = [
        place
        for place, (row, number) in enumerate(told)
        if named[number] or fnmatchcase(records.lines.case_id(row), glob)
    ]
    return records.take(np.array(chosen, dtype=np.int64))
