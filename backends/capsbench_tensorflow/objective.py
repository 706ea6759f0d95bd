"""The training loss: spread loss or cross entropy, and the reconstruction of the image."""

from collections.abc import Mapping

import tensorflow as tf

from capsbench.network.objective import CrossEntropy, MarginLoss
from capsbench.network.parameters import decoder_sizes
from capsbench.network.shapes import BoundNetwork
from capsbench_tensorflow.layers import Result
from capsbench_tensorflow.mixed import bias_add, narrow, wide

# Name scopes of the two parts, which stand among the layers in a profile.
LOSS, DECODER = "loss", "decoder"


def loss(
    bound: BoundNetwork,
    variables: Mapping[str, tf.Variable],
    result: Result,
    images: tf.Tensor,
    labels: tf.Tensor,
    margin: tf.Tensor,
) -> tf.Tensor:
    """The training loss of a batch, a scalar.

    Args:
        bound: the network.
        variables: the decoder's, by name.
        result: the network's output.
        images: [b, height, width, channels], what the decoder is to rebuild.
        labels: int64 [b].
        margin: of the spread loss, a scalar.
    """
    objective = bound.network.objective
    with tf.name_scope(LOSS):
        truth = tf.one_hot(labels, bound.classes, dtype=result.scores.dtype)
        if isinstance(objective.loss, CrossEntropy):
            total = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, result.scores))
        elif isinstance(objective.loss, MarginLoss):
            total = _margin(result.activations, truth, objective.loss)
        else:
            total = _spread(result.activations, truth, margin)
    if objective.reconstruction is None:
        return total
    with tf.name_scope(DECODER):
        rebuilt = _decode(bound, variables, result.poses, truth)
        pixels = bound.image.values
        error = tf.reduce_mean(tf.square(rebuilt - tf.reshape(images, rebuilt.shape)))
        return total + objective.reconstruction.weight_per_pixel * pixels * error


def _spread(activations: tf.Tensor, truth: tf.Tensor, margin: tf.Tensor) -> tf.Tensor:
    """Mean over the batch of sum_{i != t} max(0, margin - (a_t - a_i))^2 (Hinton et al. 2018, equation 3)."""
    true = tf.reduce_sum(activations * truth, 1, keepdims=True)
    gaps = tf.nn.relu(margin - (true - activations)) * (1.0 - truth)
    return tf.reduce_mean(tf.reduce_sum(tf.square(gaps), 1))


def _margin(activations: tf.Tensor, truth: tf.Tensor, loss: MarginLoss) -> tf.Tensor:
    """Too little of the true class and too much of the others, squared; mean over the batch (Sabour et al. 2017)."""
    few = truth * tf.square(tf.nn.relu(loss.positive - activations))
    many = (1.0 - truth) * tf.square(tf.nn.relu(activations - loss.negative))
    return tf.reduce_mean(tf.reduce_sum(few + loss.down_weight * many, 1))


def _decode(bound: BoundNetwork, variables: Mapping[str, tf.Variable], poses: tf.Tensor, truth: tf.Tensor) -> tf.Tensor:
    """Images [b, pixels] in (0, 1) from the poses of the true classes."""
    values = tf.reshape(poses * truth[:, :, None], (poses.shape[0], -1))
    layers = len(decoder_sizes(bound)) - 1
    for index in range(layers):
        name = f"decoder.dense{index}"
        products = tf.matmul(narrow(values), narrow(variables[f"{name}.weights"]))
        values = bias_add(products, variables[f"{name}.biases"])
        values = tf.nn.relu(values) if index < layers - 1 else tf.sigmoid(wide(values))
    return values
