"""Adam and SGD by TensorFlow's own update kernels, with the scalars of a step computed outside the graph."""

from collections.abc import Sequence
from math import sqrt

import tensorflow as tf

from capsbench.network.training import SGD, Adam


class AdamUpdate:
    """Adam (Kingma, Ba 2015, algorithm 1), epsilon added to the square root of the corrected second moment.

    The kernel adds epsilon to the uncorrected root and would correct in float32; both corrections are therefore put
    into the learning rate and epsilon that it is handed.
    """

    scalars = 2

    def __init__(self, spec: Adam, variables: Sequence[tf.Variable]) -> None:
        self._spec, self._variables, self._steps = spec, variables, 0
        self._first = [_zeros_like(variable) for variable in variables]
        self._second = [_zeros_like(variable) for variable in variables]

    @property
    def state(self) -> list[tf.Variable]:
        """Both moments of every variable."""
        return [*self._first, *self._second]

    def next_scalars(self, learning_rate: float) -> tuple[float, float]:
        """Learning rate and epsilon of the next step, both corrected for the moments' start at zero."""
        self._steps += 1
        root = sqrt(1.0 - self._spec.beta2**self._steps)
        return learning_rate * root / (1.0 - self._spec.beta1**self._steps), self._spec.epsilon * root

    def apply(self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor]) -> None:
        """Add the update ops to the graph."""
        rate, epsilon = scalars
        for i, variable in enumerate(self._variables):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._first[i].handle,
                v=self._second[i].handle,
                beta1_power=tf.zeros_like(rate),
                beta2_power=tf.zeros_like(rate),
                lr=rate,
                beta1=tf.constant(self._spec.beta1, rate.dtype),
                beta2=tf.constant(self._spec.beta2, rate.dtype),
                epsilon=epsilon,
                grad=_decayed(gradients[i], variable, self._spec.weight_decay),
            )


class SGDUpdate:
    """v <- momentum * v + gradient; parameter <- parameter - learning_rate * v."""

    scalars = 1

    def __init__(self, spec: SGD, variables: Sequence[tf.Variable]) -> None:
        self._spec, self._variables = spec, variables
        self._velocities = [_zeros_like(variable) for variable in variables] if spec.momentum else []

    @property
    def state(self) -> list[tf.Variable]:
        """The velocities; none without momentum."""
        return self._velocities

    def next_scalars(self, learning_rate: float) -> tuple[float]:
        """The learning rate."""
        return (learning_rate,)

    def apply(self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor]) -> None:
        """Add the update ops to the graph."""
        (rate,) = scalars
        for i, variable in enumerate(self._variables):
            gradient = _decayed(gradients[i], variable, self._spec.weight_decay)
            if self._velocities:
                tf.raw_ops.ResourceApplyMomentum(
                    var=variable.handle,
                    accum=self._velocities[i].handle,
                    lr=rate,
                    grad=gradient,
                    momentum=tf.constant(self._spec.momentum, rate.dtype),
                )
            else:
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)


def create_optimizer(spec: Adam | SGD, variables: Sequence[tf.Variable]) -> AdamUpdate | SGDUpdate:
    """The optimizer for `variables`, its state at zero on the current device."""
    return AdamUpdate(spec, variables) if isinstance(spec, Adam) else SGDUpdate(spec, variables)


def _zeros_like(variable: tf.Variable) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)


def _decayed(gradient: tf.Tensor, variable: tf.Variable, weight_decay: float) -> tf.Tensor:
    return gradient + weight_decay * variable if weight_decay else gradient
