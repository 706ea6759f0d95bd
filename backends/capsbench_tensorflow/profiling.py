"""Where a train step's bytes and seconds go in TensorFlow: the profiler's own trace, op by op.

The trace (an XSpace) holds one event a kernel, named `scope/op:Type`, and one event an allocation, which carries the
name of the op that asked. Both need the environment that the backend asks for; another CPU allocator reports nothing.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from capsbench.measure.optable import VIEW, OpEvent, Phase, StepProfile, merge

_CANONICAL = {
    VIEW: "Reshape Squeeze ExpandDims Identity IdentityN Const ReadVariableOp VarHandleOp Shape ShapeN StopGradient "
    "PreventGradient NoOp _Arg _Retval _DeviceArg _DeviceRetval BroadcastGradientArgs TemporaryVariable "
    "DestroyTemporaryVariable",
    "Conv2D": "Conv2D Conv2DWithBias",
    "Conv2DBackprop": "Conv2DBackpropInput Conv2DBackpropFilter Conv2DBackpropFilterWithBias",
    "MaxPool": "MaxPool",
    "MaxPoolGrad": "MaxPoolGrad",
    "BatchMatMul": "BatchMatMul Einsum",
    "MatMul": "MatMul",
    "Mul": "Mul MulNoNan",
    "Sub": "Sub SquaredDifference",
    "Add": "Add AddN AssignAdd AssignAddVariableOp AccumulateN BiasAdd",
    "RealDiv": "RealDiv Div DivNoNan Xdivy",
    "Neg": "Neg",
    "Sum": "Sum BiasAddGrad",
    "Mean": "Mean",
    "Max": "Max ArgMax Maximum",
    "Min": "Min ArgMin Minimum",
    "Softmax": "Softmax",
    "LogSoftmax": "LogSoftmax",
    "Exp": "Exp",
    "Log": "Log Log1p",
    "Sqrt": "Sqrt Rsqrt",
    "SqrtGrad": "SqrtGrad RsqrtGrad",
    "Reciprocal": "Reciprocal Inv",
    "ReciprocalGrad": "ReciprocalGrad InvGrad",
    "Square": "Square Pow",
    "Sigmoid": "Sigmoid Softplus",
    "SigmoidGrad": "SigmoidGrad SoftplusGrad",
    "Relu": "Relu",
    "ReluGrad": "ReluGrad",
    "Tile": "Tile BroadcastTo",
    "Copy": "Transpose Snapshot DeepCopy Assign AssignVariableOp",
    "Gather": "Gather GatherNd ResourceGather",
    "Scatter": "ScatterNd TensorScatterAdd TensorScatterUpdate UnsortedSegmentSum UnsortedSegmentMax InplaceAdd",
    "Concat": "Concat Pack",
    "StridedSlice": "StridedSlice Slice Split Unpack",
    "Pad": "Pad MirrorPad StridedSliceGrad",
    "Fill": "Fill ZerosLike OnesLike Range",
    "Select": "Select Where Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr IsFinite",
    "Cast": "Cast",
    "OneHot": "OneHot",
    "CrossEntropy": "SparseSoftmaxCrossEntropyWithLogits SoftmaxCrossEntropyWithLogits",
    "Adam": "ResourceApplyAdam",
    "SGD": "ResourceApplyMomentum ResourceApplyGradientDescent",
}
_NAMES = {native: canonical for canonical, natives in _CANONICAL.items() for native in natives.split()}
_OP = re.compile(r"(?P<path>[\w.\-/\\>]+):(?P<type>_?[A-Z]\w*)")
_COMPILED = re.compile(r"(__inference\w+):\1")
# These run the ops of a function, which have events of their own.
_CALLS = frozenset("PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile Case".split())


def canonical(native: str) -> str:
    """The name that aligns the frameworks, for a TensorFlow op type."""
    bare = re.sub(r"^_(MklNative|Mkl)?(Fused)?|V\d$", "", native)
    return _NAMES.get(native) or _NAMES.get(bare) or f"Other:{native}"


def profile_step(run: Callable[[], object], layers: Collection[str]) -> StepProfile:
    """The op events of one train step.

    Args:
        run: takes the step and waits for it.
        layers: names of the layers, which are the outermost name scopes of their ops.
    """
    trace, seconds = _traced(run)
    return StepProfile(merge(_events(trace, frozenset({*layers, "decoder"}))), seconds, trace.allocated_bytes)


def peak_growth_bytes(run: Callable[[], object]) -> int:
    """The most bytes that are alive while `run` works, over those alive before; what was asked for, without rounding.

    The allocator's own peak counts whole chunks, which hold up to twice what was asked for, depending on what ran
    before.
    """
    trace, _ = _traced(run)
    size_of: dict[int, int] = {}
    alive = peak = 0
    for _, address, size in sorted(trace.heap, key=lambda item: item[0]):
        if size is None:
            alive -= size_of.pop(address, 0)
        else:
            size_of[address] = size
            alive += size
        peak = max(peak, alive)
    return peak


def _traced(run: Callable[[], object]) -> tuple["_Trace", float]:
    """Call `run` under the profiler; what that saw, and the seconds it took."""
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with TemporaryDirectory(prefix="capsbench-profile-") as folder:
        tf.profiler.experimental.start(folder, options=options)
        try:
            start = perf_counter()
            run()
            seconds = perf_counter() - start
        finally:
            tf.profiler.experimental.stop()
        trace = _Trace()
        for file in Path(folder).rglob("*.xplane.pb"):
            space = xplane_pb2.XSpace()
            space.ParseFromString(file.read_bytes())
            trace.add(space)
    return trace, seconds


@dataclass(slots=True)
class _Kernel:
    """All calls of one op of the graph."""

    type: str
    calls: int = 0
    picoseconds: int = 0


@dataclass(slots=True)
class _Trace:
    """What the profiler saw.

    Attributes:
        host: kernels by op of the graph, on the CPU.
        device: the same on a GPU.
        bytes_of: bytes asked for, by op.
        allocated_bytes: all bytes asked for.
        heap: (picoseconds, address, bytes) of each allocation; bytes are None where the address is given back.
    """

    host: dict[str, _Kernel] = field(default_factory=dict)
    device: dict[str, _Kernel] = field(default_factory=dict)
    bytes_of: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    allocated_bytes: int = 0
    heap: list[tuple[int, int, int | None]] = field(default_factory=list)

    def add(self, space: Any) -> None:  # noqa: ANN401 - protobuf messages have no type at hand
        """Gather one XSpace message."""
        for plane in space.planes:
            on_device = plane.name.startswith("/device:GPU")
            for line in plane.lines:
                for event in line.events:
                    name = plane.event_metadata[event.metadata_id].name
                    if name in {"MemoryAllocation", "MemoryDeallocation"}:
                        time = line.timestamp_ns * 1000 + event.offset_ps
                        self._memory(time, _stats(plane, event), freed=name == "MemoryDeallocation")
                    elif on_device:
                        op = _stats(plane, event).get("tf_op", "")
                        self._kernel(self.device, str(op), event.duration_ps)
                    else:
                        self._kernel(self.host, name, event.duration_ps)

    def _memory(self, time: int, stats: dict[str, Any], *, freed: bool) -> None:
        size = int(stats.get("requested_bytes", 0))
        self.heap.append((time, int(stats.get("addr", 0)), None if freed else size))
        if not freed:
            self.allocated_bytes += size
            self.bytes_of[str(stats.get("tf_op", "")).partition(":")[0]] += size

    def _kernel(self, kernels: dict[str, _Kernel], name: str, picoseconds: int) -> None:
        if _COMPILED.fullmatch(name):
            path, kind = name.partition(":")[0], "XlaFunction"
        else:
            match = _OP.fullmatch(name)
            if match is None or match["type"] in _CALLS:
                return
            path, kind = match["path"], match["type"]
        kernel = kernels.setdefault(path, _Kernel(kind))
        kernel.calls += 1
        kernel.picoseconds += picoseconds


def _stats(plane: Any, event: Any) -> dict[str, Any]:  # noqa: ANN401 - protobuf messages have no type at hand
    values = {}
    for stat in event.stats:
        kind = stat.WhichOneof("value")
        value = plane.stat_metadata[stat.ref_value].name if kind == "ref_value" else getattr(stat, kind)
        values[plane.stat_metadata[stat.metadata_id].name] = value
    return values


def _events(trace: _Trace, layers: frozenset[str]) -> Iterator[OpEvent]:
    """One event an op of the graph; where a device took the time, its kernels count and not their launches."""
    timed = trace.device or trace.host
    for path, kernel in (trace.host | trace.device).items():
        spent = timed.get(path, _Kernel(kernel.type))
        phase, layer, iteration = _place(path, kernel.type, layers)
        yield OpEvent(
            canonical(kernel.type),
            kernel.type,
            layer,
            phase,
            iteration,
            spent.calls or kernel.calls,
            spent.picoseconds / 1e12,
            trace.bytes_of.get(path, 0),
        )


def _place(path: str, native: str, layers: frozenset[str]) -> tuple[Phase, str | None, int | None]:
    """Phase, layer and routing iteration of an op, from its name scopes."""
    scopes = path.split("/")
    backward = _bare(scopes[0]) in {"gradient_tape", "AddN"}
    if _bare(scopes[0]) == "gradient_tape":
        scopes = scopes[1:]
    layer = next((name for name in (scopes[0], _bare(scopes[0])) if name in layers), None)
    found = next((match for match in map(re.compile(r"iteration(\d+)(_\d+)?").fullmatch, scopes) if match), None)
    iteration = int(found[1]) if found else None
    if native.startswith("ResourceApply") or _bare(scopes[0]) == "optimizer":
        return "optimizer", layer, iteration
    return ("backward" if backward else "forward"), layer, iteration


def _bare(scope: str) -> str:
    """A scope without the number that TensorFlow appends where a name comes again."""
    return re.sub(r"_\d+$", "", scope)
