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
from capsbench.network.layers import (
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.parameters import parameter_specs
from capsbench.network.routing import (
    AgreementRouting,
    EMRouting,
    MatrixRouting,
    Routing,
    SelfAttentionRouting,
    VBRouting,
)
from capsbench.network.shapes import BoundLayer, BoundNetwork, Capsules, Features, RoutingShape
from capsbench_fused.engine import KERNEL_MODES
from capsbench_fused.forecast import held as held_by_kernels
from capsbench_fused.task import task_of

_CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
_UNKNOWN_CACHE_BYTES = 2 << 20


def forecast_peak_bytes(bound: BoundNetwork, setting: Setting, batch: int) -> int | None:
    """Bytes alive at the peak of one train step; None in `xla` and in mixed precision, and for kernels on a GPU."""
    if setting.mixed or setting.mode == "xla" or (setting.mode in KERNEL_MODES and setting.device != "cpu"):
        return None
    number = 8 if setting.precision == "float64" else 4
    gradients = _gradients(bound)
    # Gradients wait for the end of the step; those of the layers below are not there yet.
    kept, peak, made = 0.0, 0.0, sum(gradients.values())
    for layer in bound.layers:
        held, extra, fixed = _needs(bound, layer, setting, batch)
        kept += batch * held + fixed
        # Scratch of a convolution is bounded by the cache, whatever the batch.
        scratch = _unfolded(layer, number) if setting.device == "cpu" else 0
        peak = max(peak, kept + batch * extra + scratch + made)
        made -= gradients.get(layer.layer.name, 0)
    return int(number * (_resident(bound) + peak + batch * bound.image.values))


def _gradients(bound: BoundNetwork) -> dict[str, int]:
    """Numbers in the gradients of each layer and of the decoder."""
    made: dict[str, int] = {}
    for spec in parameter_specs(bound):
        owner = spec.name.partition(".")[0]
        made[owner] = made.get(owner, 0) + spec.size * spec.trainable
    return made


def _resident(bound: BoundNetwork) -> int:
    """Numbers in parameters, statistics and optimizer state."""
    specs = parameter_specs(bound)
    trainable = sum(spec.size for spec in specs if spec.trainable)
    states = len(bound.network.recipe.optimizer.state)
    return sum(spec.size for spec in specs) + states * trainable


def _needs(bound: BoundNetwork, layer: BoundLayer, setting: Setting, batch: int) -> tuple[float, float, float]:
    """Numbers an image that a layer keeps for its backward pass, the most that the pass adds, and those of no image."""
    routing, shape, tiled = bound.network.routing, layer.routing, setting.mode == "tiled"
    if shape is not None and setting.mode in KERNEL_MODES:
        needs = held_by_kernels(task_of(bound, layer), batch, setting.mode, setting.threads)
        return needs.kept / batch + layer.output.values, needs.working / batch, 0.0
    if shape is not None and isinstance(layer.layer, ClassVectors):
        return _routed_vectors(shape, routing, tiled)
    if shape is not None and isinstance(layer.layer, SelfRoutedCapsules | SelfRoutedClasses):
        return _self_routed(layer, shape, tiled)
    if shape is not None and isinstance(routing, MatrixRouting):
        # The block-diagonal transforms [child types, 16, parents * 16] of the `graph` mode.
        blocks = 0 if tiled else shape.child_types * shape.parents * 256
        return *_routed(layer, shape, routing, tiled), blocks
    return *_plain(layer), 0.0


def _plain(layer: BoundLayer) -> tuple[float, float]:
    """Numbers an image that a layer on maps keeps until its backward pass, and those the pass adds."""
    out = layer.output.values
    if isinstance(layer.layer, Residual):
        # Of either convolution its output, less its mean, normal and active; the sum.
        return 7 * out, layer.input.values + 3 * out
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
    elif isinstance(layer.layer, VectorCapsules) and not layer.layer.depthwise:
        filters = [layer.layer.capsules * layer.layer.elements]
    elif isinstance(layer.layer, Residual):
        filters = [layer.layer.channels]
    else:
        return 0
    assert isinstance(layer.input, Features)  # noqa: S101 - convolutions stand on maps only
    places = layer.output.height * layer.output.width
    patch = (3 if isinstance(layer.layer, Residual) else layer.layer.kernel) ** 2 * layer.input.channels
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


def _routed_vectors(shape: RoutingShape, routing: Routing | None, tiled: bool) -> tuple[float, float, float]:
    """As `_needs`; where casting votes has its backward pass, what routing kept is gone."""
    couplings = shape.children * shape.parents
    votes, transforms = couplings * shape.elements, couplings * shape.multiplications
    steps = routing.iterations if isinstance(routing, AgreementRouting) else 2
    if not tiled:
        # The transforms in the order of the products are kept too.
        return votes + couplings * steps, 2.0 * votes, transforms
    routed, factors = votes + 3 * couplings * steps, transforms + transforms / shape.elements
    attention = couplings * shape.children if isinstance(routing, SelfAttentionRouting) else 0
    return factors + routed, max(3 * votes + attention, factors + votes - routed), 0.0


def _self_routed(layer: BoundLayer, shape: RoutingShape, tiled: bool) -> tuple[float, float, float]:
    """As `_needs`; the executor may come to what routing kept after the backward pass of casting votes."""
    assert isinstance(layer.input, Capsules)  # noqa: S101 - check_structure has seen to it
    inner = layer.input.pose_elements
    couplings = float(shape.positions * shape.children * shape.parents)
    # Patches overlap and are copies; classes see the capsules below where they are.
    children = float(shape.positions * shape.children * inner * (shape.votes > 0))
    # Of couplings: themselves, times the activations, and divided by the mass; of classes logarithms, exponentials.
    routed = shape.votes + 3 * couplings
    if not tiled:
        # The transforms in the order of the products are kept too.
        transforms = shape.children * shape.parents * shape.multiplications
        return routed + couplings + children, 2.0 * shape.votes + 2 * couplings, transforms
    # Both matrices of every child tiled over the positions.
    matrices, choosing = shape.votes * inner, couplings * inner
    return matrices + choosing + children + routed, max(matrices, choosing) + shape.votes, 0.0


def _routed(layer: BoundLayer, shape: RoutingShape, routing: MatrixRouting, tiled: bool) -> tuple[float, float]:
    """Numbers an image that a routed layer keeps until its backward pass, and the most that the pass adds."""
    couplings = shape.positions * shape.children * shape.parents
    votes = couplings * shape.elements
    poses = shape.positions * shape.children * 16
    m_steps, e_steps = routing.iterations, routing.iterations - 1
    shifted = isinstance(routing, EMRouting) and routing.densities == "shifted"
    # An M-step keeps squares of the votes' deviations; assignments and weights, and assignments before they were
    # renormalised or divided by the posterior's count, of the couplings.
    divided = isinstance(routing, VBRouting) or routing.renormalise_input
    kept = 1.0 * m_steps * (votes + (2 + divided) * couplings)
    if tiled:
        # Both tiled factors, the votes, and each M-step's deviations. Where the largest element is sought, an E-step
        # also keeps which elements equal it and, about half the time, the negated squares of a division's gradient,
        # which the executor comes to early or late; of variational Bayes it keeps those most of the time.
        searched = 1.5 * shifted + 0.8 * isinstance(routing, VBRouting)
        kept += (3 + m_steps) * votes + e_steps * (searched * votes + (3 + shifted) * couplings)
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
