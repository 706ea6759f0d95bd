"""The op table: what a profiled train step spent, op by op, in names that align the frameworks.

A backend turns its profiler's events into `OpEvent`s; here they are summed. The rows and the unattributed rest add up
to the step exactly, in bytes and in seconds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]
VIEW = "View"
UNATTRIBUTED = "(unattributed)"


@dataclass(frozen=True, slots=True)
class OpEvent:
    """One or more calls of one op.

    Attributes:
        op: canonical name (`BatchMatMul`, `Mul`, `Conv2D`, …; `View` for what moves no data; `Other:<native>`).
        native: the framework's own name.
        layer: the layer whose forward pass made it, where known.
        phase: part of the train step.
        routing_iteration: where known, counted from 0.
        calls: how often it ran.
        self_seconds: time in the op itself, nested ops excluded.
        allocated_bytes: bytes the op asked the allocator for, freed ones included.
    """

    op: str
    native: str
    layer: str | None
    phase: Phase
    routing_iteration: int | None
    calls: int
    self_seconds: float
    allocated_bytes: int


@dataclass(frozen=True, slots=True)
class StepProfile:
    """One profiled train step.

    Attributes:
        events: of all phases.
        step_seconds: wall time of the step under the profiler.
        allocated_bytes: everything the allocator handed out in the step, whether an op is known for it or not.
    """

    events: tuple[OpEvent, ...]
    step_seconds: float
    allocated_bytes: int


@dataclass(frozen=True, slots=True)
class OpRow:
    """One line of an op table, summed over all events of one canonical op (and one phase, where asked)."""

    op: str
    phase: Phase | None
    calls: int
    self_seconds: float
    allocated_bytes: int


def merge(events: Iterable[OpEvent]) -> tuple[OpEvent, ...]:
    """Sum events that differ in nothing but their quantities, the largest in bytes first."""
    sums: dict[tuple[str, str, str | None, Phase, int | None], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for event in events:
        total = sums[event.op, event.native, event.layer, event.phase, event.routing_iteration]
        total[0] += event.calls
        total[1] += event.self_seconds
        total[2] += event.allocated_bytes
    merged = (OpEvent(*key, int(calls), seconds, int(size)) for key, (calls, seconds, size) in sums.items())
    return tuple(sorted(merged, key=lambda e: (-e.allocated_bytes, -e.self_seconds, e.native)))


def rows(profile: StepProfile, *, by_phase: bool = False) -> tuple[OpRow, ...]:
    """The table of a step, the largest in bytes first, the unattributed rest last.

    Views are left out: they hold neither bytes nor a kernel's time, and what little time they took is counted as
    unattributed, so that the rows still add up to the step.
    """
    sums: dict[tuple[str, Phase | None], list[float]] = defaultdict(lambda: [0, 0.0, 0])
    for event in profile.events:
        if event.op != VIEW:
            total = sums[event.op, event.phase if by_phase else None]
            total[0] += event.calls
            total[1] += event.self_seconds
            total[2] += event.allocated_bytes
    table = [OpRow(op, phase, int(n), seconds, int(size)) for (op, phase), (n, seconds, size) in sums.items()]
    table.sort(key=lambda row: (-row.allocated_bytes, -row.self_seconds, row.op))
    return (*table, _rest(profile, table))


def _rest(profile: StepProfile, table: Sequence[OpRow]) -> OpRow:
    seconds = profile.step_seconds - sum(row.self_seconds for row in table)
    size = profile.allocated_bytes - sum(row.allocated_bytes for row in table)
    return OpRow(UNATTRIBUTED, None, 0, seconds, size)
