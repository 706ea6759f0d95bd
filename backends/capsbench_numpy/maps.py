"""What layers on maps [b, h, w, c] do, on real or complex arrays (see `routing`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from capsbench.network.layers import Residual
from capsbench_numpy.routing import Array


@dataclass(slots=True)
class Seen:
    """What a pass in training leaves behind, by the names of parameters.

    Attributes:
        statistics: mean and variance of the batch, under the names of the moving ones.
        shifts: of biases, which keep every ReLU off its kink; None where none are wanted.
    """

    statistics: dict[str, Array] = field(default_factory=dict)
    shifts: dict[str, Array] | None = None

    def take(self, prefix: str, other: "Seen") -> None:
        """Add what a pass through one layer has left, whose names get a prefix."""
        for mine, others in ((self.statistics, other.statistics), (self.shifts, other.shifts)):
            if mine is not None and others is not None:
                mine |= {f"{prefix}{name}": value for name, value in others.items()}


def rectify(values: Array, activation: str, seen: Seen | None, bias: str) -> Array:
    """Activate, after the bias of that name has been shifted, where `seen` wants shifts."""
    if activation == "relu" and seen is not None and seen.shifts is not None:
        seen.shifts[bias] = off_the_kink(values.real.reshape(-1, values.shape[-1]))
        values = values + seen.shifts[bias]
    return activate(values, activation)


def off_the_kink(values: Array) -> Array:
    """Shifts [channels] that bring zero into the middle of a wide gap between the values [count, channels].

    Where a value lies within rounding of zero, ReLU's gradient is one or nothing by chance. Gaps are looked for within
    a tenth of the values' root mean square.
    """
    reach = 0.1 * np.sqrt(np.square(values).mean(0))
    edges = np.sort(np.concatenate([values, -reach[None], reach[None]]), 0)
    gaps = np.diff(edges, axis=0) * ((edges[:-1] >= -reach) & (edges[1:] <= reach))
    widest = gaps.argmax(0)
    channels = np.arange(values.shape[1])
    shifts: Array = -0.5 * (edges[widest, channels] + edges[widest + 1, channels])
    return shifts


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
    own: Mapping[str, Array], maps: Array, epsilon: float, *, seen: Seen | None, prefix: str = "", activation: str
) -> Array:
    """Normalise by the moving statistics, or in training by the batch's.

    Args:
        own: the layer's tensors.
        maps: [b, h, w, c].
        epsilon: added to the variance.
        seen: takes up the batch's mean and variance [c]; None at evaluation.
        prefix: of the tensors' names.
        activation: of what is normal.
    """
    if seen is not None:
        mean = maps.mean((0, 1, 2))
        variance = ((maps - mean) ** 2).mean((0, 1, 2))
        seen.statistics |= {f"{prefix}moving_mean": mean, f"{prefix}moving_variance": variance}
    else:
        mean, variance = own[f"{prefix}moving_mean"], own[f"{prefix}moving_variance"]
    normal = (maps - mean) / np.sqrt(variance + epsilon)
    normal = normal * own.get(f"{prefix}scale", np.ones(1)) + own.get(f"{prefix}center", np.zeros(1))
    return rectify(normal, activation, seen if f"{prefix}center" in own else None, f"{prefix}center")


def normal_capsules(
    own: Mapping[str, Array], poses: Array, logits: Array, epsilon: float, *, seen: Seen | None
) -> tuple[Array, Array]:
    """Poses [b, h, w, n, elements] and logits [b, h, w, n], each normalised type by type."""
    batch, height, width, types, elements = poses.shape
    by_type = np.swapaxes(poses, 3, 4).reshape(batch, height, width * elements, types)
    by_type = batch_norm(own, by_type, epsilon, seen=seen, prefix="pose_", activation="linear")
    poses = np.swapaxes(by_type.reshape(batch, height, width, elements, types), 3, 4)
    return poses, batch_norm(own, logits, epsilon, seen=seen, prefix="activation_", activation="linear")


def residual(spec: Residual, own: Mapping[str, Array], maps: Array, *, seen: Seen | None) -> Array:
    """A basic block (He et al. 2016); see `Residual`."""

    def normal(values: Array, prefix: str, activation: str = "linear") -> Array:
        return batch_norm(own, values, spec.epsilon, seen=seen, prefix=prefix, activation=activation)

    inner = normal(conv(_padded(maps), own["conv1_weights"], None, spec.stride), "norm1_", "relu")
    outer = normal(conv(_padded(inner), own["conv2_weights"], None, 1), "norm2_")
    if "shortcut_weights" in own:
        maps = normal(conv(maps, own["shortcut_weights"], None, spec.stride), "shortcut_")
    return rectify(outer + maps, "relu", seen, "norm2_center")


def _windows(maps: Array, size: int, stride: int) -> Array:
    """[b, rows, columns, c, size, size], of the windows that fit."""
    return sliding_window_view(maps, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def _padded(maps: Array) -> Array:
    return np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
