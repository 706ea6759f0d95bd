"""The records of a run as columns: what most tables need is read at once, ops and layers of a record when asked for.

Records that agree in everything but ids, seeds and numbers share one `_Shared`, so that a hundred thousand of them fit
into memory.
"""

import json
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import pydantic_core

from capsbench.metrics import Direction
from capsbench.record.classes import Places
from capsbench.record.schema import CaseKey, DataParallel, Fingerprint, Metric, Parity, Record, SplitFacts
from capsbench.store.database import connect_to_read
from capsbench.store.read import (
    CASE,
    data_from,
    data_parallel_from,
    fingerprint_from,
    parity_from,
    read_metrics,
    read_records,
)

Numbers = npt.NDArray[np.float64]
ParityErrorName = Literal["forward_max_relative_error", "gradient_relative_error"]

_KEPT: Final = 64
"""Whole records that are kept for tables that look at one more than once."""
_OWN: Final = ("id", "case_id", "seed", "op_calls", "forward_max_relative_error", "gradient_relative_error")
"""Columns in which records of a class differ."""
_SHAPE: Final = (
    "schema", "run", "status", "reason", "notes", "network_hash", "protocol_hash", "environment_hash", "data_id",
    "content_id",
)  # fmt: skip
_SETTING: Final = (
    *(name for name in CASE if name != "seed"), "parity_oracle", "forward_limit", "gradient_limit", "parity_passed",
    "rounding_float64_error", "rounding_drawn_forward_error", "rounding_drawn_gradient_error", "parallel_devices",
    "parallel_steps", "parallel_loss_deviation", "parallel_limit", "parallel_passed", "drift_float32_steps",
    "drift_float64_steps", "drift_float64_deviation",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetricShape:
    """A metric of some records but for its numbers."""

    unit: str
    direction: Direction
    kind: Literal["exact", "sampled"]
    samples: int
    has_interval: bool


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the records of a class have in common; `case` without id and seed, `parity` without its errors."""

    case: CaseKey
    schema: int
    run: str
    status: Any
    reason: str
    notes: tuple[str, ...]
    data: dict[str, SplitFacts]
    fingerprint: Fingerprint
    parity: Parity | None
    data_parallel: DataParallel | None
    metrics: dict[str, MetricShape]
    parts: frozenset[str]
    op_names: frozenset[str]


class Columns:
    """The records of a run, which all selections of them share.

    Args:
        path: of run.sqlite.

    Attributes:
        case_ids: of the cases, in the order in which they first ended, [records].
        seeds: of the cases, [records].
        op_calls: calls of all ops of the profiled train step, [records]; None where none was profiled.
        calls: the same as numbers; NaN where none was profiled.
        class_of: the class of each record, [records].
        shape_of: the shape of each class, [classes]: alike but for setting and checks.

    Raises:
        BadInput: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[int, sqlite3.Connection] | None = None
        self.case_ids: list[str] = []
        self.op_calls: list[int | None] = []
        self._errors: dict[str, list[float | None]] = {"forward_max_relative_error": [], "gradient_relative_error": []}
        self._values: dict[str, list[Any]] = {}
        self._intervals: dict[str, list[tuple[float, float] | None]] = {}
        self._samples: dict[str, tuple[Places, Numbers]] = {}
        self._shared: dict[int, _Shared] = {}
        self._examples: dict[int, StoredRecord] = {}
        self._whole: OrderedDict[int, Record] = OrderedDict()
        self._load()

    def _load(self) -> None:
        numbers: dict[tuple[Any, ...], int] = {}
        ids, classes, seeds = [], [], []
        query = f"SELECT {', '.join((*_OWN, *_SHAPE, *_SETTING))} FROM record ORDER BY id"  # noqa: S608 - our own names
        forward, gradient = self._errors.values()
        for row in self.connection.execute(query):
            number, case_id, seed, calls, forward_error, gradient_error = row[:6]
            ids.append(number)
            self.case_ids.append(case_id)
            seeds.append(seed)
            self.op_calls.append(calls)
            forward.append(None if forward_error is None else float(forward_error))
            gradient.append(None if gradient_error is None else float(gradient_error))
            classes.append(numbers.setdefault(row[6:], len(numbers)))
        self._ids: Places = np.array(ids, dtype=np.int64)
        self.seeds: Places = np.array(seeds, dtype=np.int64)
        self.calls: Numbers = np.array([nan if calls is None else calls for calls in self.op_calls], np.float64)
        self._keys = list(numbers)
        self.class_of: Places = np.array(classes, dtype=np.int64)
        shapes: dict[tuple[Any, ...], int] = {}
        of_classes = [shapes.setdefault(key[: len(_SHAPE)], len(shapes)) for key in self._keys]
        self.shape_of: Places = np.array(of_classes, dtype=np.int64)

    @property
    def connection(self) -> sqlite3.Connection:
        """To the file; each process has its own."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = os.getpid(), connect_to_read(self._path)
        return self._open[1]

    def shared(self, row: int) -> _Shared:
        """What a record has in common with others of its class."""
        number = int(self.class_of[row])
        if number not in self._shared:
            self._shared[number] = self._make_shared(dict(zip((*_SHAPE, *_SETTING), self._keys[number], strict=True)))
        return self._shared[number]

    def _make_shared(self, key: dict[str, Any]) -> _Shared:
        content = json.loads(self._contents[key["content_id"]])
        names = self._metric_names
        metrics = {
            name: MetricShape(unit, direction, kind, samples, has_interval)
            for (name, unit, direction, kind), samples, has_interval in (
                (names[number], samples, has_interval) for number, _, samples, has_interval in content["metrics"]
            )
        }
        bare = {**key, "forward_max_relative_error": 0.0, "gradient_relative_error": 0.0}
        axes: dict[str, Any] = {**{name: key[name] for name in CASE if name != "seed"}, "seed": 0}
        return _Shared(
            case=CaseKey(id="", **axes),
            schema=key["schema"],
            run=key["run"],
            status=key["status"],
            reason=key["reason"],
            notes=tuple(json.loads(key["notes"])),
            data=data_from(self._data[key["data_id"]]),
            fingerprint=fingerprint_from(key),
            parity=parity_from(bare),
            data_parallel=data_parallel_from(key),
            metrics=metrics,
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
    def _metric_names(self) -> dict[int, tuple[Any, ...]]:
        query = "SELECT id, name, unit, direction, kind FROM metric_name"
        return {number: tuple(rest) for number, *rest in self.connection.execute(query)}

    def record(self, row: int) -> "StoredRecord":
        """The record of a row."""
        found, put, shared = object.__new__(StoredRecord), object.__setattr__, self.shared(row)
        put(found, "case", replace(shared.case, id=self.case_ids[row], seed=int(self.seeds[row])))
        put(found, "status", shared.status)
        put(found, "metrics", StoredMetrics(self, row))
        put(found, "shared", shared)
        put(found, "row", row)
        put(found, "_columns", self)
        return found

    def example(self, number: int) -> "StoredRecord":
        """A record of a class."""
        if number not in self._examples:
            self._examples[number] = self.record(int(self._firsts[number]))
        return self._examples[number]

    @cached_property
    def _firsts(self) -> Places:
        return np.unique(self.class_of, return_index=True)[1]

    def whole(self, row: int) -> Record:
        """The record of a row, read whole and kept for a while."""
        if row not in self._whole:
            [self._whole[row]] = read_records(self.connection, "record.id = ?", [int(self._ids[row])])
            if len(self._whole) > _KEPT:
                self._whole.popitem(last=False)
        return self._whole[row]

    def metrics(self, row: int) -> dict[str, Metric]:
        """The metrics of the record of a row."""
        return read_metrics(self.connection, int(self._ids[row]))

    def values(self, metric: str) -> list[Any]:
        """The values of a metric, [records]; None where a record has none of the name."""
        if metric not in self._values:
            rows, found = self._column(metric, "value")
            values: list[Any] = [None] * len(self.case_ids)
            for row, (value,) in zip(rows, found, strict=True):
                values[row] = float(value) if isinstance(value, str) else value
            self._values[metric] = values
        return self._values[metric]

    def known_value(self, metric: str, row: int) -> float | int | None:
        """The value of a metric in a row; None where the column has not been read."""
        column = self._values.get(metric)
        return None if column is None else column[row]

    def intervals(self, metric: str) -> list[tuple[float, float] | None]:
        """The intervals of a metric, [records]; None where a record has none."""
        if metric not in self._intervals:
            ends: list[tuple[float, float] | None] = [None] * len(self.case_ids)
            for row, (low, high) in zip(*self._column(metric, "low, high"), strict=True):
                ends[row] = None if low is None else (float(low), float(high))
            self._intervals[metric] = ends
        return self._intervals[metric]

    def samples(self, metric: str) -> tuple[Places, Numbers]:
        """Where the samples of each record begin, [records + 1], and all samples, [samples]."""
        if metric not in self._samples:
            rows, found = self._column(metric, "samples")
            texts = ["[]"] * len(self.case_ids)
            for row, (text,) in zip(rows, found, strict=True):
                texts[row] = text or "[]"
            lists = pydantic_core.from_json(f"[{','.join(texts)}]")
            ends = np.cumsum([0, *map(len, lists)], dtype=np.int64)
            self._samples[metric] = ends, np.fromiter(map(float, chain.from_iterable(lists)), np.float64, int(ends[-1]))
        return self._samples[metric]

    def _column(self, metric: str, names: str) -> tuple[list[int], list[tuple[Any, ...]]]:
        """The rows that have a metric, and columns of it."""
        ids = ", ".join(str(number) for number, (name, *_) in self._metric_names.items() if name == metric)
        query = f"SELECT record_id, {names} FROM metric WHERE metric_id IN ({ids})"  # noqa: S608 - our own names
        found = self.connection.execute(query).fetchall()
        rows = np.searchsorted(self._ids, np.array([each[0] for each in found], dtype=np.int64))
        return rows.tolist(), [each[1:] for each in found]

    def parity_errors(self, name: ParityErrorName) -> list[float | None]:
        """How far realizations lay from the oracle, [records]; None where that was not measured."""
        return self._errors[name]

    def parity_error(self, row: int, name: ParityErrorName) -> float | None:
        """That of one record."""
        return self._errors[name][row]


class StoredMetrics(Mapping[str, Metric]):
    """The metrics of a stored record, read when one is asked for."""

    __slots__ = ("_columns", "_found", "_row", "shapes")

    def __init__(self, columns: Columns, row: int) -> None:
        self._columns = columns
        self._row = row
        self._found: dict[str, Metric] | None = None
        self.shapes = columns.shared(row).metrics

    def __getitem__(self, name: str) -> Metric:
        if name not in self.shapes:
            raise KeyError(name)
        if self._found is None:
            self._found = self._columns.metrics(self._row)
        return self._found[name]

    def value(self, name: str) -> float | int:
        """The value of a metric that is there, from its column where that has been read."""
        known = self._columns.known_value(name, self._row) if self._found is None else None
        return self[name].value if known is None else known

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __repr__(self) -> str:
        return repr(dict(self))


class StoredRecord(Record):
    """A record whose ops and layers are read when they are asked for; made by `Columns.record`.

    Attributes:
        shared: what it has in common with other records.
        row: its row among the columns.
    """

    __slots__ = ("_columns", "row", "shared")

    shared: _Shared
    row: int
    _columns: Columns

    def whole(self) -> Record:
        """The record as an ordinary one."""
        return self._columns.whole(self.row)

    def parity_error(self, name: ParityErrorName) -> float | None:
        """How far its realization lay from the oracle; None where that was not measured."""
        return self._columns.parity_error(self.row, name)

    @property
    def op_calls(self) -> int | None:
        """Calls of all ops of the profiled train step."""
        return self._columns.op_calls[self.row]

    @property
    def parity(self) -> Parity | None:
        """As in `Record`."""
        if self.shared.parity is None:
            return None
        errors: dict[str, Any] = {name: self.parity_error(name) for name in get_args(ParityErrorName)}
        return replace(self.shared.parity, **errors)


def _from_shared(name: str) -> property:
    return property(lambda record: getattr(record.shared, name))


def _from_whole(name: str) -> property:
    return property(lambda record: getattr(record.whole(), name))


def _if_there(name: str, nothing: object) -> property:
    """A field that is read from the file unless the record is known to have nothing there."""
    return property(lambda record: getattr(record.whole(), name) if name in record.shared.parts else nothing)


for _name in ("schema", "run", "reason", "notes", "data", "fingerprint", "data_parallel"):
    setattr(StoredRecord, _name, _from_shared(_name))
for _name in ("ops", "alive_at_peak", "distributions", "routing"):
    setattr(StoredRecord, _name, _if_there(_name, ()))
setattr(StoredRecord, "forward_profile", _if_there("forward_profile", None))  # noqa: B010
for _name in ("step_profile_seconds", "step_profile_bytes", "step_bare_seconds", "equations"):
    setattr(StoredRecord, _name, _from_whole(_name))
