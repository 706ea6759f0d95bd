"""Write records into run.sqlite.

A number that is not finite is stored as SQLite has it (infinity) or as the text `NaN`, for which SQLite has no number.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from capsbench.measure.distribution import Distribution
from capsbench.network.text import plain
from capsbench.record.codec import strict
from capsbench.record.schema import Metric, Record
from capsbench.store.read import CASE, DISTRIBUTION, DRIFT, FORWARD, LAYER, PARITY, ROUNDING, ROUTING, TRAIN_STEP

_PARTS: Final = ("ops", "alive_at_peak", "forward_profile", "distributions", "routing")
_PER_RECORD: Final = ("metric", "op", "live_tensor", "layer", "distribution", "routing")


class SharedNames:
    """Ids of rows that many records share, such as the names of ops.

    Args:
        connection: in a transaction.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[tuple[object, ...], int] = {}

    def id(self, table: str, **values: object) -> int:
        """Id of the row with these values; it is added where it is new."""
        key = (table, *values.values())
        if key not in self._known:
            self._known[key] = self._find(table, values) or self._add(table, values)
        return self._known[key]

    def _find(self, table: str, values: dict[str, object]) -> int | None:
        condition = " AND ".join(f"{name} IS ?" for name in values)
        query = f"SELECT id FROM {table} WHERE {condition}"  # noqa: S608 - names of our own
        found = self._connection.execute(query, list(map(_sql, values.values()))).fetchone()
        return None if found is None else int(found[0])

    def _add(self, table: str, values: dict[str, object]) -> int:
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"  # noqa: S608
        return int(self._connection.execute(statement, list(map(_sql, values.values()))).lastrowid or 0)


def write_record(connection: sqlite3.Connection, names: SharedNames, record: Record, start: int | None) -> None:
    """Insert a record, or replace the one of the same case, which keeps its place.

    Args:
        connection: in a transaction.
        names: of the same connection and transaction.
        record: of a case that has ended.
        start: id of the row in `start` that says who measured it.

    Raises:
        OverflowError: a whole number does not fit into 64 bits.
    """
    metric_ids = [
        names.id("metric_name", name=name, unit=m.unit, direction=m.direction, kind=m.kind)
        for name, m in record.metrics.items()
    ]
    columns = {
        "start_id": start,
        **_record_columns(record),
        "data_id": names.id("data", splits=_json(plain(record.data, defaults=True))),
        "content_id": names.id("content", description=_json(_content(record, metric_ids))),
    }
    listed = ", ".join(columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "case_id")
    connection.execute(
        f"INSERT INTO record ({listed}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 - names of our own
        f" ON CONFLICT (case_id) DO UPDATE SET {changes}",
        list(map(_sql, columns.values())),
    )
    query = "SELECT id FROM record WHERE case_id = ?"
    (number,) = connection.execute(query, [_sql(record.case.id)]).fetchone()
    for table in _PER_RECORD:
        connection.execute(f"DELETE FROM {table} WHERE record_id = ?", [number])  # noqa: S608 - as above
    _write_metrics(connection, number, record, metric_ids)
    _write_steps(connection, names, number, record)
    _write_all(connection, "layer", number, map(attrgetter(*LAYER), record.equations))
    _write_all(connection, "routing", number, map(attrgetter(*ROUTING), record.routing))
    _write_all(connection, "distribution", number, (_distribution_row(each) for each in record.distributions))


def _record_columns(record: Record) -> dict[str, object]:
    """The columns of `record` that need no other table."""
    parity, parallel, forward = record.parity, record.data_parallel, record.forward_profile
    rounding, drift = parity and parity.rounding, parallel and parallel.drift
    perturbed, steps = parity and parity.perturbed, parity and parity.train_steps
    return {
        "schema": record.schema,
        "run": record.run,
        "case_id": record.case.id,
        **{name: getattr(record.case, name) for name in CASE},
        "status": record.status,
        "reason": record.reason,
        "notes": _json(record.notes),
        "network_hash": record.fingerprint.network,
        "protocol_hash": record.fingerprint.protocol,
        "environment_hash": record.fingerprint.environment,
        "parity_oracle": parity and parity.oracle,
        **{name: getattr(parity, name, None) for name in PARITY},
        "parity_passed": parity and parity.passed,
        **{f"rounding_{name}": getattr(rounding, name, None) for name in ROUNDING},
        "parallel_devices": parallel and parallel.devices,
        "parallel_steps": parallel and parallel.steps,
        "parallel_loss_deviation": parallel and parallel.loss_max_relative_deviation,
        "parallel_limit": parallel and parallel.limit,
        "parallel_passed": parallel and parallel.passed,
        **{f"drift_{name}": getattr(drift, name, None) for name in DRIFT},
        "op_calls": sum(event.calls for event in record.ops) if record.ops else None,
        "step_profile_seconds": record.step_profile_seconds,
        "step_profile_bytes": record.step_profile_bytes,
        "step_bare_seconds": record.step_bare_seconds,
        "forward_profile_seconds": forward and forward.step_seconds,
        "forward_profile_bytes": forward and forward.allocated_bytes,
        "forward_bare_seconds": forward and forward.bare_seconds,
        "forward_peak_bytes": forward and forward.peak_bytes,
        "perturbed_images": perturbed and perturbed.images,
        "perturbed_batch": perturbed and perturbed.batch,
        "perturbed_forward_error": perturbed and perturbed.forward_max_relative_error,
        "perturbed_gradient_error": perturbed and perturbed.gradient_relative_error,
        "perturbed_draws": perturbed and perturbed.draws,
        "steps_taken": steps and steps.steps,
        "steps_batch": steps and steps.batch,
        "steps_error": steps and steps.max_relative_error,
        "steps_limit": steps and steps.limit,
        "steps_worst": steps and steps.worst,
        "parity_failure": parity and parity.failure,
    }


def _content(record: Record, metric_ids: Sequence[int]) -> dict[str, object]:
    """What a record holds but for its numbers; records with the same content share one row."""
    metrics = zip(metric_ids, record.metrics.values(), strict=True)
    return {
        "metrics": [
            [number, type(each.value).__name__, len(each.samples), each.interval is not None]
            for number, each in metrics
        ],
        "parts": [part for part in _PARTS if getattr(record, part)],
        "ops": sorted({event.op for event in record.ops}),
    }


def _write_metrics(connection: sqlite3.Connection, number: int, record: Record, ids: Sequence[int]) -> None:
    rows = (
        (number, metric_id, position, each.value, *(each.interval or (None, None)), each.contended, _samples(each))
        for position, (metric_id, each) in enumerate(zip(ids, record.metrics.values(), strict=True))
    )
    _insert(connection, "metric", rows)


def _samples(metric: Metric) -> str | None:
    return _json(metric.samples) if metric.samples else None


def _write_steps(connection: sqlite3.Connection, names: SharedNames, number: int, record: Record) -> None:
    """Ops and live tensors of the train step, then those of the evaluation."""
    forward = record.forward_profile
    ops = [(TRAIN_STEP, event) for event in record.ops]
    alive = [(TRAIN_STEP, tensor) for tensor in record.alive_at_peak]
    if forward is not None:
        ops += ((FORWARD, event) for event in forward.events)
        alive += ((FORWARD, tensor) for tensor in forward.alive_at_peak)
    counted = attrgetter("calls", "self_seconds", "allocated_bytes", "live_bytes_at_peak")
    named = ("op", "native", "layer", "phase", "routing_iteration")
    rows = ((_shared(names, "op_name", step, event, named), *counted(event)) for step, event in ops)
    _write_all(connection, "op", number, rows)
    named = ("name", "op", "layer", "phase", "routing_iteration")
    tensors = ((_shared(names, "tensor_name", step, each, named), each.count, each.bytes) for step, each in alive)
    _write_all(connection, "live_tensor", number, tensors)


def _shared(names: SharedNames, table: str, step: str, each: object, named: Sequence[str]) -> int:
    """Id of an op's or a tensor's names in a step."""
    return names.id(table, step=step, **{name: getattr(each, name) for name in named})


def _distribution_row(each: Distribution) -> tuple[object, ...]:
    return tuple(_json(each.quantiles) if n == "quantiles" else getattr(each, n) for n in DISTRIBUTION)


def _write_all(connection: sqlite3.Connection, table: str, number: int, rows: Iterable[tuple[object, ...]]) -> None:
    _insert(connection, table, ((number, position, *row) for position, row in enumerate(rows)))


def _insert(connection: sqlite3.Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    bound = [tuple(map(_sql, row)) for row in rows]
    if bound:
        places = ", ".join("?" * len(bound[0]))
        connection.executemany(f"INSERT INTO {table} VALUES ({places})", bound)  # noqa: S608 - our own names


def _json(value: object) -> str:
    return json.dumps(strict(value), separators=(",", ":"), allow_nan=False)


def _sql(value: object) -> object:
    """A value as SQLite can hold it."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def write_start(connection: sqlite3.Connection, header: Mapping[str, Any]) -> int:
    """Insert a start of a run, or a resume, and return its id.

    Args:
        connection: in a transaction.
        header: when it began, its environment and suites, as run.json has them.
    """
    surroundings = _dict(header.get("environment"))
    commit = _dict(surroundings.get("commit"))
    row = (
        str(header.get("started") or ""),
        commit.get("hash"),
        commit.get("dirty"),
        _json(_dict(surroundings.get("machine"))),
        _json(_dict(surroundings.get("packages"))),
        _json(header.get("suites") or []),
    )
    columns = "started, commit_hash, dirty, machine, packages, suites"
    statement = f"INSERT INTO start ({columns}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own names
    return int(connection.execute(statement, list(map(_sql, row))).lastrowid or 0)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
