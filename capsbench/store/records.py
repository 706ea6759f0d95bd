"""The records of a run as a sequence, and numbers of many records at once, whether they are stored or just held."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from math import inf, nan
from typing import Literal, Self

import numpy as np

from capsbench.metrics import Direction
from capsbench.record.classes import Classed, Classes, H, Places, classes_of
from capsbench.record.schema import Metric, Record
from capsbench.store.columns import Columns, Numbers, ParityErrorName, StoredMetrics, StoredRecord


class StoredRecords(Classed[Record]):
    """Some of the records of a run.

    Args:
        columns: of the run.
        rows: of the records, [records].
    """

    def __init__(self, columns: Columns, rows: Places) -> None:
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Record]:
        return map(self.columns.record, self.rows.tolist())

    def item(self, place: int) -> Record:
        """The record at a place."""
        return self.columns.record(int(self.rows[place]))

    def take(self, places: Places) -> Self:
        """The records at some places."""
        return type(self)(self.columns, self.rows[places])

    @cached_property
    def classes(self) -> Classes:
        """Records are alike that have setting, status, notes, data, checks and the names of their metrics in common."""
        return classes_of(self.columns.class_of[self.rows])

    @cached_property
    def shapes(self) -> Classes:
        """Likewise, whatever their settings and checks are."""
        return classes_of(self.columns.shape_of[self.columns.class_of[self.rows]])

    def by_class(self, tell: Callable[[Record], H]) -> list[H]:
        """What is told of each class."""
        return list(map(tell, self.alike(self.classes.firsts)))

    def alike(self, places: Places) -> Iterator[Record]:
        """A record like the one at each place, of which there is one for all of a class."""
        return map(self.columns.example, self.columns.class_of[self.rows[places]].tolist())

    @cached_property
    def seeds(self) -> Places:
        """Of the cases, [records]."""
        return self.columns.seeds[self.rows]

    @property
    def calls(self) -> Numbers:
        """Of all ops of the profiled train step, [records]; NaN where no step was profiled."""
        chosen: Numbers = self.columns.calls[self.rows]
        return chosen

    def values(self, metric: str) -> Numbers:
        """Of a metric, [records]; NaN where a record has none of the name."""
        return np.array(list(map(_real, self.exact_values(metric))), dtype=np.float64)

    def exact_values(self, metric: str) -> list[float | int | None]:
        """Of a metric, whole numbers as such; None where a record has none of the name."""
        return self._chosen(self.columns.values(metric))

    def intervals(self, metric: str) -> list[tuple[float, float] | None]:
        """Of a metric; None where a record has none."""
        return self._chosen(self.columns.intervals(metric))

    def parity_errors(self, name: ParityErrorName) -> list[float | None]:
        """How far realizations lay from the oracle; None where that was not measured."""
        return self._chosen(self.columns.parity_errors(name))

    def samples(self, metric: str) -> Numbers:
        """Of a metric that all records have, with equally many samples, [records, samples]."""
        ends, samples = self.columns.samples(metric)
        firsts = ends[self.rows]
        count = int(ends[self.rows[0] + 1] - firsts[0]) if len(self) else 0
        chosen: Numbers = samples[firsts[:, None] + np.arange(count)]
        return chosen

    def _chosen(self, column: Sequence[H]) -> list[H]:
        return [column[row] for row in self.rows.tolist()]


def all_records(columns: Columns) -> StoredRecords:
    """Every record of a run, in the order in which their cases first ended."""
    return StoredRecords(columns, np.arange(len(columns.case_ids), dtype=np.int64))


def like(records: StoredRecords, glob: str) -> StoredRecords:
    """The records of cases like a glob, as `CaseKey.is_like` means it."""
    named = records.by_class(lambda each: any(fnmatchcase(text, glob) for text in each.case.names))
    ids, classes = records.columns.case_ids, records.classes.of.tolist()
    rows = zip(records.rows.tolist(), classes, strict=True)
    chosen = [place for place, (row, number) in enumerate(rows) if named[number] or fnmatchcase(ids[row], glob)]
    return records.take(np.array(chosen, dtype=np.int64))


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


def value_of(metrics: Mapping[str, Metric], name: str) -> float | int | None:
    """The value of a metric; None where there is none of the name."""
    if name not in metrics:
        return None
    return metrics.value(name) if isinstance(metrics, StoredMetrics) else metrics[name].value


def samples_of(metrics: Mapping[str, Metric], name: str) -> tuple[float, ...]:
    """The samples of a metric that is there."""
    return metrics[name].samples


def interval_of(metrics: Mapping[str, Metric], name: str) -> tuple[float, float] | None:
    """The interval of a metric; None where there is none."""
    return metrics[name].interval if name in metrics else None


def sample_count(metrics: Mapping[str, Metric], name: str) -> int:
    """How many samples a metric has; 0 where there is none of the name."""
    if name not in metrics:
        return 0
    return metrics.shapes[name].samples if isinstance(metrics, StoredMetrics) else len(metrics[name].samples)


def in_both(
    a: Mapping[str, Metric], b: Mapping[str, Metric]
) -> Iterator[tuple[str, Literal["exact", "sampled"], float | int, float | int, Direction]]:
    """What both have: name, kind (exact where both are), values in A and in B, direction."""
    for name in (name for name in a if name in b):
        one, other = a[name], b[name]
        yield name, one.kind if one.kind == other.kind else "sampled", one.value, other.value, one.direction


def op_calls(record: Record) -> int | None:
    """How many calls its profiled train step made; None where no step was profiled."""
    if isinstance(record, StoredRecord):
        return record.op_calls
    return sum(event.calls for event in record.ops) if record.ops else None


def whole_of(record: Record) -> Record:
    """The record, read whole, for whoever asks for several of its parts."""
    return record.whole() if isinstance(record, StoredRecord) else record


def may_have(record: Record, part: str) -> bool:
    """Whether ops, routing, distributions and the like are there; without reading them."""
    return part in record.shared.parts if isinstance(record, StoredRecord) else bool(getattr(record, part))


def op_names(record: Record) -> frozenset[str]:
    """The canonical ops of its profiled train step."""
    return record.shared.op_names if isinstance(record, StoredRecord) else frozenset(each.op for each in record.ops)


def parity_error(record: Record, name: ParityErrorName) -> float | None:
    """How far a realization lay from the oracle; None where that was not measured."""
    if isinstance(record, StoredRecord):
        return record.parity_error(name)
    error: float | None = getattr(record.parity, name, None)
    return error


def _real(value: float | None) -> float:
    """A number as an array holds it: NaN for None, infinity for one that is too large."""
    try:
        return nan if value is None else float(value)
    except OverflowError:
        return inf
