"""Why a number of a case moved: the op, layer and routing iterations that moved most between two profiled steps."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from capsbench.measure.optable import Phase
from capsbench.metrics import OP_CALLS, OpQuantity, metric_type
from capsbench.record.changes import Change
from capsbench.record.schema import Record

UNATTRIBUTED: Final = "(unattributed)"
"""Stands for what no op is known for."""
# An op whose time moved by less than this share of what the step's did is not why the step's did.
_LEAST_SHARE: Final = 0.25

_What = tuple[str, str | None, Phase | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """What moved most, in the direction in which the number moved.

    Attributes:
        op: canonical name; of memory that is alive at the peak its name, where it has one.
        layer: whose forward pass made it, where known.
        phase: of the step, where known.
        routing_iterations: those in which it moved, counted from 0.
        quantity: which one.
        before: in A, all iterations together.
        after: in B.
        calls: before and after; None of memory that is alive at the peak.
    """

    op: str
    layer: str | None
    phase: Phase | None
    routing_iterations: tuple[int, ...]
    quantity: OpQuantity
    before: float
    after: float
    calls: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of either table."""

    what: _What
    iteration: int | None
    amount: float
    calls: int | None


def explain(change: Change) -> Mover | None:
    """What a change comes from, by the op tables of its two records; None where nothing in them explains it.

    Bytes and calls are exact. Times are those of profiled steps, which scatter: an op is named only where it moved by
    a good part of what the step did.
    """
    quantity = metric_type(change.metric).op_quantity
    if quantity is None or change.base is None or change.new is None:
        return None
    sign = 1 if change.new > change.base else -1
    sides = [list(_entries(record, change.metric)) for record in (change.pair.base, change.pair.new)]
    if not all(sides):
        return None
    before, after = (_sums(entries) for entries in sides)
    moved = {what: sign * (after[what] - before[what]) for what in (*before, *after)}
    most = max(moved, key=lambda what: moved[what])
    least = _LEAST_SHARE * abs(change.new - change.base) if quantity == "seconds" else 0.0
    if moved[most] <= least:
        return None
    alike = [[entry for entry in entries if entry.what == most] for entries in sides]
    counted = quantity != "live bytes" and most[0] != UNATTRIBUTED
    calls = sum(entry.calls or 0 for entry in alike[0]), sum(entry.calls or 0 for entry in alike[1])
    return Mover(
        op=most[0],
        layer=most[1],
        phase=most[2],
        routing_iterations=_iterations(alike[0], alike[1], sign),
        quantity=quantity,
        before=before[most],
        after=after[most],
        calls=calls if counted else None,
    )


def _entries(record: Record, metric: str) -> Iterator[_Entry]:
    if metric == "peak_bytes":
        for each in record.alive_at_peak:
            yield _Entry(
                (each.name or each.op or UNATTRIBUTED, each.layer, each.phase), each.routing_iteration, each.bytes, None
            )
        return
    forward = record.forward_profile if metric == "forward_seconds" else None
    events = forward.events if forward else record.ops if metric != "forward_seconds" else ()
    total = 0.0
    for event in events:
        amount = {OP_CALLS: event.calls, "allocated_bytes": event.allocated_bytes}.get(metric, event.self_seconds)
        total += amount
        yield _Entry((event.op, event.layer, event.phase), event.routing_iteration, amount, event.calls)
    whole = forward.step_seconds if forward else _whole(record, metric)
    if events and whole is not None:
        yield _Entry((UNATTRIBUTED, None, None), None, whole - total, None)


def _whole(record: Record, metric: str) -> float | None:
    known = {"allocated_bytes": record.step_profile_bytes, "train_step_seconds": record.step_profile_seconds}
    return known.get(metric)


def _sums(entries: Iterable[_Entry]) -> defaultdict[_What, float]:
    sums: defaultdict[_What, float] = defaultdict(float)
    for entry in entries:
        sums[entry.what] += entry.amount
    return sums


def _iterations(before: Iterable[_Entry], after: Iterable[_Entry], sign: int) -> tuple[int, ...]:
    moved: defaultdict[int, float] = defaultdict(float)
    for entries, factor in ((before, -sign), (after, sign)):
        for entry in entries:
            if entry.iteration is not None:
                moved[entry.iteration] += factor * entry.amount
    return tuple(sorted(iteration for iteration, amount in moved.items() if amount > 0))
