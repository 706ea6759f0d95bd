"""What layers on maps [b, h, w, c] do, on real or complex arrays (see `routing`)."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from capsbench.network.layers import Residual
from capsbench_numpy.routing import Array

Statistics = dict[str, Array]


def activate(values: Array, activation: str) -> Array:
    """`relu`, by the sign of the real part, or `linear`."""
    return np.where(values.real > 0, values, 0.0) if activation == "relu" else values


def conv(maps: Array, weights: Array, biases: Array | None, stride: int) -> Array:
    """Cross-correlation of every window that fits with weights [kernel, kernel, in, out]."""
    windows = _windows(maps, weights.shape[0], stride)
    products: Array = np.tensordot(windows, weights, ([4, 5, 3], [0, 1, 2]))
    return products if biases is None else products + biases


def depthwise_conv(maps: Array, weights: Array, biases: Array, stride: int) -> Array:
    """Cross-correlation of every channel with a filter of its own; weights [kernel, kernel, 1, channels]."""
    windows = _windows(maps, weights.shape[0], stride)
    sums: Array = np.einsum("bhwcyx,yxc->bhwc", windows, weights[:, :, 0]) + biases
    return sums


def max_pool(maps: Array, size: int, stride: int) -> Array:
    """The largest of every window that fits, by real parts."""
    windows = _windows(maps, size, stride)
    flat = windows.reshape(*windows.shape[:4], size * size)
    largest: Array = np.take_along_axis(flat, flat.real.argmax(-1)[..., None], -1)[..., 0]
    return largest


def average_pool(maps: Array, size: int | Literal["all"]) -> Array:
    """The mean of windows side by side, or of all places."""
    mean: Array = maps.mean((1, 2), keepdims=True) if size == "all" else _windows(maps, size, size).mean((4, 5))
    return mean


def batch_norm(
    own: Mapping[str, Array], maps: Array, epsilon: float, *, seen: Statistics | None, prefix: str = "", activation: str
) -> Array:
    """Normalise by the moving statistics, or in training by the batch's.

    Args:
        own: the layer's tensors.
        maps: [b, h, w, c].
        epsilon: added to the variance.
        seen: takes up the batch's mean and variance [c], under the names of the moving ones; None at evaluation.
        prefix: of the tensors' names.
        activation: of what is normal.
    """
    if seen is not None:
        mean = maps.mean((0, 1, 2))
        variance = ((maps - mean) ** 2).mean((0, 1, 2))
        seen |= {f"{prefix}moving_mean": mean, f"{prefix}moving_variance": variance}
    else:
        mean, variance = own[f"{prefix}moving_mean"], own[f"{prefix}moving_variance"]
    normal = (maps - mean) / np.sqrt(variance + epsilon)
    return activate(
        normal * own.get(f"{prefix}scale", np.ones(1)) + own.get(f"{prefix}center", np.zeros(1)), activation
    )


def normal_capsules(
    own: Mapping[str, Array], poses: Array, logits: Array, epsilon: float, *, seen: Statistics | None
) -> tuple[Array, Array]:
    """Poses [b, h, w, n, elements] and logits [b, h, w, n], each normalised type by type."""
    batch, height, width, types, elements = poses.shape
    by_type = np.swapaxes(poses, 3, 4).reshape(batch, height, width * elements, types)
    by_type = batch_norm(own, by_type, epsilon, seen=seen, prefix="pose_", activation="linear")
    poses = np.swapaxes(by_type.reshape(batch, height, width, elements, types), 3, 4)
    return poses, batch_norm(own, logits, epsilon, seen=seen, prefix="activation_", activation="linear")


def residual(spec: Residual, own: Mapping[str, Array], maps: Array, *, seen: Statistics | None) -> Array:
    """A basic block (He et al. 2016); see `Residual`."""

    def normal(values: Array, prefix: str, activation: str = "linear") -> Array:
        return batch_norm(own, values, spec.epsilon, seen=seen, prefix=prefix, activation=activation)

    inner = normal(conv(_padded(maps), own["conv1_weights"], None, spec.stride), "norm1_", "relu")
    outer = normal(conv(_padded(inner), own["conv2_weights"], None, 1), "norm2_")
    if "shortcut_weights" in own:
        maps = normal(conv(maps, own["shortcut_weights"], None, spec.stride), "shortcut_")
    return activate(outer + maps, "relu")


def _windows(maps: Array, size: int, stride: int) -> Array:
    """[b, rows, columns, c, size, size], of the windows that fit."""
    return sliding_window_view(maps, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def _padded(maps: Array) -> Array:
    return np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
