"""The training loss in PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional

from capsbench.network.objective import CrossEntropy, MarginLoss
from capsbench.network.shapes import BoundNetwork
from capsbench_torch.layers import Signal
from capsbench_torch.maps import Parameters
from capsbench_torch.mixed import products, wide
from capsbench_torch.routing import Scope


def loss(
    bound: BoundNetwork,
    parameters: Parameters,
    output: Signal,
    images: Tensor,
    labels: Tensor,
    margin: Tensor,
    scope: Scope,
    *,
    mixed: bool = False,
) -> Tensor:
    """Mean loss over the batch []: images [b, c, h, w], labels [b], margin []."""
    assert output.scores is not None  # noqa: S101 - the last layer gives scores
    assert output.activations is not None  # noqa: S101 - likewise
    objective = bound.network.objective
    with scope("layer::loss"):
        if isinstance(objective.loss, CrossEntropy):
            total = functional.cross_entropy(output.scores, labels)
        elif isinstance(objective.loss, MarginLoss):
            total = _margin(output.activations, labels, objective.loss)
        else:
            total = _spread(output.activations, labels, margin)
    if objective.reconstruction is not None:
        with scope("layer::decoder"):
            truth = functional.one_hot(labels, bound.classes).to(images.dtype)
            with products(images.device, mixed=mixed):
                rebuilt = _decode(parameters, (output.values * truth[..., None]).flatten(1))
            # The canonical order of pixels is [h, w, c].
            wrong = functional.mse_loss(rebuilt, images.permute(0, 2, 3, 1).flatten(1))
            total = total + objective.reconstruction.weight_per_pixel * bound.image.values * wrong
    return total


def _spread(activations: Tensor, labels: Tensor, margin: Tensor) -> Tensor:
    """sum_{i != t} max(0, m - (a_t - a_i))^2, mean over the batch (Hinton et al. 2018, equation 3)."""
    true = activations.gather(1, labels[:, None])
    short = (margin - (true - activations)).relu()
    wrong = torch.ones_like(short).scatter(1, labels[:, None], 0.0)
    return (short.square() * wrong).sum(1).mean()


def _margin(activations: Tensor, labels: Tensor, loss: MarginLoss) -> Tensor:
    """Too little of the true class and too much of the others, squared; mean over the batch (Sabour et al. 2017)."""
    few = (loss.positive - activations.gather(1, labels[:, None])).relu()
    wrong = torch.ones_like(activations).scatter(1, labels[:, None], 0.0)
    many = (activations - loss.negative).relu()
    return (few.square().sum(1) + loss.down_weight * (many.square() * wrong).sum(1)).mean()


def _decode(parameters: Parameters, values: Tensor) -> Tensor:
    depth = sum(name.startswith("decoder.") for name in parameters) // 2
    for i in range(depth):
        weights, biases = parameters[f"decoder.dense{i}.weights"], parameters[f"decoder.dense{i}.biases"]
        values = torch.addmm(biases, values, weights)
        values = wide(values).sigmoid() if i == depth - 1 else values.relu()
    return values
