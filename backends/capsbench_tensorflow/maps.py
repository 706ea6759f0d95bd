"""What layers on maps [b, h, w, c] do in TensorFlow operators."""

from collections.abc import Mapping
from typing import Literal

import tensorflow as tf

from capsbench.network.layers import PrimaryCapsules, Residual
from capsbench.network.patches import Padding
from capsbench_tensorflow.mixed import bias_add, narrow, wide
from capsbench_tensorflow.sharing import gathered

Variables = Mapping[str, tf.Variable]
Moments = dict[str, tuple[tf.Tensor, tf.Tensor]]


def activate(values: tf.Tensor, activation: str) -> tf.Tensor:
    """`relu` or `linear`."""
    return tf.nn.relu(values) if activation == "relu" else values


def conv(maps: tf.Tensor, weights: tf.Variable, biases: tf.Variable | None, stride: int, padding: Padding) -> tf.Tensor:
    """Convolve with weights [kernel, kernel, in, out]."""
    around = padding.upper() if isinstance(padding, str) else [[0, 0], [padding] * 2, [padding] * 2, [0, 0]]
    values = tf.nn.conv2d(narrow(maps), narrow(weights), stride, around)
    return values if biases is None else bias_add(values, biases)


def depthwise_conv(maps: tf.Tensor, weights: tf.Variable, biases: tf.Variable, stride: int) -> tf.Tensor:
    """Convolve every channel with a filter of its own; weights [kernel, kernel, 1, channels]."""
    filters = tf.transpose(narrow(weights), (0, 1, 3, 2))
    sums = tf.nn.depthwise_conv2d(narrow(maps), filters, (1, stride, stride, 1), "VALID")
    return bias_add(sums, biases)


def average_pool(maps: tf.Tensor, size: int | Literal["all"]) -> tf.Tensor:
    """The mean of windows side by side, or of all places."""
    maps = wide(maps)
    return tf.reduce_mean(maps, (1, 2), keepdims=True) if size == "all" else tf.nn.avg_pool2d(maps, size, size, "VALID")


def batch_norm(
    own: Variables,
    maps: tf.Tensor,
    epsilon: float,
    moments: Moments | None,
    name: str,
    prefix: str = "",
    activation: str = "linear",
) -> tf.Tensor:
    """Normalise by the moving statistics, or in training by the batch's, which then join `moments`.

    Args:
        own: the layer's variables.
        maps: [b, h, w, c].
        epsilon: added to the variance.
        moments: of the batch, by `layer.` and the prefix; None at evaluation.
        name: of the layer.
        prefix: of the normalisation's variables among the layer's.
        activation: of what is normal.
    """
    maps = wide(maps)
    if moments is None:
        mean, variance = own[f"{prefix}moving_mean"], own[f"{prefix}moving_variance"]
    else:
        mean, variance = moments[f"{name}.{prefix}"] = _moments(maps)
    normal = (maps - mean) / tf.sqrt(variance + epsilon)
    scaled = normal * own[f"{prefix}scale"] if f"{prefix}scale" in own else normal
    return activate(scaled + own[f"{prefix}center"] if f"{prefix}center" in own else scaled, activation)


def normal_capsules(
    own: Variables, poses: tf.Tensor, logits: tf.Tensor, epsilon: float, moments: Moments | None, name: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Poses [.., n, elements] and logits [.., n] of a layer of capsules, each normalised type by type."""

    def normal(values: tf.Tensor, prefix: str) -> tf.Tensor:
        maps = tf.reshape(values, (-1, 1, 1, values.shape[-1]))
        return tf.reshape(batch_norm(own, maps, epsilon, moments, name, prefix), values.shape)

    by_type = normal(tf.linalg.matrix_transpose(poses), "pose_")
    return tf.linalg.matrix_transpose(by_type), normal(logits, "activation_")


def primary(
    spec: PrimaryCapsules, own: Variables, maps: tf.Tensor, moments: Moments | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Poses [b, h, w, n, 16] and activations [b, h, w, n] of primary capsules; `moments` as above."""
    poses = wide(conv(maps, own["pose_weights"], own.get("pose_biases"), spec.stride, "valid"))
    logits = wide(conv(maps, own["activation_weights"], own.get("activation_biases"), spec.stride, "valid"))
    logits = logits + spec.activation_offset if spec.activation_offset else logits
    poses = tf.reshape(poses, (*poses.shape[:3], spec.capsules, 16))
    if spec.normalisation is not None:
        poses, logits = normal_capsules(own, poses, logits, spec.normalisation.epsilon, moments, spec.name)
    return poses, tf.sigmoid(logits)


def residual(spec: Residual, own: Variables, maps: tf.Tensor, moments: Moments | None) -> tf.Tensor:
    """A basic block (He et al. 2016); see `Residual`."""

    def normal(values: tf.Tensor, prefix: str, activation: str = "linear") -> tf.Tensor:
        return batch_norm(own, values, spec.epsilon, moments, spec.name, prefix, activation)

    # Of an even side `same` would pad a strided convolution on one side only.
    padding: Padding = "same" if spec.stride == 1 else 1
    inner = normal(conv(maps, own["conv1_weights"], None, spec.stride, padding), "norm1_", "relu")
    outer = normal(conv(inner, own["conv2_weights"], None, 1, "same"), "norm2_")
    if "shortcut_weights" in own:
        maps = normal(conv(maps, own["shortcut_weights"], None, spec.stride, "valid"), "shortcut_")
    return tf.nn.relu(outer + wide(maps))


def _moments(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance [channels] over batch and places."""
    mean = gathered(tf.reduce_mean(maps, (0, 1, 2)))
    return mean, gathered(tf.reduce_mean(tf.square(maps - mean), (0, 1, 2)))
