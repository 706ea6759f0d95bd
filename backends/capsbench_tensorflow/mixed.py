"""Mixed precision in TensorFlow: which products are rounded to bfloat16, and what never is.

A layer that multiplies hands its factors to `narrow`, whether or not the network is mixed; within `products` they are
then cast, and the result stays in bfloat16 with what is done to it element by element, as in PyTorch's autocast. What
the contract keeps in float32 is widened first. Casts have gradients, so parameters' gradients are float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

_NARROW = ContextVar("narrow", default=False)


@contextmanager
def products(*, mixed: bool) -> Iterator[None]:
    """While a graph is made within it, factors are cast to bfloat16, where the setting is mixed."""
    token = _NARROW.set(mixed)
    try:
        yield
    finally:
        _NARROW.reset(token)


def narrow(values: tf.Tensor) -> tf.Tensor:
    """A factor of a product: in bfloat16 within `products`, else as it is."""
    return tf.cast(values, tf.bfloat16) if _NARROW.get() else values


def wide(values: tf.Tensor) -> tf.Tensor:
    """The values in float32 where they are in bfloat16, else as they are."""
    return tf.cast(values, tf.float32) if values.dtype == tf.bfloat16 else values


def bias_add(values: tf.Tensor, biases: tf.Variable) -> tf.Tensor:
    """Products plus biases, as wide as the products; the biases' gradient is a long sum, and taken in float32.

    In bfloat16 TensorFlow's kernel on the CPU adds 1 to 256 and gets 256.
    """
    return tf.cast(tf.nn.bias_add(wide(values), biases), values.dtype)
