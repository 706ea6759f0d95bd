"""The parameters of a bound network: canonical names, shapes, and their values drawn from a seed.

Every backend starts from these arrays, so that two frameworks start from the same bytes.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capsbench.network.initial import FanIn, Filled, Glorot, He, HeUniform, Initial, Normal, Uniform
from capsbench.network.layers import (
    BatchNorm,
    ClassCapsules,
    ClassVectors,
    Conv,
    ConvCapsules,
    Dense,
    Dropout,
    Normalisation,
    PrimaryCapsules,
    Residual,
    SelfRoutedCapsules,
    SelfRoutedClasses,
    VectorCapsules,
)
from capsbench.network.routing import EMRouting, MatrixRouting, SelfAttentionRouting, VBRouting
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork, Capsules, Features

Parameters = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One tensor of a network.

    Attributes:
        name: `layer.tensor`, the same in every backend.
        shape: convolutions [kernel, kernel, in, out] (depthwise [kernel, kernel, 1, out]), dense [in, out], transforms
            [child, parent, 4, 4], or [child, parent, in, out] of vectors and of self-routed capsules, whose routing
            weights are [child, in, parent].
        trainable: False for the moving statistics of batch normalisation.
        initial: `uniform`, `normal`, `truncated_normal` (see `initial.Normal`), or `constant`.
        scale: limit of `uniform`, standard deviation of the normals, value of `constant`.
        mean: of the normals.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool = True
    initial: Literal["uniform", "normal", "truncated_normal", "constant"] = "constant"
    scale: float = 0.0
    mean: float = 0.0

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)

    @property
    def owner(self) -> str:
        """Name of the layer that the tensor belongs to, or `decoder`."""
        return self.name.partition(".")[0]


def parameter_specs(bound: BoundNetwork) -> tuple[ParameterSpec, ...]:
    """Every tensor of the network, layer by layer, the decoder last."""
    specs = [spec for layer in bound.layers for spec in _layer_specs(bound, layer)]
    return (*specs, *_decoder_specs(bound))


def parameter_count(bound: BoundNetwork) -> int:
    """Trainable numbers of the network, the decoder's included."""
    return sum(spec.size for spec in parameter_specs(bound) if spec.trainable)


def capsule_parameter_count(bound: BoundNetwork) -> int:
    """Trainable numbers without the decoder: the count that papers quote."""
    return parameter_count(bound) - sum(spec.size for spec in _decoder_specs(bound))


def cancelled_biases(bound: BoundNetwork) -> dict[str, str]:
    """Biases that a batch normalisation right above takes off again, and the weights beside them, by name.

    In training such a bias changes nothing: its gradient is zero in truth, and rounding noise in any arithmetic.
    """
    below_norms = [below.layer for below, above in pairwise(bound.layers) if isinstance(above.layer, BatchNorm)]
    cancelled = {}
    for layer in below_norms:
        if isinstance(layer, Conv) and layer.activation == "linear":
            cancelled[f"{layer.name}.biases"] = f"{layer.name}.weights"
        elif isinstance(layer, PrimaryCapsules):
            cancelled[f"{layer.name}.pose_biases"] = f"{layer.name}.pose_weights"
    for bound_layer in normalised_capsules(bound):
        name = bound_layer.layer.name
        if not isinstance(bound_layer.layer, PrimaryCapsules):
            cancelled |= {f"{name}.{offset}": f"{name}.transforms" for offset in ("beta_u", "beta_a")}
        elif bound_layer.layer.biases:
            cancelled[f"{name}.activation_biases"] = f"{name}.activation_weights"
    return cancelled


def normalised_capsules(bound: BoundNetwork) -> dict[BoundLayer, Normalisation]:
    """The layers of capsules that normalise their poses and logits by the batch, and how."""
    routing, found = bound.network.routing, {}
    for layer in bound.layers:
        own = layer.layer.normalisation if isinstance(layer.layer, PrimaryCapsules) else None
        if layer.routing is not None and isinstance(routing, VBRouting):
            own = routing.normalisation
        if own is not None:
            found[layer] = own
    return found


def momenta(bound: BoundNetwork) -> dict[str, float]:
    """What moving statistics keep of themselves in a train step, by the layers that have any."""
    within = {layer.layer.name: how.momentum for layer, how in normalised_capsules(bound).items()}
    specs = (layer.layer for layer in bound.layers)
    return within | {spec.name: spec.momentum for spec in specs if isinstance(spec, BatchNorm | Residual)}


def draw_parameters(bound: BoundNetwork, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw initial values [spec.shape] float32.

    Each tensor has a generator of its own, keyed by seed and name, so that a change in one layer leaves the others'
    values alone.
    """
    return {spec.name: _draw(spec, seed) for spec in parameter_specs(bound)}


def dropout_masks(bound: BoundNetwork, batch: int, seed: int, step: int) -> dict[str, NDArray[np.float32]]:
    """Masks [batch, units] of 0 or 1 / (1 - rate) for every dropout layer, in train step `step`."""
    masks = {}
    for layer in bound.layers:
        if isinstance(layer.layer, Dropout):
            name, rate = layer.layer.name, layer.layer.rate
            kept = _generator(name, seed, step).random((batch, layer.input.values), dtype=np.float32) >= rate
            masks[name] = kept.astype(np.float32) * np.float32(1.0 / (1.0 - rate))
    return masks


def _generator(name: str, *key: int) -> np.random.Generator:
    digest = blake2b(f"{name}:{key}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _draw(spec: ParameterSpec, seed: int) -> NDArray[np.float32]:
    generator = _generator(spec.name, seed)
    match spec.initial:
        case "constant":
            return np.full(spec.shape, spec.scale, np.float32)
        case "normal":
            return (generator.standard_normal(spec.shape) * spec.scale + spec.mean).astype(np.float32)
        case "truncated_normal":
            return (_truncated_normal(generator, spec.size).reshape(spec.shape) * spec.scale + spec.mean).astype(
                np.float32
            )
        case "uniform":
            return ((generator.random(spec.shape) * 2.0 - 1.0) * spec.scale).astype(np.float32)


def _truncated_normal(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Standard normal numbers [count]; what lies beyond two deviations is drawn again."""
    values = generator.standard_normal(count)
    while (beyond := np.flatnonzero(np.abs(values) > 2.0)).size:
        values[beyond] = generator.standard_normal(beyond.size)
    return values


def _layer_specs(bound: BoundNetwork, layer: BoundLayer) -> Iterator[ParameterSpec]:
    spec = layer.layer
    match spec:
        case Conv():
            starts = spec.initial_weights, spec.initial_biases if spec.biases else None
            yield from _conv(f"{spec.name}.", spec.kernel, layer.input, spec.channels, *starts)
        case Residual():
            yield from _residual(layer, spec)
        case PrimaryCapsules():
            yield from _primary(layer, spec)
        case Dense():
            yield from _dense(spec.name, layer.input.values, layer.output.values)
        case BatchNorm():
            yield from _batch_norm(f"{spec.name}.", layer.input, center=spec.center, scale=spec.scale)
        case VectorCapsules():
            below = Features(1, 1, 1) if spec.depthwise else layer.input
            channels = spec.capsules * spec.elements
            yield from _conv(f"{spec.name}.", spec.kernel, below, channels, spec.initial_weights, Filled())
        case _:
            yield from _routed_specs(bound, layer)


def _routed_specs(bound: BoundNetwork, layer: BoundLayer) -> Iterator[ParameterSpec]:
    spec = layer.layer
    match spec:
        case ConvCapsules() | ClassCapsules():
            yield from _routed(bound, layer, spec)
        case ClassVectors():
            yield from _routed_vectors(bound, layer, spec)
        case SelfRoutedCapsules() | SelfRoutedClasses():
            yield from _self_routed(layer, spec)
        case _:
            return


def _started(name: str, shape: tuple[int, ...], start: Initial, fans: tuple[int, int]) -> ParameterSpec:
    """A tensor that starts as `start` says; `fans` are what a unit reads and what reads a unit."""
    match start:
        case Glorot():
            return ParameterSpec(name, shape, initial="uniform", scale=math.sqrt(6.0 / sum(fans)))
        case FanIn():
            return ParameterSpec(name, shape, initial="uniform", scale=1.0 / math.sqrt(fans[0]))
        case He():
            return ParameterSpec(name, shape, initial="normal", scale=math.sqrt(2.0 / fans[0]))
        case HeUniform():
            return ParameterSpec(name, shape, initial="uniform", scale=math.sqrt(6.0 / fans[0]))
        case Uniform():
            return ParameterSpec(name, shape, initial="uniform", scale=start.limit)
        case Normal():
            kind: Literal["truncated_normal", "normal"] = "truncated_normal" if start.truncated else "normal"
            return ParameterSpec(name, shape, initial=kind, scale=start.std, mean=start.mean)
        case Filled():
            return ParameterSpec(name, shape, scale=start.value)


def _conv(
    prefix: str, kernel: int, below: object, channels: int, weights: Initial, biases: Initial | None
) -> Iterator[ParameterSpec]:
    assert isinstance(below, Features)  # noqa: S101 - convolutions stand on maps only
    fans = kernel**2 * below.channels, kernel**2 * channels
    yield _started(f"{prefix}weights", (kernel, kernel, below.channels, channels), weights, fans)
    if biases is not None:
        yield _started(f"{prefix}biases", (channels,), biases, fans)


def _dense(name: str, below: int, units: int) -> Iterator[ParameterSpec]:
    yield _started(f"{name}.weights", (below, units), Glorot(), (below, units))
    yield ParameterSpec(f"{name}.biases", (units,))


def _batch_norm(prefix: str, below: object, *, center: bool = True, scale: bool = True) -> Iterator[ParameterSpec]:
    assert isinstance(below, Features | Capsules)  # noqa: S101 - there are no other shapes
    shape = (below.channels if isinstance(below, Features) else below.capsules * below.pose_elements,)
    if center:
        yield ParameterSpec(f"{prefix}center", shape)
    if scale:
        yield ParameterSpec(f"{prefix}scale", shape, scale=1.0)
    yield ParameterSpec(f"{prefix}moving_mean", shape, trainable=False)
    yield ParameterSpec(f"{prefix}moving_variance", shape, trainable=False, scale=1.0)


def _primary(layer: BoundLayer, spec: PrimaryCapsules) -> Iterator[ParameterSpec]:
    biases = spec.initial_biases if spec.biases else None
    for what, weights, channels in (
        ("pose", spec.initial_poses, spec.capsules * POSE),
        ("activation", spec.initial_activations, spec.capsules),
    ):
        yield from _conv(f"{spec.name}.{what}_", spec.kernel, layer.input, channels, weights, biases)
    if spec.normalisation is not None:
        yield from _normalised(spec.name, spec.capsules, learned=True)


def _normalised(name: str, types: int, *, learned: bool) -> Iterator[ParameterSpec]:
    """Of a capsule layer's poses and logits, type by type."""
    for what in ("pose", "activation"):
        yield from _batch_norm(f"{name}.{what}_", Features(1, 1, types), center=learned, scale=learned)


def _residual(layer: BoundLayer, spec: Residual) -> Iterator[ParameterSpec]:
    """Two convolutions, and a third as shortcut where the shape changes; each with its normalisation."""
    yield from _conv(f"{spec.name}.conv1_", 3, layer.input, spec.channels, He(), None)
    yield from _batch_norm(f"{spec.name}.norm1_", layer.output)
    yield from _conv(f"{spec.name}.conv2_", 3, layer.output, spec.channels, He(), None)
    yield from _batch_norm(f"{spec.name}.norm2_", layer.output)
    if layer.input != layer.output:
        yield from _conv(f"{spec.name}.shortcut_", 1, layer.input, spec.channels, He(), None)
        yield from _batch_norm(f"{spec.name}.shortcut_", layer.output)


def _routed(bound: BoundNetwork, layer: BoundLayer, spec: ConvCapsules | ClassCapsules) -> Iterator[ParameterSpec]:
    shape, routing = layer.routing, bound.network.routing
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(routing, MatrixRouting)  # noqa: S101 - check_structure has seen to it
    by_element = isinstance(routing, EMRouting) and routing.beta_u == "element"
    each = shape.elements if by_element else 1
    offsets = (shape.parents, each) if by_element else (shape.parents,)
    transforms = (shape.child_types, shape.parents, 4, 4)
    drawn = Normal(std=spec.transform_std, truncated=spec.transform_truncated)
    yield _started(f"{spec.name}.transforms", transforms, drawn, (4, 4))
    # A vector counts as a matrix of one column, as in TensorFlow.
    yield _started(f"{spec.name}.beta_u", offsets, spec.initial_beta_u, (shape.parents, each))
    yield _started(f"{spec.name}.beta_a", (shape.parents,), spec.initial_beta_a, (shape.parents, 1))
    if isinstance(routing, VBRouting) and routing.normalisation is not None:
        yield from _normalised(spec.name, shape.parents, learned=False)


def _routed_vectors(bound: BoundNetwork, layer: BoundLayer, spec: ClassVectors) -> Iterator[ParameterSpec]:
    shape, below = layer.routing, layer.input
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(below, Capsules)  # noqa: S101 - check_structure has seen to it
    transforms = (shape.child_types, shape.parents, below.pose_elements, spec.elements)
    yield ParameterSpec(f"{spec.name}.transforms", transforms, initial="normal", scale=spec.transform_std)
    if isinstance(bound.network.routing, SelfAttentionRouting):
        yield ParameterSpec(f"{spec.name}.priors", transforms[:2])


def _self_routed(layer: BoundLayer, spec: SelfRoutedCapsules | SelfRoutedClasses) -> Iterator[ParameterSpec]:
    shape, below = layer.routing, layer.input
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert isinstance(below, Capsules)  # noqa: S101 - check_structure has seen to it
    if isinstance(spec, SelfRoutedCapsules):
        fans = (below.pose_elements, spec.elements)
        transforms = (shape.child_types, shape.parents, *fans)
        yield _started(f"{spec.name}.transforms", transforms, spec.initial_transforms, fans)
    yield ParameterSpec(f"{spec.name}.routing_weights", (shape.child_types, below.pose_elements, shape.parents))
    yield ParameterSpec(f"{spec.name}.routing_biases", (shape.child_types, shape.parents))


def _decoder_specs(bound: BoundNetwork) -> tuple[ParameterSpec, ...]:
    reconstruction = bound.network.objective.reconstruction
    if reconstruction is None:
        return ()
    sizes = decoder_sizes(bound)
    return tuple(spec for i, (a, b) in enumerate(pairwise(sizes)) for spec in _dense(f"decoder.dense{i}", a, b))


def decoder_sizes(bound: BoundNetwork) -> tuple[int, ...]:
    """Widths of the decoder: all class poses (the wrong ones zeroed), the hidden layers, the pixels; () without one."""
    reconstruction = bound.network.objective.reconstruction
    shape = bound.layers[-1].routing
    if reconstruction is None or shape is None:
        return ()
    return (bound.classes * shape.elements, *reconstruction.hidden, bound.image.values)
