"""Records that read what is asked for: cases at once, metrics many records at a time, ops and layers one by one.

Records that agree in everything but ids, seeds and numbers share one `_Shared`, so that a hundred thousand of them fit
into memory.
"""

import json
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from capsbench.metrics import Direction
from capsbench.record.schema import CaseKey, Fingerprint, Metric, Record, SplitFacts
from capsbench.store.database import connect_to_read
from capsbench.store.read import CASE, data_from, fingerprint_from, read_records, samples_from

ParityErrorName = Literal["forward_max_relative_error", "gradient_relative_error"]
MetricFacts = tuple[str, str, Direction, Literal["exact", "sampled"]]
"""Name, unit, direction and kind of a metric."""

_KEPT: Final = 64
"""Whole records that are kept for tables that look at one more than once."""
_OWN: Final = ("id", "case_id", "seed", "op_calls", "forward_max_relative_error", "gradient_relative_error")
"""Columns in which records that share everything else differ."""
_SETTING: Final = tuple(name for name in CASE if name != "seed")
_SHARED: Final = (
    *_SETTING, "schema", "run", "status", "reason", "notes", "network_hash", "protocol_hash", "environment_hash",
    "data_id", "content_id",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Shared:
    """What records that differ in ids, seeds and numbers only have in common.

    Attributes:
        setting: the axes of the case, all but the seed.
        sample_counts: by metric.
        parts: fields of `Record` that are not empty.
        op_names: the canonical ops of the profiled train step.
    """

    setting: dict[str, Any]
    schema: int
    run: str
    status: Any
    reason: str
    notes: tuple[str, ...]
    data: dict[str, SplitFacts]
    fingerprint: Fingerprint
    sample_counts: dict[str, int]
    parts: frozenset[str]
    op_names: frozenset[str]


class _Source:
    """The file that stored records read the rest of what they say from; each process has its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[int, sqlite3.Connection] | None = None
        self._metrics: dict[int, dict[str, tuple[Any, ...]]] = {}
        self._values: dict[str, dict[int, Any]] = {}
        self._whole: OrderedDict[int, Record] = OrderedDict()

    @property
    def connection(self) -> sqlite3.Connection:
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), connect_to_read(self._path)
        return self._open[1]

    def records(self) -> "Iterator[StoredRecord]":
        """Every record, in the order in which the cases first ended."""
        known: dict[tuple[Any, ...], _Shared] = {}
        own = len(_OWN)
        query = f"SELECT {', '.join((*_OWN, *_SHARED))} FROM record ORDER BY id"  # noqa: S608 - our own names
        for row in self.connection.execute(query):
            key = row[own:]
            shared = known.get(key)
            if shared is None:
                shared = known[key] = self._make_shared(dict(zip(_SHARED, key, strict=True)))
            yield StoredRecord.make(self, shared, row[:own])

    def _make_shared(self, row: dict[str, Any]) -> _Shared:
        content = json.loads(self._contents[row["content_id"]])
        return _Shared(
            setting={name: row[name] for name in _SETTING},
            schema=row["schema"],
            run=row["run"],
            status=row["status"],
            reason=row["reason"],
            notes=tuple(json.loads(row["notes"])),
            data=data_from(self._data[row["data_id"]]),
            fingerprint=fingerprint_from(row),
            sample_counts={self.metric_names[number][0]: count for number, _, count, _ in content["metrics"]},
            parts=frozenset(content["parts"]),
            op_names=frozenset(content["ops"]),
        )

    @cached_property
    def _contents(self) -> dict[int, str]:
        return dict(self.connection.execute("SELECT id, description FROM content"))

    @cached_property
    def _data(self) -> dict[int, str]:
        return dict(self.connection.execute("SELECT id, splits FROM data"))

    @cached_property
    def metric_names(self) -> dict[int, Any]:
        """Name, unit, direction and kind of each metric, by its id."""
        query = "SELECT id, name, unit, direction, kind FROM metric_name"
        return {number: tuple(rest) for number, *rest in self.connection.execute(query)}

    def whole(self, number: int) -> Record:
        """A record read whole, and kept for a while."""
        if number not in self._whole:
            [self._whole[number]] = read_records(self.connection, "record.id = ?", [number])
            if len(self._whole) > _KEPT:
                self._whole.popitem(last=False)
        return self._whole[number]

    def metrics(self, number: int) -> dict[str, tuple[Any, ...]]:
        """Metrics of a record by name: id, value, ends of the interval, contended samples."""
        if number not in self._metrics:
            self.read_metrics([number])
        return self._metrics[number]

    def read_metrics(self, numbers: Sequence[int]) -> None:
        """Read the metrics of many records at once, and forget those read before."""
        self._metrics = {number: {} for number in numbers}
        names = {number: known[0] for number, known in self.metric_names.items()}
        query = (
            "SELECT record_id, metric_id, value, low, high, contended FROM metric "
            "WHERE record_id IN (SELECT value FROM json_each(?))"
        )
        for row in self.connection.execute(query, [json.dumps(list(numbers))]):
            self._metrics[row[0]][names[row[1]]] = row[1:]

    def samples(self, number: int, metric: int) -> tuple[float, ...]:
        """The samples of a metric of a record."""
        query = "SELECT samples FROM metric WHERE record_id = ? AND metric_id = ?"
        return samples_from(self.connection.execute(query, [number, metric]).fetchone()[0])

    def values(self, name: str) -> dict[int, Any]:
        """The values of a metric by record."""
        if name not in self._values:
            query = "SELECT record_id, value FROM metric WHERE metric_id IN (SELECT id FROM metric_name WHERE name = ?)"
            found = dict(self.connection.execute(query, [name]))
            texts = [number for number, value in found.items() if isinstance(value, str)]
            self._values[name] = found | {number: float(found[number]) for number in texts}
        return self._values[name]

    def column(self, name: str, places: Mapping[int, int]) -> "MetricColumn":
        """A metric of the records that have a place."""
        ids = [number for number, known in self.metric_names.items() if known[0] == name]
        is_sampled = any(self.metric_names[number][3] == "sampled" for number in ids)
        query = (
            f"SELECT record_id, metric_id, value, {'samples' if is_sampled else 'NULL'} FROM metric "  # noqa: S608
            f"WHERE metric_id IN ({', '.join(map(str, ids))})"
        )
        rows = [(places[row[0]], *row[1:]) for row in self.connection.execute(query) if row[0] in places]
        values = {place: value for place, _, value, _ in rows}
        values |= {place: float(value) for place, value in values.items() if isinstance(value, str)}
        facts = {place: self.metric_names[metric] for place, metric, _, _ in rows}
        texts = {place: text for place, _, _, text in rows} if is_sampled else {}
        return MetricColumn(facts, values, lambda place: samples_from(texts.get(place)))


class StoredMetrics(Mapping[str, Metric]):
    """The metrics of a stored record, read when one is asked for."""

    __slots__ = ("_number", "_source", "sample_counts")

    def __init__(self, source: _Source, number: int, shared: _Shared) -> None:
        self._source = source
        self._number = number
        self.sample_counts = shared.sample_counts

    def __getitem__(self, name: str) -> Metric:
        number, value, low, high, contended = self._source.metrics(self._number)[name]
        _, unit, direction, kind = self._source.metric_names[number]
        return Metric(
            value=_number(value),
            unit=unit,
            direction=direction,
            kind=kind,
            samples=self._source.samples(self._number, number),
            interval=None if low is None else (float(low), float(high)),
            contended=contended,
        )

    def value(self, name: str) -> float | int | None:
        """The value of a metric; None where there is none of the name."""
        if name not in self.sample_counts:
            return None
        return _number(self._source.metrics(self._number)[name][1])

    def interval(self, name: str) -> tuple[float, float] | None:
        """The interval of a metric; None where there is none."""
        if name not in self.sample_counts:
            return None
        _, _, low, high, _ = self._source.metrics(self._number)[name]
        return None if low is None else (float(low), float(high))

    def __contains__(self, name: object) -> bool:
        return name in self.sample_counts

    def __iter__(self) -> Iterator[str]:
        return iter(self.sample_counts)

    def __len__(self) -> int:
        return len(self.sample_counts)

    def __repr__(self) -> str:
        return repr(dict(self))


class StoredRecord(Record):
    """A record of a run.sqlite whose metrics, ops and layers are read when they are asked for."""

    __slots__ = ("errors", "number", "op_calls", "shared", "source")

    source: _Source
    shared: _Shared
    number: int
    op_calls: int | None
    errors: tuple[float | None, float | None]

    @classmethod
    def make(cls, source: _Source, shared: _Shared, own: tuple[Any, ...]) -> "StoredRecord":
        """Make one of the columns `_OWN` of its row."""
        number, case_id, seed, op_calls, forward_error, gradient_error = own
        found, put = object.__new__(cls), object.__setattr__
        put(found, "case", CaseKey(id=case_id, seed=seed, **shared.setting))
        put(found, "status", shared.status)
        put(found, "metrics", StoredMetrics(source, number, shared))
        put(found, "source", source)
        put(found, "shared", shared)
        put(found, "number", number)
        put(found, "op_calls", op_calls)
        put(found, "errors", (forward_error, gradient_error))
        return found

    def whole(self) -> Record:
        """The record as an ordinary one."""
        return self.source.whole(self.number)


def _from_shared(name: str) -> property:
    return property(lambda record: getattr(record.shared, name))


def _from_whole(name: str) -> property:
    return property(lambda record: getattr(record.whole(), name))


def _if_there(name: str, nothing: object) -> property:
    """A field that is read from the file unless the record is known to have nothing there."""
    return property(lambda record: getattr(record.whole(), name) if name in record.shared.parts else nothing)


for _name in ("schema", "run", "reason", "notes", "data", "fingerprint"):
    setattr(StoredRecord, _name, _from_shared(_name))
for _name in ("ops", "alive_at_peak", "distributions", "routing"):
    setattr(StoredRecord, _name, _if_there(_name, ()))
setattr(StoredRecord, "forward_profile", _if_there("forward_profile", None))  # noqa: B010
for _name in (
    "parity", "data_parallel", "step_profile_seconds", "step_profile_bytes", "step_bare_seconds", "equations",
):  # fmt: skip
    setattr(StoredRecord, _name, _from_whole(_name))


def stored_records(path: Path, glob: str | None = None) -> tuple[list[StoredRecord], str | None]:
    """The records of a run.sqlite, in the order in which their cases first ended.

    Args:
        path: of the file.
        glob: only of cases like this, as `CaseKey.is_like` means it.

    Returns:
        The records, and the id of the first case of the run, if there is one.

    Raises:
        BadInput: the file cannot be read.
    """
    records = list(_Source(path).records())
    first = records[0].case.id if records else None
    return (records if glob is None else [each for each in records if each.case.is_like(glob)]), first


def read_metrics_of(records: Iterable[Record]) -> None:
    """Read the metrics of stored records of one run together, for whoever asks for them next."""
    stored = [each for each in records if isinstance(each, StoredRecord)]
    if stored:
        stored[0].source.read_metrics([each.number for each in stored])


def values_of(records: Sequence[Record], metric: str) -> list[float | int | None]:
    """The values of a metric, of records of one run; None where one has none of the name."""
    first = next(iter(records), None)
    if not isinstance(first, StoredRecord):
        return [value_of(each.metrics, metric) for each in records]
    values = first.source.values(metric)
    return [values.get(each.number) for each in records if isinstance(each, StoredRecord)]


def value_of(metrics: Mapping[str, Metric], name: str) -> float | int | None:
    """The value of a metric; None where there is none of the name."""
    if isinstance(metrics, StoredMetrics):
        return metrics.value(name)
    return metrics[name].value if name in metrics else None


def interval_of(metrics: Mapping[str, Metric], name: str) -> tuple[float, float] | None:
    """The interval of a metric; None where there is none."""
    if isinstance(metrics, StoredMetrics):
        return metrics.interval(name)
    return metrics[name].interval if name in metrics else None


@dataclass(frozen=True, slots=True)
class MetricColumn:
    """One metric of many records, by their places.

    Attributes:
        facts: on the metric.
        values: its values.
        samples: returns the samples of a place.
    """

    facts: Mapping[int, MetricFacts]
    values: Mapping[int, float | int]
    samples: Callable[[int], tuple[float, ...]]


def metric_column(records: Sequence[Record], name: str) -> MetricColumn:
    """One metric of records of one run; those without it are left out."""
    if records and isinstance(records[0], StoredRecord):
        places = {each.number: place for place, each in enumerate(records) if isinstance(each, StoredRecord)}
        return records[0].source.column(name, places)
    found = {place: each.metrics[name] for place, each in enumerate(records) if name in each.metrics}
    facts = {place: (name, each.unit, each.direction, each.kind) for place, each in found.items()}
    return MetricColumn(facts, {at: each.value for at, each in found.items()}, lambda place: found[place].samples)


def metric_names(records: Iterable[Record]) -> set[str]:
    """The names of all metrics of records of one run."""
    waiting = iter(records)
    first = next(waiting, None)
    if isinstance(first, StoredRecord):
        return {known[0] for known in first.source.metric_names.values()}
    return {name for each in (first, *waiting) if each is not None for name in each.metrics}


def sample_count(metrics: Mapping[str, Metric], name: str) -> int:
    """How many samples a metric has; 0 where there is none of the name."""
    if isinstance(metrics, StoredMetrics):
        return metrics.sample_counts.get(name, 0)
    return len(metrics[name].samples) if name in metrics else 0


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
        error = record.errors[name == "gradient_relative_error"]
        return None if error is None else float(error)
    found: float | None = getattr(record.parity, name, None)
    return found


def _number(value: float | str) -> float | int:
    """A value as it was measured; what SQLite has no number for (NaN, infinity) is stored as text."""
    return float(value) if isinstance(value, str) else value
