"""Adam, AdamW and SGD by TensorFlow's own update kernels, the scalars of a step computed outside the graph."""

from collections.abc import Sequence
from math import sqrt

import tensorflow as tf

from capsbench.network.training import SGD, Adam, AdamW

STEP_COUNT = "step_count"


class AdamUpdate:
    """Adam (Kingma, Ba 2015, algorithm 1), epsilon added to the square root of the corrected second moment.

    The kernel adds epsilon to the uncorrected root and would correct in float32; both corrections are therefore put
    into the learning rate and epsilon that it is handed.

    Attributes:
        steps: taken so far.
        state: by the contract's names, the tensors of every variable, in the order of the variables.
    """

    scalars = 2
    counts = True  # its step depends on how many there were

    def __init__(self, spec: Adam | AdamW, variables: Sequence[tf.Variable]) -> None:
        self._spec, self._variables, self.steps = spec, variables, 0
        self._coupled_decay = 0.0 if isinstance(spec, AdamW) else spec.weight_decay
        self.state = {name: [_zeros_like(variable) for variable in variables] for name in spec.state}

    def next_scalars(self, learning_rate: float) -> tuple[float, ...]:
        """Learning rate and epsilon of the next step, both corrected for the moments' start at zero."""
        self.steps += 1
        root = sqrt(1.0 - self._spec.beta2**self.steps)
        return learning_rate * root / (1.0 - self._spec.beta1**self.steps), self._spec.epsilon * root

    def apply(self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor]) -> None:
        """Add the update ops to the graph."""
        rate, epsilon = scalars
        for i, variable in enumerate(self._variables):
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self.state["first_moment"][i].handle,
                v=self.state["second_moment"][i].handle,
                beta1_power=tf.zeros_like(rate),
                beta2_power=tf.zeros_like(rate),
                lr=rate,
                beta1=tf.constant(self._spec.beta1, rate.dtype),
                beta2=tf.constant(self._spec.beta2, rate.dtype),
                epsilon=epsilon,
                grad=_decayed(gradients[i], variable, self._coupled_decay),
            )


class AdamWUpdate(AdamUpdate):
    """Adam that first shrinks the parameters by learning_rate * weight_decay (Loshchilov, Hutter 2019, algorithm 2)."""

    scalars = 3

    def next_scalars(self, learning_rate: float) -> tuple[float, ...]:
        """Those of Adam, and what is left of a parameter."""
        return *super().next_scalars(learning_rate), 1.0 - learning_rate * self._spec.weight_decay

    def apply(self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor]) -> None:
        """Add the update ops to the graph."""
        *of_adam, left = scalars
        for variable in self._variables:
            assign(variable, left * variable)
        super().apply(gradients, of_adam)


class SGDUpdate:
    """v <- momentum * v + gradient; parameter <- parameter - learning_rate * v, or Nesterov's step.

    Attributes:
        steps: taken so far.
        state: by the contract's names, the tensors of every variable, in the order of the variables.
    """

    scalars = 1
    counts = False

    def __init__(self, spec: SGD, variables: Sequence[tf.Variable]) -> None:
        self._spec, self._variables, self.steps = spec, variables, 0
        self.state = {name: [_zeros_like(variable) for variable in variables] for name in spec.state}

    def next_scalars(self, learning_rate: float) -> tuple[float]:
        """The learning rate."""
        self.steps += 1
        return (learning_rate,)

    def apply(self, gradients: Sequence[tf.Tensor], scalars: Sequence[tf.Tensor]) -> None:
        """Add the update ops to the graph."""
        (rate,) = scalars
        for i, variable in enumerate(self._variables):
            gradient = _decayed(gradients[i], variable, self._spec.weight_decay)
            if "velocity" in self.state:
                tf.raw_ops.ResourceApplyMomentum(
                    var=variable.handle,
                    accum=self.state["velocity"][i].handle,
                    lr=rate,
                    grad=gradient,
                    momentum=tf.constant(self._spec.momentum, rate.dtype),
                    use_nesterov=self._spec.nesterov,
                )
            else:
                tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)


def create_optimizer(spec: Adam | AdamW | SGD, variables: Sequence[tf.Variable]) -> AdamUpdate | SGDUpdate:
    """The optimizer for `variables`, its state at zero on the current device."""
    if isinstance(spec, SGD):
        return SGDUpdate(spec, variables)
    return AdamWUpdate(spec, variables) if isinstance(spec, AdamW) else AdamUpdate(spec, variables)


def clip(gradients: Sequence[tf.Tensor], norm: float) -> list[tf.Tensor]:
    """The gradients, scaled down so that their norm over all parameters is at most `norm`."""
    found = tf.linalg.global_norm(gradients)
    factor = norm / tf.maximum(found, norm)
    return [factor * gradient for gradient in gradients]


def assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Set a variable, or of a mirrored one the copy of the replica whose graph is being made."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)


def _zeros_like(variable: tf.Variable) -> tf.Variable:
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False)


def _decayed(gradient: tf.Tensor, variable: tf.Variable, weight_decay: float) -> tf.Tensor:
    return gradient + weight_decay * variable if weight_decay else gradient
