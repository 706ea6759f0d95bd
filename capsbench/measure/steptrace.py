"""One step as a profiler saw it, in terms that no framework owns, and what follows from it.

A backend turns its profiler's events into spans (an op that ran) and heap events (memory asked for or given back). From
these come the op events, the peak, what is alive there, and the trace file: the same way for every framework.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from capsbench.measure.optable import LiveTensor, OpEvent, Phase, StepProfile, merge

VOTES = "votes"
# A GPU's allocator rounds up to this.
_ROUNDING_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One op that ran.

    Attributes:
        op: canonical name, as in `OpEvent`.
        native: the framework's own name.
        layer: the layer whose forward pass made it, where known.
        phase: part of the step.
        routing_iteration: where known, counted from 0.
        start_seconds: since the step began.
        seconds: how long it ran, nested ops included.
        self_seconds: nested ops excluded.
        calls: 0 for an op that only hands its work to others, which are spans of their own.
        votes: whether it ran while the layer's votes were being cast.
        track: what it ran on, such as `cpu` or `cuda:0`.
    """

    op: str
    native: str
    layer: str | None
    phase: Phase
    routing_iteration: int | None
    start_seconds: float
    seconds: float
    self_seconds: float
    calls: int = 1
    votes: bool = False
    track: str = "cpu"


@dataclass(frozen=True, slots=True)
class HeapEvent:
    """Memory asked for, or given back.

    Attributes:
        seconds: since the step began.
        address: of the block.
        size: bytes asked for; None where the block is given back.
        span: index of the span that asked; None where no op is known for it.
        released_bytes: size of a block that is given back, where the profiler tells it; for blocks of before the step.
    """

    seconds: float
    address: int
    size: int | None
    span: int | None = None
    released_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StepTrace:
    """Everything a profiler saw of one step.

    Attributes:
        spans: in the order in which they started.
        heap: in the order of time.
        seconds: wall time of the step under the profiler.
        resident: bytes alive before the step by what they are (`parameters`, `optimizer state`, `batch`, …).
    """

    spans: tuple[Span, ...]
    heap: tuple[HeapEvent, ...]
    seconds: float
    resident: Mapping[str, int]


def summarise(trace: StepTrace, vote_bytes: Mapping[str, int]) -> StepProfile:
    """The op events of a step, its allocated bytes, its peak and what is alive there.

    Args:
        trace: of one step.
        vote_bytes: size of each routed layer's votes, by which the vote tensor is found among the tensors made while
            votes are cast: the last one of that size.
    """
    allocated: dict[int, int] = defaultdict(int)
    for event in trace.heap:
        if event.span is not None:
            allocated[event.span] += event.size or 0
    alive = _alive_at_peak(trace.heap)
    live: dict[int, int] = defaultdict(int)
    for event in alive:
        if event.span is not None:
            live[event.span] += event.size or 0
    events = (
        OpEvent(
            op=span.op,
            native=span.native,
            layer=span.layer,
            phase=span.phase,
            routing_iteration=span.routing_iteration,
            calls=span.calls,
            self_seconds=span.self_seconds,
            allocated_bytes=allocated[number],
            live_bytes_at_peak=live[number],
        )
        for number, span in enumerate(trace.spans)
    )
    tensors = _live_tensors(trace, alive, vote_bytes)
    return StepProfile(
        events=merge(events),
        step_seconds=trace.seconds,
        allocated_bytes=sum(event.size or 0 for event in trace.heap),
        peak_bytes=sum(tensor.bytes for tensor in tensors),
        alive_at_peak=tensors,
    )


def peak_growth_bytes(heap: Sequence[HeapEvent]) -> int:
    """The most bytes alive at once, over those alive before the first event."""
    return sum(event.size or 0 for event in _alive_at_peak(heap))


def _alive_at_peak(heap: Sequence[HeapEvent]) -> tuple[HeapEvent, ...]:
    """The blocks that are alive when the most bytes are, in the order in which they were asked for."""
    peak_at, total, peak = -1, 0, 0
    alive: dict[int, HeapEvent] = {}
    for number, event in enumerate(heap):
        total += update_alive(event, alive)
        if total > peak:
            peak_at, peak = number, total
    alive = {}
    for event in heap[: peak_at + 1]:
        update_alive(event, alive)
    return tuple(alive.values())


def update_alive(event: HeapEvent, alive: dict[int, HeapEvent]) -> int:
    """Update the blocks that are alive, by address, and return by how many bytes they grow.

    A block of before the step that is released has been replaced: the newest block of its size, such as the new value
    of a parameter, counts from then on as the old one did.
    """
    before = alive.pop(event.address, None)
    if before is None and event.size is None and event.released_bytes:
        alike = (address for address in reversed(alive) if alive[address].size == event.released_bytes)
        before = alive.pop(next(alike, event.address), None)
    if event.size is not None:
        alive[event.address] = event
    return (event.size or 0) - (before.size or 0 if before is not None else 0)


def _live_tensors(
    trace: StepTrace, alive: Sequence[HeapEvent], vote_bytes: Mapping[str, int]
) -> tuple[LiveTensor, ...]:
    """What is alive at the peak, blocks of one origin summed, the largest first; resident tensors have no op."""
    votes = _vote_blocks(trace, vote_bytes)
    blocks: dict[LiveTensor, list[int]] = {
        LiveTensor(name, None, None, None, None, 0, 0): [size] for name, size in trace.resident.items()
    }
    for event in alive:
        name = VOTES if id(event) in votes else None
        origin = LiveTensor(name, None, None, None, None, 0, 0)
        if event.span is not None:
            span = trace.spans[event.span]
            origin = LiveTensor(name, span.op, span.layer, span.phase, span.routing_iteration, 0, 0)
        blocks.setdefault(origin, []).append(event.size or 0)
    tensors = (replace(origin, count=len(sizes), bytes=sum(sizes)) for origin, sizes in blocks.items())
    return tuple(sorted(tensors, key=lambda tensor: (-tensor.bytes, str(tensor))))


def _vote_blocks(trace: StepTrace, vote_bytes: Mapping[str, int]) -> frozenset[int]:
    """Identities of the heap events that made the votes, one a routed layer."""
    last: dict[str, HeapEvent] = {}
    for event in trace.heap:
        span = None if event.span is None else trace.spans[event.span]
        if span is None or not span.votes or span.phase != "forward" or span.layer is None or event.size is None:
            continue
        wanted = vote_bytes.get(span.layer, 0)
        if wanted <= event.size < wanted + _ROUNDING_BYTES:
            last[span.layer] = event
    return frozenset(map(id, last.values()))
