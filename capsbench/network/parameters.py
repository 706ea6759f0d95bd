"""The parameters of a bound network: canonical names, shapes, and their values drawn from a seed.

Every backend starts from these arrays, so that two frameworks start from the same bytes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from capsbench.network.layers import BatchNorm, ClassCapsules, Conv, ConvCapsules, Dense, Dropout, PrimaryCapsules
from capsbench.network.shapes import POSE, BoundLayer, BoundNetwork, Features

Parameters = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """One tensor of a network.

    Attributes:
        name: `layer.tensor`, the same in every backend.
        shape: convolutions [kernel, kernel, in, out], dense [in, out], transforms [child, parent, 4, 4].
        trainable: False for the moving statistics of batch normalisation.
        initial: `glorot` (uniform, Glorot and Bengio 2010, equation 16), `normal`, or `constant`.
        scale: standard deviation of `normal`, value of `constant`.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool = True
    initial: Literal["glorot", "normal", "constant"] = "constant"
    scale: float = 0.0

    @property
    def size(self) -> int:
        """Numbers in the tensor."""
        return int(np.prod(self.shape, dtype=np.int64))


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
            return (generator.standard_normal(spec.shape) * spec.scale).astype(np.float32)
        case "glorot":
            window = int(np.prod(spec.shape[:-2], dtype=np.int64))
            limit = sqrt(6.0 / (window * (spec.shape[-2] + spec.shape[-1])))
            return ((generator.random(spec.shape) * 2.0 - 1.0) * limit).astype(np.float32)


def _layer_specs(bound: BoundNetwork, layer: BoundLayer) -> Iterator[ParameterSpec]:
    spec = layer.layer
    match spec:
        case Conv():
            yield from _conv(spec.name, "", spec.kernel, layer.input, spec.channels)
        case PrimaryCapsules():
            yield from _conv(spec.name, "pose_", spec.kernel, layer.input, spec.capsules * POSE)
            yield from _conv(spec.name, "activation_", spec.kernel, layer.input, spec.capsules)
        case Dense():
            yield from _dense(spec.name, layer.input.values, layer.output.values)
        case BatchNorm():
            yield from _batch_norm(spec, layer.input)
        case ConvCapsules() | ClassCapsules():
            yield from _routed(bound, layer, spec)
        case _:
            return


def _conv(name: str, prefix: str, kernel: int, below: object, channels: int) -> Iterator[ParameterSpec]:
    assert isinstance(below, Features)  # noqa: S101 - convolutions stand on maps only
    yield ParameterSpec(f"{name}.{prefix}weights", (kernel, kernel, below.channels, channels), initial="glorot")
    yield ParameterSpec(f"{name}.{prefix}biases", (channels,))


def _dense(name: str, below: int, units: int) -> Iterator[ParameterSpec]:
    yield ParameterSpec(f"{name}.weights", (below, units), initial="glorot")
    yield ParameterSpec(f"{name}.biases", (units,))


def _batch_norm(spec: BatchNorm, below: object) -> Iterator[ParameterSpec]:
    assert isinstance(below, Features)  # noqa: S101 - batch normalisation stands on maps only
    shape = (below.channels,)
    if spec.center:
        yield ParameterSpec(f"{spec.name}.center", shape)
    if spec.scale:
        yield ParameterSpec(f"{spec.name}.scale", shape, scale=1.0)
    yield ParameterSpec(f"{spec.name}.moving_mean", shape, trainable=False)
    yield ParameterSpec(f"{spec.name}.moving_variance", shape, trainable=False, scale=1.0)


def _routed(bound: BoundNetwork, layer: BoundLayer, spec: ConvCapsules | ClassCapsules) -> Iterator[ParameterSpec]:
    shape, routing = layer.routing, bound.network.routing
    assert shape is not None  # noqa: S101 - bind gives every routed layer its sizes
    assert routing is not None  # noqa: S101 - check_structure has seen to it
    offsets = (shape.parents, shape.elements) if routing.beta_u == "element" else (shape.parents,)
    transforms = (shape.child_types, shape.parents, 4, 4)
    yield ParameterSpec(f"{spec.name}.transforms", transforms, initial="normal", scale=spec.transform_std)
    yield ParameterSpec(f"{spec.name}.beta_u", offsets)
    yield ParameterSpec(f"{spec.name}.beta_a", (shape.parents,))


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
