"""Where a step's bytes and seconds go in TensorFlow: the profiler's own trace, turned into spans and heap events.

The trace (an XSpace) holds one event a kernel, named `scope/op:Type`, and one event an allocation, which carries the
name of the op that asked. Both need the environment that the backend asks for; another CPU allocator reports nothing.
TensorFlow traces no cheap ops (constants, reshapes): where one of them asks for memory it becomes a span of no length.

Kernels are not all that takes time. What lies between the kernels of a function is its executor at work: it propagates
results, picks the next op and prepares its inputs. These gaps are spans of the op `Dispatch`, native name `executor`,
of the layer whose kernel ends them. Before the first kernel and after the last lies the call of the function itself,
mostly Python binding its arguments (`tf.function`), and around that the step's own Python, which makes scalars and
fetches results (`python`); both are `Dispatch` too, belong to no layer and are counted as forward. A small network
spends most of its time there.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from capsbench.measure.steptrace import HeapEvent, Span, StepTrace
from capsbench_fused.memory import Block, recording
from capsbench_tensorflow.opnames import COMPILED, canonical
from capsbench_tensorflow.origins import Origin, Origins

_STEP = "capsbench step"
_EPOCH = "profile_start_time"
_OP = re.compile(r"(?P<path>[\w.\-/\\>]+):(?P<type>_?[A-Z]\w*)")
_COMPILED_CALL = re.compile(r"(?P<path>__inference\w+):(?P=path)")
# These run the ops of a function, which have events of their own.
_CALLS = frozenset("PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case".split())
_ALLOCATIONS = ("MemoryAllocation", "MemoryDeallocation")
_UNKNOWN = "Unknown"  # the type of an op that only the optimized graph has and no event tells of
_SECOND = 1e12  # picoseconds, the trace's unit


def trace_step(run: Callable[[], object], origins: Origins, device: str, resident: Mapping[str, int]) -> StepTrace:
    """Call `run` under the profiler.

    Args:
        run: takes the step and waits for it.
        origins: of the ops of the traced function that `run` calls.
        device: `cpu` or `cuda:N`; on a GPU time is that of its kernels and memory that of its allocator.
        resident: bytes alive before the step by what they are.
    """
    seen = _Seen(device)
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with TemporaryDirectory(prefix="capsbench-profile-") as folder:
        tf.profiler.experimental.start(folder, options=options)
        try:
            with recording() as blocks, tf.profiler.experimental.Trace(_STEP):
                run()
        finally:
            tf.profiler.experimental.stop()
        for file in Path(folder).rglob("*.xplane.pb"):
            space = xplane_pb2.XSpace()
            space.ParseFromString(file.read_bytes())
            for plane in space.planes:
                seen.add(plane)
    seen.add_own(blocks)
    return _step_trace(seen, origins, resident)


@dataclass(frozen=True, slots=True)
class _Event:
    """Something that took time.

    Attributes:
        path: name of the op in the graph; "" where it is none.
        native: type of the op, or what else the time went to.
        start: in picoseconds.
        end: in picoseconds.
        track: where it ran.
        before: name of the op that was waited for, where `path` is "".
        calls: 0 where others do the work, and where there is none.
        hidden: whether the time passed beside that of others, and must not be counted again.
    """

    path: str
    native: str
    start: int
    end: int
    track: str = "cpu"
    before: str = ""
    calls: int = 1
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class _Block:
    """Memory asked for by the op `path` ("" where no op is known), or `released_bytes` given back (`size` is None)."""

    time: int
    address: int
    size: int | None
    path: str
    released_bytes: int = 0


@dataclass(slots=True)
class _Seen:
    """What the profiler saw.

    Attributes:
        device: where the network is.
        host: kernels on the CPU and, where there is a GPU, launches.
        kernels: on the GPU.
        calls: of functions from Python.
        blocks: of the device's memory.
        start: of the step.
        end: of the step.
        epoch: when the trace's clock began, in nanoseconds of the system's.
    """

    device: str
    host: list[_Event] = field(default_factory=list)
    kernels: list[_Event] = field(default_factory=list)
    calls: list[_Event] = field(default_factory=list)
    blocks: list[_Block] = field(default_factory=list)
    start: int = 0
    end: int = 0
    epoch: int = 0

    def add(self, plane: Any) -> None:  # noqa: ANN401 - protobuf messages have no type at hand
        if plane.name.startswith("/device:"):
            self._add_device(plane)
            return
        self.epoch = max(self.epoch, int(_stats(plane, plane).get(_EPOCH, 0)))
        for line in plane.lines:
            origin = line.timestamp_ns * 1000
            for event in line.events:
                name, start = plane.event_metadata[event.metadata_id].name, origin + event.offset_ps
                end = start + event.duration_ps
                if name in _ALLOCATIONS:
                    self._add_block(start, _stats(plane, event), freed=name == "MemoryDeallocation")
                elif name == _STEP:
                    self.start, self.end = start, end
                elif (match := _COMPILED_CALL.fullmatch(name)) is not None:
                    self.host.append(_Event(match["path"], COMPILED, start, end))
                elif (match := _OP.fullmatch(name)) is not None:
                    if match["type"] not in _CALLS:
                        self.host.append(_Event(match["path"], match["type"], start, end))
                elif "tf_function_call" in _stats(plane, event):
                    self.calls.append(_Event("", "tf.function", start, end))

    def add_own(self, blocks: Iterable[Block]) -> None:
        """Memory that kernels of our own took from elsewhere than TensorFlow's allocator."""
        self.blocks += [_Block((b.nanoseconds - self.epoch) * 1000, b.address, b.size, "") for b in blocks]

    def _add_device(self, plane: Any) -> None:  # noqa: ANN401 - as above
        """The kernels of a GPU, which carry the op that launched them."""
        track = f"cuda:{plane.name.rpartition(':')[2]}"
        for line in plane.lines:
            # Beside the streams there may be lines that tell of the same kernels again, grouped.
            for event in line.events if line.name.startswith("Stream") else ():
                stats = _stats(plane, event)
                start = line.timestamp_ns * 1000 + event.offset_ps
                match = _OP.fullmatch(str(stats.get("tf_op", "")))
                if match is not None:
                    path, native = match["path"], match["type"]
                elif "hlo_module" in stats:
                    path, native = "", COMPILED
                else:
                    continue
                self.kernels.append(_Event(path, native, start, start + event.duration_ps, track))

    def _add_block(self, time: int, stats: Mapping[str, Any], *, freed: bool) -> None:
        # On a GPU the host has memory of its own, for inputs and results.
        if self.device == "cpu" or str(stats.get("allocator_name", "")).startswith("GPU"):
            size, path = int(stats.get("requested_bytes", 0)), str(stats.get("tf_op", "")).partition(":")[0]
            address = int(stats.get("addr", 0))
            self.blocks.append(_Block(time, address, None, path, size) if freed else _Block(time, address, size, path))


def _stats(plane: Any, event: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
    values = {}
    for stat in event.stats:
        kind = stat.WhichOneof("value")
        value = plane.stat_metadata[stat.ref_value].name if kind == "ref_value" else getattr(stat, kind)
        values[plane.stat_metadata[stat.metadata_id].name] = value
    return values


def _step_trace(seen: _Seen, origins: Origins, resident: Mapping[str, int]) -> StepTrace:
    seen.host.sort(key=lambda event: event.start)
    seen.kernels.sort(key=lambda event: event.start)
    seen.blocks.sort(key=lambda block: block.time)
    owners = _owners(seen)
    events = [*_kernels(seen), *_untraced(seen, owners, origins)]
    events += _gaps(_stretches(seen), seen.host if seen.device == "cpu" else seen.kernels)
    events.sort(key=lambda event: event.start)
    first: dict[str, int] = {}
    for number, event in enumerate(events):
        first.setdefault(event.path, number)
    heap = (
        HeapEvent(
            seconds=(block.time - seen.start) / _SECOND,
            address=block.address,
            size=block.size,
            span=first[path] if path else None,
            released_bytes=block.released_bytes,
        )
        for path, block in zip(owners, seen.blocks, strict=True)
    )
    seconds = (seen.end - seen.start) / _SECOND
    return StepTrace(tuple(_span(event, origins, seen.start) for event in events), tuple(heap), seconds, dict(resident))


def _span(event: _Event, origins: Origins, step_start: int) -> Span:
    path = event.path or event.before
    origin = origins.of(path) if path else Origin()
    seconds = (event.end - event.start) / _SECOND
    return Span(
        op=canonical(event.native, backward=origin.phase == "backward"),
        native=event.native,
        layer=origin.layer,
        phase=origin.phase,
        routing_iteration=origin.iteration,
        start_seconds=(event.start - step_start) / _SECOND,
        seconds=seconds,
        self_seconds=0.0 if event.hidden else seconds,
        calls=event.calls,
        votes=origin.votes,
        track=event.track,
    )


def _owners(seen: _Seen) -> list[str]:
    """For each block the op that asked for it: by name, else the one that was running; "" where neither is known."""
    starts = [event.start for event in seen.host]
    owners = []
    for block in seen.blocks:
        path = "" if block.size is None else block.path
        if block.size is not None and not path:
            running = bisect_right(starts, block.time) - 1
            if running >= 0 and block.time <= seen.host[running].end:
                path = seen.host[running].path
        owners.append(path)
    return owners


def _kernels(seen: _Seen) -> Iterator[_Event]:
    """Kernels where the network is; beside a GPU the host only launches them, while others run."""
    if seen.device == "cpu":
        yield from seen.host
        return
    launched = {kernel.path for kernel in seen.kernels}
    for event in seen.host:
        yield replace(event, calls=int(event.path not in launched), hidden=True)
    yield from seen.kernels


def _untraced(seen: _Seen, owners: Sequence[str], origins: Origins) -> Iterator[_Event]:
    """An event of no length for each op that asked for memory and has no other event."""
    known = {event.path for event in seen.host}
    for path, block in zip(owners, seen.blocks, strict=True):
        if path and path not in known:
            known.add(path)
            yield _Event(path, origins.type_of(path) or _UNKNOWN, block.time, block.time)


def _stretches(seen: _Seen) -> Iterator[_Event]:
    """The step, cut into calls of functions and what lies around them."""
    reached = seen.start
    for call in sorted(seen.calls, key=lambda call: call.start):
        yield _Event("", "python", reached, call.start)
        yield call
        reached = call.end
    yield _Event("", "python", reached, seen.end)


def _gaps(stretches: Iterable[_Event], kernels: Sequence[_Event]) -> Iterator[_Event]:
    """The time of each stretch in which no kernel ran, a gap between two kernels with the op that ended it."""
    starts = [kernel.start for kernel in kernels]
    reached = 0
    for stretch in stretches:
        reached, before = max(reached, stretch.start), ""
        for kernel in kernels[bisect_left(starts, stretch.start) : bisect_right(starts, stretch.end)]:
            if kernel.start > reached:
                native = "executor" if before else stretch.native
                yield _Event("", native, reached, kernel.start, before=before and kernel.path, calls=0)
            reached, before = max(reached, kernel.end), kernel.path
        if stretch.end > reached:
            yield _Event("", stretch.native, reached, stretch.end, calls=0)
