"""Where a train step's bytes and seconds go in PyTorch: the profiler's event tree, op by op.

The flat tables of `torch.profiler` give net memory only. Its event tree has every allocation as a node under the
innermost op that made it, which gives the bytes an op asked for, the bytes alive at any moment, the phase and the layer
in one walk. The tree sits in a module that PyTorch calls private, so it is touched in this file alone.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, record_function

from capsbench.measure.optable import VIEW, OpEvent, Phase, StepProfile, merge

_VIEWS = frozenset(
    "view reshape _reshape_alias _unsafe_view permute transpose t unsqueeze squeeze as_strided expand slice select "
    "narrow alias detach unbind split flatten resolve_conj resolve_neg lift_fresh result_type item _local_scalar_dense "
    "is_nonzero set_ expand_as view_as movedim swapaxes numpy_T unfold as_strided_ squeeze_ unsqueeze_ detach_ "
    "broadcast_tensors lift chunk".split()
)
# What only asks for memory is part of the op that uses it.
_ALLOCATORS = frozenset("empty empty_like empty_strided new_empty new_empty_strided resize_ resize_as_".split())
_CANONICAL = {
    "Conv2D": "mkldnn_convolution _slow_conv2d_forward thnn_conv2d cudnn_convolution convolution _convolution "
    "convolution_overrideable conv2d",
    "Conv2DBackprop": "convolution_backward _slow_conv2d_backward mkldnn_convolution_backward",
    "BatchMatMul": "bmm baddbmm baddbmm_ matmul",
    "MatMul": "mm addmm linear",
    "Mul": "mul mul_ addcmul addcmul_",
    "Sub": "sub sub_ rsub",
    "Add": "add add_",
    "RealDiv": "div div_",
    "Neg": "neg",
    "Sum": "sum",
    "Mean": "mean",
    "Max": "max amax argmax aminmax",
    "Softmax": "_softmax softmax",
    "SoftmaxGrad": "_softmax_backward_data",
    "LogSoftmax": "_log_softmax log_softmax",
    "LogSoftmaxGrad": "_log_softmax_backward_data",
    "Exp": "exp exp_",
    "Log": "log",
    "Sqrt": "sqrt rsqrt",
    "Reciprocal": "reciprocal",
    "Square": "square square_ pow pow_",
    "Sigmoid": "sigmoid log_sigmoid log_sigmoid_forward logsigmoid",
    "SigmoidGrad": "sigmoid_backward log_sigmoid_backward",
    "Relu": "relu clamp_min clamp_min_",
    "ReluGrad": "threshold_backward",
    "Tile": "repeat tile repeat_interleave",
    "Copy": "copy_ clone contiguous to _to_copy",
    "Gather": "gather index index_select take_along_dim",
    "Scatter": "scatter scatter_ scatter_add scatter_add_ index_add index_add_ _index_put_impl_ index_put_ index_put "
    "scatter_reduce gather_backward index_select_backward scatter_reduce_",
    "Concat": "cat",
    "Pad": "constant_pad_nd slice_backward select_backward",
    "Fill": "fill_ zero_ zeros zeros_like ones ones_like full full_like new_zeros new_full arange scalar_tensor",
    "Select": "where gt ge lt eq ne le logical_and _assert_async",
    "OneHot": "one_hot",
    "CrossEntropy": "nll_loss_forward nll_loss nll_loss_nd cross_entropy_loss",
    "CrossEntropyGrad": "nll_loss_backward",
    "SquaredDifference": "mse_loss",
    "SquaredDiffGrad": "mse_loss_backward",
    "MaxPool": "max_pool2d max_pool2d_with_indices mkldnn_max_pool2d",
    "MaxPoolGrad": "max_pool2d_with_indices_backward mkldnn_max_pool2d_backward",
    "Moments": "var_mean var std_mean",
    "Lerp": "lerp_ lerp",
    "Adam": "_fused_adam_ _fused_adamw_ _foreach_add_",
    "SGD": "_fused_sgd_",
}
_NAMES = {native: canonical for canonical, natives in _CANONICAL.items() for native in natives.split()}
# A composite that PyTorch carries out by copying: the copy is what the op costs.
_COPIED_BY = {"repeat": "Tile"}


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


def peak_bytes(step: Callable[[], object], device: torch.device, alive: Sequence[Tensor]) -> int:
    """The most bytes alive while `step` runs.

    On a GPU the allocator counts; on the CPU the event tree does, starting from the bytes of the tensors `alive`.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    before = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in alive}.values())
    with _profiler(device) as profiler:
        step()
    walk = _walk(profiler, device)
    return before + walk.peak_bytes


def profile(
    step: Callable[[Callable[[str], AbstractContextManager[object]]], object], device: torch.device
) -> StepProfile:
    """The op events of one step, which is handed a scope that the profiler sees."""
    with _profiler(device) as profiler:
        start = perf_counter()
        step(record_function)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = perf_counter() - start
    walk = _walk(profiler, device)
    return StepProfile(merge(walk.events), seconds, walk.allocated_bytes)


def _profiler(device: torch.device) -> torch.profiler.profile:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    return torch.profiler.profile(activities=activities, profile_memory=True, acc_events=True)


@dataclass(slots=True)
class _Walk:
    """What one pass over the event tree gathers."""

    device: torch.device
    events: list[OpEvent] = field(default_factory=list)
    live: list[tuple[int, int]] = field(default_factory=list)
    layer_of: dict[int, str | None] = field(default_factory=dict)
    kernel_seconds: dict[int, float] = field(default_factory=dict)
    allocated_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """Most bytes alive over those before the first event."""
        total = peak = 0
        for _, size in sorted(self.live, key=lambda item: item[0]):
            total += size
            peak = max(peak, total)
        return peak


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the step an event stands."""

    phase: Phase = "forward"
    layer: str | None = None
    iteration: int | None = None
    op: str | None = None


def _walk(profiler: torch.profiler.profile, device: torch.device) -> _Walk:
    results = profiler.profiler.kineto_results
    walk = _Walk(device)
    if device.type == "cuda":
        for event in results.events():
            if event.device_type() == torch.autograd.DeviceType.CUDA:
                linked = event.linked_correlation_id()
                walk.kernel_seconds[linked] = walk.kernel_seconds.get(linked, 0.0) + event.duration_ns() / 1e9
    for root in sorted(results.experimental_event_tree(), key=lambda e: e.start_time_ns):
        _visit(walk, root, _Place())
    return walk


def _visit(walk: _Walk, event: Any, place: _Place) -> None:  # noqa: ANN401 - the profiler's own event type
    if event.tag == _EventType.Allocation:
        _allocation(walk, event, place)
    elif event.tag == _EventType.TorchOp:
        place = _enter(walk, event, place)
    for child in event.children:
        _visit(walk, child, place)


def _enter(walk: _Walk, event: Any, place: _Place) -> _Place:  # noqa: ANN401 - as above
    name, sequence = event.name, event.extra_fields.sequence_number
    kind, _, rest = name.partition("::")
    if kind == "phase":
        return _Place(phase=rest)
    if kind == "layer":
        return _Place(place.phase, rest)
    if kind == "iteration":
        return _Place(place.phase, place.layer, int(rest))
    if name.startswith("autograd::engine::evaluate_function"):
        return _Place("backward", walk.layer_of.get(sequence))
    if kind == "aten" and not (rest in _ALLOCATORS and place.op is not None):
        if place.phase == "forward" and sequence >= 0:
            walk.layer_of.setdefault(sequence, place.layer)
        walk.events.append(_op_event(walk, event, place, rest))
        return _Place(place.phase, place.layer, place.iteration, _COPIED_BY.get(rest, rest))
    return place


def _op_event(walk: _Walk, event: Any, place: _Place, native: str) -> OpEvent:  # noqa: ANN401 - as above
    own = list(_own(event))
    inner = [child for child in own if child.tag == _EventType.TorchOp]
    seconds = (event.duration_time_ns - sum(child.duration_time_ns for child in inner)) / 1e9
    if walk.device.type == "cuda":
        seconds = walk.kernel_seconds.get(event.correlation_id, 0.0)
    asked = [child for child in own if child.tag == _EventType.Allocation and _counts(walk, child)]
    size = sum(child.extra_fields.alloc_size for child in asked)
    canonical = _canonical(native, place)
    # An op that hands its work to others is counted there; what little it does itself stays with its name.
    within = _Place(op=_COPIED_BY.get(native, native))
    handed = {_canonical(child.name.removeprefix("aten::"), within) for child in inner}
    calls = 0 if handed - ({VIEW, "Fill", "Copy"} - {canonical}) else 1
    return OpEvent(canonical, f"aten::{native}", place.layer, place.phase, place.iteration, calls, seconds, size)


def _own(event: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
    """The children of an event, with those of mere allocators in their place."""
    for child in event.children:
        if child.tag == _EventType.TorchOp and child.name.removeprefix("aten::") in _ALLOCATORS:
            yield from _own(child)
        else:
            yield child


def _canonical(native: str, place: _Place) -> str:
    if native == "copy_" and place.op in _COPIED_BY.values():
        return str(place.op)
    if native in _VIEWS:
        return VIEW
    return _NAMES.get(native, "Fill" if native in _ALLOCATORS else f"Other:aten::{native}")


def _counts(walk: _Walk, event: Any) -> bool:  # noqa: ANN401 - as above
    return bool(event.extra_fields.alloc_size > 0 and event.extra_fields.device.type == walk.device.type)


def _allocation(walk: _Walk, event: Any, place: _Place) -> None:  # noqa: ANN401 - as above
    del place
    if event.extra_fields.device.type == walk.device.type:
        walk.live.append((event.start_time_ns, event.extra_fields.alloc_size))
    if _counts(walk, event):
        walk.allocated_bytes += event.extra_fields.alloc_size
