"""The training loss as it is defined, on real or complex arrays."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from capsbench.network.objective import CrossEntropy, MarginLoss
from capsbench.network.shapes import BoundNetwork
from capsbench_numpy.layers import Signal
from capsbench_numpy.routing import Array, log_sigmoid, log_softmax


def loss(
    bound: BoundNetwork,
    parameters: Mapping[str, Array],
    output: Signal,
    images: Array,
    labels: NDArray[np.int64],
    margin: float,
) -> complex:
    """Mean loss over the batch; its imaginary part is the derivative's carrier and zero on real input."""
    assert output.scores is not None  # noqa: S101 - the last layer gives scores
    assert output.activations is not None  # noqa: S101 - likewise
    objective = bound.network.objective
    truth = np.eye(bound.classes)[labels]
    if isinstance(objective.loss, CrossEntropy):
        total = -(truth * log_softmax(output.scores)).sum(1).mean()
    elif isinstance(objective.loss, MarginLoss):
        total = _margin(output.activations, truth, objective.loss)
    else:
        total = _spread(output.activations, truth, margin)
    if objective.reconstruction is not None:
        wrong = (_decode(parameters, output.values * truth[..., None]) - images.reshape(len(images), -1)) ** 2
        total = total + objective.reconstruction.weight_per_pixel * bound.image.values * wrong.mean()
    return complex(total)


def _spread(activations: Array, truth: Array, margin: float) -> Array:
    """sum_{i != t} max(0, m - (a_t - a_i))^2, mean over the batch (Hinton et al. 2018, equation 3)."""
    gap = margin - ((activations * truth).sum(1, keepdims=True) - activations)
    short = np.where(gap.real > 0, gap, 0.0) * (1.0 - truth)
    spread: Array = (short**2).sum(1).mean()
    return spread


def _margin(activations: Array, truth: Array, loss: MarginLoss) -> Array:
    """Too little of the true class and too much of the others, squared; mean over the batch (Sabour et al. 2017)."""
    few = np.where(activations.real < loss.positive, loss.positive - activations, 0.0)
    many = np.where(activations.real > loss.negative, activations - loss.negative, 0.0)
    total: Array = (truth * few**2 + loss.down_weight * (1.0 - truth) * many**2).sum(1).mean()
    return total


def _decode(parameters: Mapping[str, Array], poses: Array) -> Array:
    values = poses.reshape(len(poses), -1)
    depth = sum(name.startswith("decoder.") for name in parameters) // 2
    for i in range(depth):
        values = values @ parameters[f"decoder.dense{i}.weights"] + parameters[f"decoder.dense{i}.biases"]
        values = np.exp(log_sigmoid(values)) if i == depth - 1 else np.where(values.real > 0, values, 0.0)
    return values
