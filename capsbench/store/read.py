"""Read whole records from run.sqlite."""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

import pydantic_core

from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.schema import (
    CaseKey,
    DataParallel,
    Drift,
    Fingerprint,
    Metric,
    Parity,
    Perturbed,
    Record,
    Rounding,
    SplitFacts,
    TrainSteps,
)

TRAIN_STEP: Final = "train_step"
FORWARD: Final = "forward"
CASE: Final = tuple(each.name for each in fields(CaseKey) if each.name != "id")
"""Columns of `record` with the axes of a case, in the order of `CaseKey`."""

PARITY: Final = ("forward_max_relative_error", "gradient_relative_error", "forward_limit", "gradient_limit")
ROUNDING: Final = ("float64_error", "drawn_forward_error", "drawn_gradient_error")
DRIFT: Final = ("float32_steps", "float64_steps", "float64_deviation")
LAYER: Final = tuple(each.name for each in fields(LayerCost))
ROUTING: Final = tuple(each.name for each in fields(RoutingIteration))
DISTRIBUTION: Final = tuple(each.name for each in fields(Distribution))


def read_records(connection: sqlite3.Connection, where: str = "", values: Sequence[object] = ()) -> Iterator[Record]:
    """Whole records in the order in which their cases first ended.

    Args:
        connection: to a run.
        where: SQL after `WHERE`, on the table `record`.
        values: for its placeholders.
    """
    condition = f" WHERE {where}" if where else ""
    cursor = connection.execute(
        f"SELECT record.*, data.splits FROM record JOIN data ON data.id = data_id{condition} ORDER BY record.id",  # noqa: S608
        values,
    )
    names = [column[0] for column in cursor.description]
    for row in cursor:
        yield _record(connection, dict(zip(names, row, strict=True)))


def read_metrics(connection: sqlite3.Connection, record_id: int) -> dict[str, Metric]:
    """The metrics of a record, in the order in which they were written."""
    query = (
        "SELECT name, value, unit, direction, kind, samples, low, high, contended FROM metric JOIN metric_name ON "
        "metric_name.id = metric_id WHERE record_id = ? ORDER BY position"
    )
    return {
        name: Metric(
            value=_number(value),
            unit=unit,
            direction=direction,
            kind=kind,
            samples=samples_from(samples),
            interval=None if low is None else (float(low), float(high)),
            contended=contended,
        )
        for name, value, unit, direction, kind, samples, low, high, contended in connection.execute(query, [record_id])
    }


def samples_from(text: str | None) -> tuple[float, ...]:
    """The samples of a metric, from the JSON in its column."""
    return tuple(map(float, pydantic_core.from_json(text))) if text else ()


def fingerprint_from(row: Mapping[str, Any]) -> Fingerprint:
    """The hashes in a row of `record`."""
    return Fingerprint(network=row["network_hash"], protocol=row["protocol_hash"], environment=row["environment_hash"])


def parity_from(row: Mapping[str, Any]) -> Parity | None:
    """The parity in a row of `record`; None where it was not checked."""
    if row["parity_oracle"] is None:
        return None
    rounding = [row[f"rounding_{name}"] for name in ROUNDING]
    return Parity(
        oracle=row["parity_oracle"],
        **{name: float(row[name]) for name in PARITY},
        passed=bool(row["parity_passed"]),
        rounding=None if rounding[0] is None else Rounding(**dict(zip(ROUNDING, map(float, rounding), strict=True))),
        perturbed=_perturbed_from(row),
        train_steps=_train_steps_from(row),
        failure=row.get("parity_failure") or "",
    )


def _perturbed_from(row: Mapping[str, Any]) -> Perturbed | None:
    """Part two of the parity in a row of `record`; None where there was none, and in files of version 1."""
    if row.get("perturbed_images") is None:
        return None
    return Perturbed(
        images=row["perturbed_images"],
        batch=row["perturbed_batch"],
        forward_max_relative_error=float(row["perturbed_forward_error"]),
        gradient_relative_error=float(row["perturbed_gradient_error"]),
        draws=row["perturbed_draws"],
    )


def _train_steps_from(row: Mapping[str, Any]) -> TrainSteps | None:
    """Part three, likewise."""
    if row.get("steps_taken") is None:
        return None
    return TrainSteps(
        steps=row["steps_taken"],
        batch=row["steps_batch"],
        max_relative_error=float(row["steps_error"]),
        limit=float(row["steps_limit"]),
        worst=row["steps_worst"],
    )


def data_parallel_from(row: Mapping[str, Any]) -> DataParallel | None:
    """The check of several devices in a row of `record`; None where there was none."""
    if row["parallel_devices"] is None:
        return None
    drift = [row[f"drift_{name}"] for name in DRIFT]
    return DataParallel(
        devices=row["parallel_devices"],
        steps=row["parallel_steps"],
        loss_max_relative_deviation=float(row["parallel_loss_deviation"]),
        limit=float(row["parallel_limit"]),
        passed=bool(row["parallel_passed"]),
        drift=None
        if drift[0] is None
        else Drift(float64_deviation=float(drift[2]), **dict(zip(DRIFT[:2], drift[:2], strict=True))),
    )


def data_from(text: str) -> dict[str, SplitFacts]:
    """Facts on each split, from the JSON in `data.splits`."""
    return {name: SplitFacts(**facts) for name, facts in json.loads(text).items()}


def _record(connection: sqlite3.Connection, row: dict[str, Any]) -> Record:
    number = row["id"]
    steps, alive = _read_steps(connection, number)
    return Record(
        schema=row["schema"],
        run=row["run"],
        case=CaseKey(id=row["case_id"], **{name: row[name] for name in CASE}),
        status=row["status"],
        reason=row["reason"],
        parity=parity_from(row),
        data_parallel=data_parallel_from(row),
        metrics=read_metrics(connection, number),
        ops=steps[TRAIN_STEP],
        step_profile_seconds=_real(row["step_profile_seconds"]),
        step_profile_bytes=row["step_profile_bytes"],
        step_bare_seconds=_real(row["step_bare_seconds"]),
        alive_at_peak=alive[TRAIN_STEP],
        forward_profile=_forward_profile(row, steps[FORWARD], alive[FORWARD]),
        equations=tuple(LayerCost(*each) for each in _rows(connection, "layer", LAYER, number)),
        distributions=tuple(_distribution(each) for each in _rows(connection, "distribution", DISTRIBUTION, number)),
        routing=tuple(_routing(each) for each in _rows(connection, "routing", ROUTING, number)),
        data=data_from(row["splits"]),
        notes=tuple(json.loads(row["notes"])),
        fingerprint=fingerprint_from(row),
    )


def _read_steps(
    connection: sqlite3.Connection, number: int
) -> tuple[dict[str, tuple[OpEvent, ...]], dict[str, tuple[LiveTensor, ...]]]:
    """Ops and live tensors of a record by the step that they belong to."""
    ops: dict[str, list[OpEvent]] = {TRAIN_STEP: [], FORWARD: []}
    query = (
        "SELECT step, op, native, layer, phase, routing_iteration, calls, self_seconds, allocated_bytes, "
        "live_bytes_at_peak FROM op JOIN op_name ON op_name.id = op_id WHERE record_id = ? ORDER BY position"
    )
    for step, op, native, layer, phase, iteration, calls, seconds, *sizes in connection.execute(query, [number]):
        ops[step].append(OpEvent(op, native, layer, phase, iteration, calls, float(seconds), *sizes))
    alive: dict[str, list[LiveTensor]] = {TRAIN_STEP: [], FORWARD: []}
    query = (
        "SELECT step, name, op, layer, phase, routing_iteration, count, bytes FROM live_tensor "
        "JOIN tensor_name ON tensor_name.id = tensor_id WHERE record_id = ? ORDER BY position"
    )
    for step, *tensor in connection.execute(query, [number]):
        alive[step].append(LiveTensor(*tensor))
    return {step: tuple(each) for step, each in ops.items()}, {step: tuple(each) for step, each in alive.items()}


def _forward_profile(
    row: Mapping[str, Any], events: tuple[OpEvent, ...], alive: tuple[LiveTensor, ...]
) -> StepProfile | None:
    if row["forward_profile_seconds"] is None:
        return None
    return StepProfile(
        events=events,
        step_seconds=float(row["forward_profile_seconds"]),
        allocated_bytes=row["forward_profile_bytes"],
        bare_seconds=_real(row["forward_bare_seconds"]),
        peak_bytes=row["forward_peak_bytes"],
        alive_at_peak=alive,
    )


def _rows(connection: sqlite3.Connection, table: str, names: Sequence[str], number: int) -> Iterator[tuple[Any, ...]]:
    query = f"SELECT {', '.join(names)} FROM {table} WHERE record_id = ? ORDER BY position"  # noqa: S608
    yield from connection.execute(query, [number])


def _distribution(row: Sequence[Any]) -> Distribution:
    told = dict(zip(DISTRIBUTION, row, strict=True))
    whole = {"layer", "quantity", "images", "count", "quantiles"}
    numbers = {name: _real(value) for name, value in told.items() if name not in whole}
    return Distribution(**{**told, **numbers, "quantiles": samples_from(told["quantiles"])})


def _routing(row: Sequence[Any]) -> RoutingIteration:
    layer, iteration, *numbers = row
    return RoutingIteration(**dict(zip(ROUTING, (layer, iteration, *map(float, numbers)), strict=True)))


def _real(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _number(value: float | str) -> float | int:
    return float(value) if isinstance(value, str) else value
