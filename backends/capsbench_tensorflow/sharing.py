"""While a replica's graph is made: which share of the batch it has, and sums over all replicas."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

_SHARE: ContextVar[tf.Tensor | None] = ContextVar("share", default=None)


@contextmanager
def sharing(weight: tf.Tensor) -> Iterator[None]:
    """What is made within it belongs to a replica that has `weight`, a scalar, of the batch."""
    token = _SHARE.set(weight)
    try:
        yield
    finally:
        _SHARE.reset(token)


def weighted(mean: tf.Tensor) -> tf.Tensor:
    """A mean over a replica's images as its part of that over the batch; outside of `sharing` it is the whole."""
    share = _SHARE.get()
    return mean if share is None else share * mean


def gathered(mean: tf.Tensor) -> tf.Tensor:
    """The mean over the batch, of a mean over a replica's images; differentiable across replicas."""
    return mean if _SHARE.get() is None else summed(weighted(mean))


def summed(values: Any) -> Any:  # noqa: ANN401 - tensors in any nest
    """The sums over all replicas, each of which must ask for them in the same order."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
