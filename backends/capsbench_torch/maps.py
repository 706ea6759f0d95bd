"""What layers on maps [b, c, h, w] do in PyTorch."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from capsbench.network.layers import PrimaryCapsules, Residual
from capsbench_torch.gathered import Gathered
from capsbench_torch.mixed import wide

Parameters = Mapping[str, Tensor]
Statistics = dict[str, Tensor]


def activate(values: Tensor, activation: str) -> Tensor:
    """`relu` or `linear`."""
    return values.relu() if activation == "relu" else values


def conv(maps: Tensor, weights: Tensor, biases: Tensor | None, stride: int, pad: int = 0) -> Tensor:
    """Convolve with weights [kernel, kernel, in, out]; one channel in means that every channel has its own filter."""
    filters = weights.permute(3, 2, 0, 1)
    return functional.conv2d(maps, filters, biases, stride, pad, groups=maps.shape[1] // weights.shape[2])


def average_pool(maps: Tensor, size: int | Literal["all"]) -> Tensor:
    """The mean of windows side by side, or of all places."""
    maps = wide(maps)
    return maps.mean((2, 3), keepdim=True) if size == "all" else functional.avg_pool2d(maps, size)


def batch_norm(
    own: Parameters,
    maps: Tensor,
    epsilon: float,
    statistics: Statistics | None,
    name: str,
    prefix: str = "",
    activation: str = "linear",
) -> Tensor:
    """Normalise by the moving statistics, or in training by the batch's, which then join `statistics`.

    Args:
        own: the layer's parameters.
        maps: [b, c, h, w].
        epsilon: added to the variance.
        statistics: of the batch, by `layer.tensor`; None at evaluation.
        name: of the layer.
        prefix: of the normalisation's tensors among the layer's.
        activation: of what is normal.
    """
    maps = wide(maps)
    if statistics is None:
        mean, variance = own[f"{prefix}moving_mean"], own[f"{prefix}moving_variance"]
    else:
        if isinstance(statistics, Gathered):
            variance, mean = statistics.var_mean(maps)
        else:
            variance, mean = torch.var_mean(maps, (0, 2, 3), correction=0)
        statistics[f"{name}.{prefix}moving_mean"] = mean.detach()
        statistics[f"{name}.{prefix}moving_variance"] = variance.detach()
    normal = (maps - mean[:, None, None]) * (variance + epsilon).rsqrt()[:, None, None]
    if f"{prefix}scale" in own:
        normal = normal * own[f"{prefix}scale"][:, None, None]
    if f"{prefix}center" in own:
        normal = normal + own[f"{prefix}center"][:, None, None]
    return activate(normal, activation)


def normal_capsules(
    own: Parameters, poses: Tensor, logits: Tensor, epsilon: float, statistics: Statistics | None, name: str
) -> tuple[Tensor, Tensor]:
    """Poses and logits [b, n, ., .] of a layer of capsules, each normalised type by type; `statistics` as above."""
    return (
        batch_norm(own, poses, epsilon, statistics, name, "pose_"),
        batch_norm(own, logits, epsilon, statistics, name, "activation_"),
    )


def primary(
    spec: PrimaryCapsules, own: Parameters, maps: Tensor, statistics: Statistics | None
) -> tuple[Tensor, Tensor]:
    """Poses [b, h, w, n, 16] and activations [b, h, w, n] of primary capsules; `statistics` as above."""
    poses = wide(conv(maps, own["pose_weights"], own.get("pose_biases"), spec.stride))
    logits = wide(conv(maps, own["activation_weights"], own.get("activation_biases"), spec.stride))
    logits = logits + spec.activation_offset if spec.activation_offset else logits
    if spec.normalisation is not None:
        shape, by_type = poses.shape, (len(poses), spec.capsules, 16, -1)
        epsilon = spec.normalisation.epsilon
        poses, logits = normal_capsules(own, poses.view(by_type), logits, epsilon, statistics, spec.name)
        poses = poses.view(shape)
    poses, activations = poses.permute(0, 2, 3, 1), logits.sigmoid()
    return poses.reshape(*poses.shape[:3], spec.capsules, 16), activations.permute(0, 2, 3, 1)


def residual(spec: Residual, own: Parameters, maps: Tensor, statistics: Statistics | None) -> Tensor:
    """A basic block (He et al. 2016); see `Residual`."""

    def normal(values: Tensor, prefix: str, activation: str = "linear") -> Tensor:
        return batch_norm(own, values, spec.epsilon, statistics, spec.name, prefix, activation)

    inner = normal(conv(maps, own["conv1_weights"], None, spec.stride, 1), "norm1_", "relu")
    outer = normal(conv(inner, own["conv2_weights"], None, 1, 1), "norm2_")
    if "shortcut_weights" in own:
        maps = normal(conv(maps, own["shortcut_weights"], None, spec.stride), "shortcut_")
    return (outer + maps).relu()
