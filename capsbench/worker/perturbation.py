"""Parameters, images and labels that leave no value of an untrained network special.

Untrained parameters hide mistakes: a bias of 0 may be ignored or doubled, a scale of 1 dropped, a moving variance of 1
squared. `perturb` moves every number of every tensor. A hinge of a loss hides its `max(0, .)` while all activations lie
on one side of it: `spread_classes` moves the class layer so that about half of the classes are active and half are
not, and picks true classes of both kinds.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Floats, Output
from capsbench.network.layers import ClassVectors
from capsbench.network.objective import CrossEntropy, MarginLoss, SpreadLoss
from capsbench.network.parameters import ParameterSpec, parameter_specs
from capsbench.network.routing import EMRouting
from capsbench.network.shapes import BoundNetwork

MOVED: Final = 0.25
"""Standard deviation of the noise, over the root mean square of the tensor that it moves."""
LEAST_MOVE, MOST_MOVE = 0.05, 0.25
"""How far a number is moved whose tensor starts with equal numbers, such as biases of 0."""
LEAST_VARIANCE: Final = 1e-6
ACTIVE, INACTIVE = (0.93, 0.985), (0.02, 0.08)
"""Between which activations the active and the inactive classes are spread."""
MARGIN, LARGE_MARGIN = 0.2, 0.9
"""Of the spread loss: where gradients are compared, and of the last train step."""
_ROUNDS: Final = 12

Parameters = Mapping[str, NDArray[np.float32]]
Labels = NDArray[np.int64]


Outputs = Callable[[Parameters], Output]
"""Evaluates the network as in training, with given parameters, on some images."""


def perturb(bound: BoundNetwork, parameters: Parameters, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the parameters, each number moved at random; moving statistics stay as they are.

    Args:
        bound: the network.
        parameters: float32, by name.
        seed: of the noise, with which each tensor has a generator of its own.
    """
    moved = {}
    for spec in parameter_specs(bound):
        values = parameters[spec.name]
        moved[spec.name] = _moved(bound, spec, values, seed).astype(np.float32) if spec.trainable else values
    return moved


def perturb_statistics(statistics: Mapping[str, Floats], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return moving statistics of the size of a batch's, but different from them; variances stay positive.

    Args:
        statistics: of the batch, by the names of the moving ones.
        seed: of the noise.
    """
    moved = {}
    for name, value in statistics.items():
        generator = _generator(name, seed)
        if name.endswith("variance"):
            noise = _away_from_zero(generator, value.shape, 4 * LEAST_MOVE, 4 * MOST_MOVE)
            moved[name] = (np.maximum(value, LEAST_VARIANCE) * np.exp(noise)).astype(np.float32)
        else:
            spread = np.sqrt(np.maximum(statistics[f"{name.removesuffix('mean')}variance"], LEAST_VARIANCE))
            noise = _away_from_zero(generator, value.shape, LEAST_MOVE, MOST_MOVE)
            moved[name] = (value + spread * noise).astype(np.float32)
    return moved


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = blake2b(f"perturbed:{name}:{seed}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def _moved(bound: BoundNetwork, spec: ParameterSpec, values: Floats, seed: int) -> NDArray[np.float64]:
    values, generator = values.astype(np.float64), _generator(spec.name, seed)
    if values.std() > 0.0:
        root_mean_square = float(np.sqrt(np.square(values).mean()))
        return values + MOVED * root_mean_square * generator.standard_normal(values.shape)
    return values + _away_from_zero(generator, values.shape, LEAST_MOVE, MOST_MOVE) / _scale(bound, spec.name)


def _away_from_zero(
    generator: np.random.Generator, shape: tuple[int, ...], least: float, most: float
) -> NDArray[np.float64]:
    """Numbers of either sign whose magnitudes are uniform between `least` and `most`."""
    signs = 2.0 * generator.integers(0, 2, shape) - 1.0
    return signs * (least + (most - least) * generator.random(shape))


def _scale(bound: BoundNetwork, name: str) -> float:
    """What the network multiplies an offset by, at least 1."""
    routing, tensor = bound.network.routing, name.partition(".")[2]
    if not isinstance(routing, EMRouting):
        return 1.0
    return max(1.0, abs({"beta_u": routing.beta_u_scale, "beta_a": routing.beta_a_scale}.get(tensor, 1.0)))


def round_badly(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace the last 16 bits of each number by 0101…, so that cutting any of them moves all numbers alike.

    To round a thousand numbers to a few bits changes a sum of them by less than it changes each of them. Where every
    number is made larger, or smaller, by a third of its last bit, the sum is too, and shows it.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(values == 0.0, values, (bits & np.uint32(0xFFFF0000) | np.uint32(0x5555)).view(np.float32))


def spread_classes(
    bound: BoundNetwork, parameters: Parameters, labels: Labels, evaluate: Outputs
) -> tuple[Parameters, Labels]:
    """Move the class layer and pick true classes until activations lie on both sides of each hinge of the loss.

    Args:
        bound: the network.
        parameters: perturbed ones.
        labels: [images], returned as they are for a loss without hinges.
        evaluate: on the images that will be compared.

    Returns:
        Parameters and labels. A class layer that cannot be moved so far is left as near to that as it came.
    """
    if isinstance(bound.network.objective.loss, CrossEntropy):
        return parameters, labels
    targets = _targets(bound)
    for _ in range(_ROUNDS):
        output = evaluate(parameters)
        labels = _labels_of_both_kinds(output.activations)
        if hinges_are_crossed(bound, output.activations, labels):
            break
        parameters = _towards(bound, parameters, output, targets)
    return parameters, labels


def hinges_are_crossed(bound: BoundNetwork, activations: Floats, labels: Labels) -> bool:
    """Whether activations [images, classes] lie on both sides of each hinge of the loss."""
    loss, images = bound.network.objective.loss, np.arange(len(labels))
    true, others = activations[images, labels], np.ones(activations.shape, bool)
    others[images, labels] = False
    match loss:
        case CrossEntropy():
            return True
        case MarginLoss():
            sides = [true > loss.positive, activations[others] > loss.negative]
        case SpreadLoss():
            gaps = (true[:, None] - activations)[others]
            sides = [gaps > margin for margin in (MARGIN, LARGE_MARGIN)]
    return len(labels) == 1 or all(side.any() and not side.all() for side in sides)


def _targets(bound: BoundNetwork) -> NDArray[np.float64]:
    """Activations that the classes should have [classes]; those of a softmax sum to one."""
    routing, classes = bound.network.routing, bound.classes
    if isinstance(routing, EMRouting) and routing.activation == "softmax":
        return np.array([ACTIVE[0], *[(1.0 - ACTIVE[0]) / (classes - 1)] * (classes - 1)])
    active = max(1, classes // 2)
    return np.concatenate([np.linspace(*ACTIVE, active), np.linspace(*INACTIVE, classes - active)])


def _towards(bound: BoundNetwork, parameters: Parameters, output: Output, targets: NDArray[np.float64]) -> Parameters:
    layer, routing = bound.layers[-1].layer, bound.network.routing
    if isinstance(layer, ClassVectors):
        name = f"{layer.name}.transforms"
        lengths = output.scores.mean(0)  # before the squash
        ratio = targets / (1.0 - targets)
        wanted = np.sqrt(ratio) if layer.squash == "rational" else -np.log1p(-targets)
        # Half of the way, as what a class gains in votes it gains in couplings too.
        factors = np.sqrt(np.clip(wanted / np.maximum(lengths, 1e-12), 0.01, 100.0))
        return {**parameters, name: round_badly((parameters[name] * factors[:, None, None]).astype(np.float32))}
    if not isinstance(routing, EMRouting):
        return parameters
    name, variant = f"{layer.name}.beta_a", routing.of(layer)
    found = np.clip(output.activations, 1e-9, 1.0 - 1e-9)
    if variant.activation == "softmax":
        missing = np.log(targets) - np.log(found).mean(0)
    else:
        missing = np.log(targets / (1.0 - targets)) - np.log(found / (1.0 - found)).mean(0)
    heat = variant.inverse_temperature.at(variant.iterations - 1) * variant.beta_a_scale
    return {**parameters, name: (parameters[name] + missing / heat).astype(np.float32)}


def _labels_of_both_kinds(activations: Floats) -> Labels:
    """True classes [images]: the most active one of the first image, the least active of the second, and so on."""
    ranked = np.argsort(-activations, axis=1, kind="stable")
    count, classes = activations.shape
    active = max(1, classes // 2)
    of_active, of_inactive = np.arange(active), np.arange(classes - 1, active - 1, -1)
    picked = [(of_inactive if number % 2 else of_active)[number // 2 % active] for number in range(count)]
    return ranked[np.arange(count), picked].astype(np.int64)
