"""Estimate the peak memory of a train step from the shapes. Imports no TensorFlow: the parent process calls this.

A train step is at its peak either where the backward pass enters a routed layer, with all that the layers up to there
keep for it still alive, or inside a convolution's backward pass, whose CPU kernels unfold patches into a buffer (see
`scratch`). The counts below are those of the tensors the traced graph keeps alive; each stands with the operation that
needs it.
"""

from capsbench.backend import PeakForecast, Setting
from capsbench.network.layers import (
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
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
from capsbench.network.shapes import BoundLayer, BoundNetwork, Capsules, RoutingShape
from capsbench_fused.engine import KERNEL_MODES
from capsbench_fused.forecast import held as held_by_kernels
from capsbench_fused.task import task_of
from capsbench_tensorflow.scratch import scratch_numbers


def forecast_peak(bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
    """Estimate the peak; None in `xla`, in mixed precision, and for kernels on a GPU."""
    if setting.mixed or setting.mode == "xla" or (setting.mode in KERNEL_MODES and setting.device != "cpu"):
        return None
    number = 8 if setting.precision == "float64" else 4
    gradients = _gradients(bound)
    # Gradients of the layers above wait for the optimizer at the most, at the least it has used them: the executor
    # decides. Those of the layers below are not there yet.
    kept, low, high, made = 0.0, 0.0, 0.0, sum(gradients.values())
    for layer in bound.layers:
        held, extra, fixed = _needs(bound, layer, setting, batch)
        kept += batch * held + fixed
        least, most = scratch_numbers(layer, number) if setting.device == "cpu" else (0, 0)
        low = max(low, kept + batch * extra + least + gradients.get(layer.layer.name, 0))
        high = max(high, kept + batch * extra + most + made)
        made -= gradients.get(layer.layer.name, 0)
    lasting = _resident(bound) + batch * bound.image.values
    return PeakForecast(int(number * (lasting + low)), int(number * (lasting + high)))


def _gradients(bound: BoundNetwork) -> dict[str, int]:
    """Numbers in the gradients of each layer and of the decoder."""
    made: dict[str, int] = {}
    for spec in parameter_specs(bound):
        owner = spec.owner
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
