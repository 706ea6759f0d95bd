"""Peak memory of a train step, foretold from the shapes. Imports no TensorFlow: the parent process calls this.

A train step is at its peak either where the backward pass enters a routed layer, with all that the layers up to there
keep for it still alive, or inside a convolution's backward pass, whose CPU kernels unfold patches into a buffer as
large as the last-level cache allows. The counts below are those of the tensors the traced graph keeps alive; each
stands with the operation that needs it.
"""

from functools import cache
from math import ceil
from pathlib import Path

from capsbench.backend import Setting
from capsbench.network.layers import BatchNorm, ClassCapsules, Conv, PrimaryCapsules
from capsbench.network.parameters import parameter_specs
from capsbench.network.routing import EMRouting
from capsbench.network.shapes import BoundLayer, BoundNetwork, Features, RoutingShape
from capsbench_fused.engine import KERNEL_MODES
from capsbench_fused.forecast import held as held_by_kernels
from capsbench_fused.task import task_of

_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_UNKNOWN_CACHE_BYTES = 2 << 20


def forecast_peak_bytes(bound: BoundNetwork, setting: Setting, batch: int) -> int | None:
    """Bytes alive at the peak of one train step; None in `xla`, whose compiler decides, and for kernels on a GPU."""
    if setting.mode == "xla" or (setting.mode in KERNEL_MODES and setting.device != "cpu"):
        return None
    number = 8 if setting.precision == "float64" else 4
    kept, peak = 0.0, 0.0
    for layer in bound.layers:
        if layer.routing is not None and setting.mode in KERNEL_MODES:
            needs = held_by_kernels(task_of(bound, layer), batch, setting.mode, setting.threads)
            kept += needs.kept + batch * layer.output.values
            peak = max(peak, kept + needs.working)
            continue
        if layer.routing is not None:
            held, extra = _routed(layer, layer.routing, bound.network.routing or EMRouting(), setting.mode == "tiled")
            # The block-diagonal transforms [child types, 16, parents * 16] of the `graph` mode.
            kept += 0 if setting.mode == "tiled" else layer.routing.child_types * layer.routing.parents * 256
        else:
            held, extra = _plain(layer)
        kept += batch * held
        # Scratch of a convolution is bounded by the cache, whatever the batch.
        scratch = _unfolded(layer, number) if setting.device == "cpu" else 0
        peak = max(peak, kept + batch * extra + scratch)
    return int(number * (_resident(bound) + peak + batch * bound.image.values))


def _resident(bound: BoundNetwork) -> int:
    """Numbers in parameters, statistics, gradients and optimizer state; most gradients wait for the end of the step."""
    specs = parameter_specs(bound)
    trainable = sum(spec.size for spec in specs if spec.trainable)
    states = len(bound.network.recipe.optimizer.state)
    return sum(spec.size for spec in specs) + (1 + states) * trainable


def _plain(layer: BoundLayer) -> tuple[float, float]:
    """Numbers an image that a layer on maps keeps until its backward pass, and those the pass adds."""
    out = layer.output.values
    # The gradient of the output and that of the input.
    return out, out + layer.input.values if not isinstance(layer.layer, BatchNorm) else 0


def _unfolded(layer: BoundLayer, number: int) -> int:
    """Numbers in the patch buffer of a convolution's backward kernels.

    TensorFlow's Conv2DBackprop kernels unfold so many images at a time that patches, output and filter fill the
    last-level cache (`target_working_set_size` in conv_grad_filter_ops.cc).
    """
    if isinstance(layer.layer, Conv):
        filters = [layer.layer.channels]
    elif isinstance(layer.layer, PrimaryCapsules):
        filters = [layer.layer.capsules * 16, layer.layer.capsules]
    else:
        return 0
    assert isinstance(layer.input, Features)  # noqa: S101 - convolutions stand on maps only
    places = layer.output.height * layer.output.width
    patch = layer.layer.kernel**2 * layer.input.channels
    units = [places * patch + places * out + patch * out for out in filters]
    return max(ceil(_cache_bytes() / number / unit) * places * patch for unit in units)


@cache
def _cache_bytes() -> int:
    """Last-level cache of this machine."""
    try:
        text = _CACHE.read_text().strip()
    except OSError:
        return _UNKNOWN_CACHE_BYTES
    scale = {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1)
    return int(text.rstrip("KM")) * scale


def _routed(layer: BoundLayer, shape: RoutingShape, routing: EMRouting, tiled: bool) -> tuple[float, float]:
    """Numbers an image that a routed layer keeps until its backward pass, and the most that the pass adds."""
    couplings = shape.positions * shape.children * shape.parents
    votes = couplings * shape.elements
    poses = shape.positions * shape.children * 16
    m_steps, e_steps = routing.iterations, routing.iterations - 1
    shifted = routing.densities == "shifted"
    # An M-step keeps squares of the votes' deviations; assignments and weights, and assignments before they were
    # renormalised, of the couplings.
    kept = 1.0 * m_steps * (votes + (2 + routing.renormalise_input) * couplings)
    if tiled:
        # Both tiled factors, the votes, and each M-step's deviations. Where the largest element is sought, an E-step
        # also keeps which elements equal it and, about half the time, the negated squares of a division's gradient,
        # which the executor comes to early or late.
        kept += (3 + m_steps) * votes + e_steps * (1.5 * shifted * votes + (3 + shifted) * couplings)
        return kept + poses / 4, 3 * votes
    # The deviations overwrite the votes. An E-step keeps densities and couplings, and in `shifted` the held parents'
    # statistics, some [children, 16] and one [children, parents].
    kept += votes + e_steps * (3 * couplings + shifted * (3 * couplings + 5 * poses))
    # Gradient of the votes: two products beside the deviations, when the squares are gone.
    backward = (2 - m_steps) * votes
    if isinstance(layer.layer, ClassCapsules) and routing.coordinates != "none":
        backward += votes
    # The search for the largest element: two spread statistics, before the last squares are there.
    search = shifted * (e_steps > 0) * votes
    return kept + poses, max(2 * couplings, search, backward)
