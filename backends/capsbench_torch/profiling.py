"""Where a step's bytes and seconds go in PyTorch: the profiler's event tree as spans and heap events.

The flat tables of `torch.profiler` give net memory only. Its event tree has every allocation as a node under the
innermost op that made it. The tree sits in a module that PyTorch calls private, so it is touched in this file alone.

Time that belongs to no op, but to a scope, an autograd node or a call of the optimizer, is a span of the op `Dispatch`:
what Python, the autograd engine and the profiler itself take between two ops. What is left unattributed then is the
time outside of all scopes.

A backward op belongs to the layer and the routing iteration of the forward op whose sequence number its node carries. A
parameter's gradient is stored (`AccumulateGrad`, which carries none) right after the node that made its last part,
because the engine takes that before any other node; it belongs to that node's layer.

On a GPU an op's time is that of the kernels that were launched under it, and Dispatch costs none: the CPU runs ahead.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.autograd import profiler
from torch.profiler import record_function

from capsbench.backend import MemoryUse
from capsbench.measure.optable import Phase
from capsbench.measure.steptrace import VOTES, HeapEvent, Span, StepTrace, peak_growth_bytes
from capsbench_torch.opnames import canonical, holds_all, is_node, shortened
from capsbench_torch.routing import Scope

_STEP = "step"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn PyTorch's ways of running out of memory into MemoryError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error).splitlines()[0]) from None
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):
            raise MemoryError(str(error).splitlines()[0]) from None
        raise


def resident_bytes(tensors: Mapping[str, Iterable[Tensor]]) -> dict[str, int]:
    """Bytes that tensors take by what they are, each storage counted once, names without any left out."""
    seen: set[int] = set()
    sizes: dict[str, int] = {}
    for name, group in tensors.items():
        for storage in (tensor.untyped_storage() for tensor in group):
            if storage.nbytes() and storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                sizes[name] = sizes.get(name, 0) + storage.nbytes()
    return sizes


def memory(step: Callable[[], object], device: torch.device, resident: Mapping[str, int]) -> MemoryUse:
    """What `step` asks of the allocator; on a GPU it counts itself, on the CPU the profiler does.

    The profiler does not see the release of what was made before it started, so `step` must release nothing of that.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_stats(device)["allocated_bytes.all.allocated"]
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        allocated = torch.cuda.memory_stats(device)["allocated_bytes.all.allocated"] - before
        return MemoryUse(torch.cuda.max_memory_allocated(device), allocated)
    with _profiler(device) as seen:
        step()
    heap = _read(seen, device).heap
    return MemoryUse(
        sum(resident.values()) + peak_growth_bytes(heap), sum(event.size for event in heap if event.size is not None)
    )


def trace(step: Callable[[Scope], object], device: torch.device, resident: Mapping[str, int]) -> StepTrace:
    """One step, which is handed a scope that the profiler sees; `memory` says what it must not release."""
    with _profiler(device) as seen, record_function(_STEP):
        step(record_function)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return replace(_read(seen, device), resident=dict(resident))


def _profiler(device: torch.device) -> profiler.profile:
    """The profiler under `torch.profiler`, which would make a list of all events at the end that nobody here reads."""
    on_gpu = "cuda" if device.type == "cuda" else None
    return profiler.profile(use_kineto=True, use_device=on_gpu, profile_memory=True)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the step an event stands; `span` is the innermost one, and `held` whether that holds all within it."""

    phase: Phase = "forward"
    layer: str | None = None
    iteration: int | None = None
    votes: bool = False
    span: int | None = None
    held: bool = False


@dataclass(slots=True)
class _Walk:
    """What one pass over the event tree gathers; times are in nanoseconds since `start`.

    Attributes:
        device: whose memory and time is meant.
        start: of the step, on the profiler's clock.
        kernels: (start, end) of the kernels on a GPU, by the correlation id of the op that launched them.
        made: place of the forward op that made a backward node, by sequence number.
        last: place of the backward node before.
    """

    device: torch.device
    start: int
    kernels: Mapping[int, list[tuple[int, int]]]
    spans: list[Span] = field(default_factory=list)
    heap: list[HeapEvent] = field(default_factory=list)
    made: dict[int, _Place] = field(default_factory=dict)
    last: _Place = _Place()
    seconds: float = 0.0


def _read(seen: profiler.profile, device: torch.device) -> StepTrace:
    """The trace without what was there before. The tree hangs together by threads, the trace runs by time."""
    results = seen.kineto_results
    roots = sorted(results.experimental_event_tree(), key=lambda event: event.start_time_ns)
    kernels = _kernels(results.events()) if device.type == "cuda" else {}
    walk = _Walk(device, roots[0].start_time_ns if roots else 0, kernels)
    for root in roots:
        _visit(walk, root, _Place())
    order = sorted(range(len(walk.spans)), key=lambda number: walk.spans[number].start_seconds)
    rank: dict[int | None, int] = {number: position for position, number in enumerate(order)}
    heap = sorted(walk.heap, key=lambda event: event.seconds)
    return StepTrace(
        tuple(walk.spans[number] for number in order),
        tuple(replace(event, span=rank.get(event.span)) for event in heap),
        walk.seconds,
        {},
    )


def _kernels(events: Iterable[Any]) -> dict[int, list[tuple[int, int]]]:
    """What ran on the GPU, kernels and copies, but not the scopes that the profiler draws over them."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event.device_type() == torch.autograd.DeviceType.CUDA and not event.is_user_annotation():
            found[event.linked_correlation_id()].append((event.start_ns(), event.end_ns()))
    return found


def _visit(walk: _Walk, event: Any, place: _Place) -> None:  # noqa: ANN401 - the profiler's own event type
    if event.tag == _EventType.Allocation:
        _heap_event(walk, event, place)
    elif event.tag == _EventType.TorchOp:
        place = _enter(walk, event, place)
    for child in event.children:
        _visit(walk, child, place)


def _heap_event(walk: _Walk, event: Any, place: _Place) -> None:  # noqa: ANN401 - as above
    block = event.extra_fields
    if block.device.type != walk.device.type or walk.device.index not in {None, block.device.index}:
        return
    if block.alloc_size:
        size = block.alloc_size if block.alloc_size > 0 else None
        seconds = (event.start_time_ns - walk.start) / 1e9
        walk.heap.append(HeapEvent(seconds, block.ptr, size, None if size is None else place.span))


def _enter(walk: _Walk, event: Any, place: _Place) -> _Place:  # noqa: ANN401 - as above
    """The place inside an event, which becomes a span unless an op around it holds all."""
    if event.name == _STEP:
        walk.seconds = event.duration_time_ns / 1e9
        return place
    place = _place(walk, event, place)
    if place.held:
        return place
    native = shortened(event.name)
    walk.spans.append(_span(walk, event, native, place))
    return replace(place, span=len(walk.spans) - 1, held=holds_all(native))


def _place(walk: _Walk, event: Any, place: _Place) -> _Place:  # noqa: ANN401 - as above
    """Phase, layer and iteration of an event; notes which place the nodes of the backward pass come from."""
    kind, _, name = event.name.partition("::")
    sequence = event.extra_fields.sequence_number
    if kind == "phase":
        return _Place(phase=name)
    if kind == "layer":
        return replace(place, layer=name)
    if kind == "iteration":
        return replace(place, iteration=int(name))
    if event.name == VOTES:
        return replace(place, votes=True)
    if is_node(event.name):
        # The step of a parameter's gradient belongs to its layer, but to no iteration.
        source = walk.made.get(sequence, _Place()) if sequence >= 0 else replace(walk.last, iteration=None)
        walk.last = _Place("backward", source.layer, source.iteration)
        return replace(walk.last, span=place.span)
    if place.phase == "forward" and sequence >= 0:
        # An op notes the number that the next node will get, whether it makes one or not: the last to note it did.
        walk.made[sequence] = place
    return place


def _span(walk: _Walk, event: Any, native: str, place: _Place) -> Span:  # noqa: ANN401 - as above
    inner = 0 if holds_all(native) else sum(c.duration_time_ns for c in event.children if c.tag == _EventType.TorchOp)
    duration = event.duration_time_ns
    start, seconds, own, track = event.start_time_ns, duration, duration - inner, "cpu"
    if walk.device.type == "cuda":
        kernels = sorted(_launched(walk, event, nested=holds_all(native)))
        own = sum(end - begin for begin, end in kernels)
        if kernels:
            start, seconds = kernels[0][0], max(end for _, end in kernels) - kernels[0][0]
            track = f"cuda:{walk.device.index or 0}"
    return Span(
        op=canonical(native),
        native=native,
        layer=place.layer,
        phase=place.phase,
        routing_iteration=place.iteration,
        start_seconds=(start - walk.start) / 1e9,
        seconds=seconds / 1e9,
        self_seconds=own / 1e9,
        calls=int(holds_all(native) or native == "CompiledFxGraph"),
        votes=place.votes,
        track=track,
    )


def _launched(walk: _Walk, event: Any, *, nested: bool) -> Iterator[tuple[int, int]]:  # noqa: ANN401 - as above
    """(start, end) of the kernels that an event launched, or anything within it."""
    if event.tag == _EventType.TorchOp:
        yield from walk.kernels.get(event.correlation_id, ())
    for child in event.children if nested else ():
        yield from _launched(walk, child, nested=True)
