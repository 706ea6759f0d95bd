"""What a profiled step spent, op by op, in names that align the frameworks.

Events and what is unattributed add up to the step exactly, in bytes and in seconds.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["forward", "backward", "optimizer"]
VIEW = "View"


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
        live_bytes_at_peak: those of them that are alive when the step's memory is at its peak.
    """

    op: str
    native: str
    layer: str | None
    phase: Phase
    routing_iteration: int | None
    calls: int
    self_seconds: float
    allocated_bytes: int
    live_bytes_at_peak: int = 0


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """Memory of one origin that is alive when a step's memory is at its peak.

    Attributes:
        name: `votes`, or what is alive before the step begins (`parameters`, `optimizer state`, `batch`, …); None for
            other tensors.
        op: canonical name of the op that made it; None for what is alive before the step.
        layer: the layer whose forward pass made that op.
        phase: part of the step.
        routing_iteration: where known, counted from 0.
        count: blocks.
        bytes: of all of them.
    """

    name: str | None
    op: str | None
    layer: str | None
    phase: Phase | None
    routing_iteration: int | None
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StepProfile:
    """One profiled train step, or one profiled evaluation.

    Attributes:
        events: of all phases.
        step_seconds: wall time of the step under the profiler.
        allocated_bytes: everything the allocator handed out in the step, whether an op is known for it or not.
        bare_seconds: median wall time of the same step without the profiler, in the same process.
        peak_bytes: the most bytes alive at once, what was alive before included.
        alive_at_peak: what they are; their bytes sum to the peak.
    """

    events: tuple[OpEvent, ...]
    step_seconds: float
    allocated_bytes: int
    bare_seconds: float | None = None
    peak_bytes: int | None = None
    alive_at_peak: tuple[LiveTensor, ...] = ()

    @property
    def unattributed_seconds(self) -> float:
        """What no event accounts for; negative where events ran beside each other."""
        return self.step_seconds - sum(event.self_seconds for event in self.events)

    @property
    def unattributed_bytes(self) -> int:
        """What was handed out without an op being known for it."""
        return self.allocated_bytes - sum(event.allocated_bytes for event in self.events)


def merge(events: Iterable[OpEvent]) -> tuple[OpEvent, ...]:
    """Sum events that differ in nothing but their quantities, the largest in bytes first."""
    sums: dict[tuple[str, str, str | None, Phase, int | None], list[float]] = defaultdict(lambda: [0, 0.0, 0, 0])
    for event in events:
        _add(sums[event.op, event.native, event.layer, event.phase, event.routing_iteration], event)
    merged = (OpEvent(*key, int(n), seconds, int(size), int(live)) for key, (n, seconds, size, live) in sums.items())
    return tuple(sorted(merged, key=lambda e: (-e.allocated_bytes, -e.self_seconds, e.native)))


def _add(total: list[float], event: OpEvent) -> None:
    total[0] += event.calls
    total[1] += event.self_seconds
    total[2] += event.allocated_bytes
    total[3] += event.live_bytes_at_peak
