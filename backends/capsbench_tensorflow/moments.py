"""Sums over the votes: weighted means and variances, and densities under them, in two layouts.

Every tensor has four axes. Votes are [n, i, j, h] or [n, j, i, h]: n positions of the whole batch, i children,
j parents, h pose elements. Values of a coupling have h = 1, statistics of a parent i = 1, values of a child j = 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import log
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Fit:
    """A parent's Gaussian, and what the E-step needs again.

    Attributes:
        mean: of the votes.
        variance: of the votes.
        offset: the mean less the one that the votes' deviations are kept from, if they are.
        squares: squared deviations of the votes from the mean.
    """

    mean: tf.Tensor
    variance: tf.Tensor
    offset: tf.Tensor
    squares: tf.Tensor


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A fit with the variance that is used, its floor included, and half its logarithm."""

    fit: Fit
    variance: tf.Tensor
    half_logs: tf.Tensor


class Votes(ABC):
    """Votes of children for parents; `children` and `parents` are their axes."""

    children: int
    parents: int

    def __init__(self, values: tf.Tensor) -> None:
        self.values = values

    @abstractmethod
    def fit(self, weights: tf.Tensor, damping: float = 0.0, previous: Fit | None = None) -> Fit:
        """Weighted mean and variance over the children; weights [.., 1] should sum to one.

        A share `damping` of the mean is that of the `previous` fit, 0 before the first.
        """

    @abstractmethod
    def log_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """Log-density of every vote up to a constant, [.., 1]."""

    @abstractmethod
    def shifted_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """Densities after a child's largest log-density of an element, less log 10, is taken from every element."""

    @staticmethod
    @abstractmethod
    def shares(logits: tf.Tensor, axis: int) -> tf.Tensor:
        """Softmax of logits over an axis."""

    def child_values(self, values: tf.Tensor) -> tf.Tensor:
        """Values [n, i] of the children, with the other axes added."""
        return tf.expand_dims(tf.expand_dims(values, self.parents), 3)

    def parent_values(self, values: tf.Tensor) -> tf.Tensor:
        """Parameters [j] or [j, h] of the parents, with the other axes added."""
        matrix = tf.reshape(values, (values.shape[0], -1))
        return tf.expand_dims(tf.expand_dims(matrix, self.children - 1), 0)


class TiledVotes(Votes):
    """Votes [n, i, j, h], summed by element-wise products and reductions: the 2018 formulation."""

    children, parents = 1, 2

    def fit(self, weights: tf.Tensor, damping: float = 0.0, previous: Fit | None = None) -> Fit:
        """See `Votes`."""
        mean = tf.reduce_sum(weights * self.values, 1, keepdims=True)
        mean = (1.0 - damping) * mean if damping else mean
        mean = mean if previous is None else mean + damping * previous.mean
        squares = tf.square(self.values - mean)
        return Fit(mean, tf.reduce_sum(weights * squares, 1, keepdims=True), mean, squares)

    def log_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """See `Votes`."""
        return tf.reduce_sum(self._elements(gaussian), 3, keepdims=True)

    def shifted_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """See `Votes`."""
        elements = self._elements(gaussian)
        largest = tf.reduce_max(elements, (2, 3), keepdims=True)
        return tf.exp(tf.reduce_sum(elements - (largest - log(10.0)), 3, keepdims=True))

    @staticmethod
    def shares(logits: tf.Tensor, axis: int) -> tf.Tensor:
        """See `Votes`; the seed divided by a sum of its own, so there is one here too."""
        exponentials = tf.exp(logits - tf.stop_gradient(tf.reduce_max(logits, axis, keepdims=True)))
        return exponentials / tf.reduce_sum(exponentials, axis, keepdims=True)

    @staticmethod
    def _elements(gaussian: Gaussian) -> tf.Tensor:
        return -gaussian.half_logs - gaussian.fit.squares / (2.0 * gaussian.variance)


class FactoredVotes(Votes):
    """Votes [n, j, i, h], summed and spread by batched matrix products: no operator here is faster for either.

    The deviations D from the mean of the first M-step stand in for the votes, so that little is lost to rounding where
    votes agree; M-step t has mean_t = mean_0 + offset_t.

    Every gradient with respect to the votes is (D - offset_t) * (u a) + u b, with a column u [i, 1] and rows a, b
    [1, h]. The rows are collected here while the tape walks back; then two products with as many columns as there were
    terms make the gradient of all iterations at once.
    """

    children, parents = 2, 1

    def __init__(self, values: tf.Tensor) -> None:
        super().__init__(values)
        n, j, i, h = values.shape
        self._ones = tf.ones((1, 1, i, 1), values.dtype)
        self._origin = tf.zeros((n, j, 1, h), values.dtype)
        self._deviations: tf.Tensor | None = None
        self._terms: list[tuple[tf.Tensor, tf.Tensor, tf.Tensor]] = []
        self._rows: list[tuple[tf.Tensor, tf.Tensor]] = []
        self._readers: list[tf.Tensor] = []
        # A scalar that every sum below depends on, so that the tape comes to the votes after all of them.
        self._token = self._enter(values)

    def fit(self, weights: tf.Tensor, damping: float = 0.0, previous: Fit | None = None) -> Fit:
        """See `Votes`."""
        scope = backward_scope()
        n, j, i, _ = self.values.shape
        kept: list[tuple[tf.Tensor, tf.Tensor]] = []
        before = () if previous is None else (previous.mean,)

        @tf.custom_gradient
        def moments(token: tf.Tensor, column: tf.Tensor, *before: tf.Tensor) -> Any:  # noqa: ANN401 - tensors and their gradient
            row = tf.reshape(column, (n, j, 1, i))
            weight = tf.reduce_sum(column, 2, keepdims=True)
            missing = 1.0 - weight
            mean, offset, squares = self._centred(row, weight)
            if damping:
                mean, offset, squares = self._damped(mean, offset, damping, previous)
            kept.append((offset, squares))

            def gradient(to_mean: tf.Tensor, to_variance: tf.Tensor) -> tuple[tf.Tensor, ...]:
                with tf.name_scope(scope):
                    # The variance moves with the mean too, by the weighted sum of deviations: 0 but for epsilon and
                    # damping.
                    if damping:
                        drift = tf.matmul(row, self._deviations) - weight * offset
                        along = to_mean - 2.0 * to_variance * drift
                        to_before = (damping * along,) if before else ()
                        along *= 1.0 - damping
                    else:
                        along, to_before = to_mean - 2.0 * to_variance * mean * missing, ()
                    to_column = tf.matmul(squares, to_variance, transpose_b=True)
                    self._readers.append(to_column)
                    to_column += tf.matmul(self._deviations, along, transpose_b=True)
                    to_column += tf.reduce_sum(self._origin * along, 3, keepdims=True)
                    self._terms.append((column, 2.0 * to_variance, along - 2.0 * to_variance * offset))
                    return tf.zeros_like(token), to_column, *to_before

            return (mean, tf.matmul(row, squares)), gradient

        mean, variance = moments(self._token, weights, *before)
        return Fit(mean, variance, *kept[0])

    def _centred(self, row: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean under weights `row`, which sum to `weight`, its offset, and squared deviations from it."""
        if self._deviations is None:
            self._origin = tf.matmul(row, self.values)
            self._deviations = self.values - self._spread(self._origin)
            return self._origin, tf.zeros_like(self._origin), tf.square(self._deviations)
        part = tf.matmul(row, self._deviations)
        offset = part - (1.0 - weight) * self._origin
        # Not origin + offset: where a parent has next to no mass, weights sum to little and so would the two.
        mean = part + weight * self._origin
        return mean, offset, tf.math.squared_difference(self._deviations, self._spread(offset))

    def _damped(
        self, mean: tf.Tensor, offset: tf.Tensor, damping: float, previous: Fit | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean and offset with their share of those before, and squared deviations from that mean."""
        mean, offset = (1.0 - damping) * mean, (1.0 - damping) * offset
        if previous is None:  # the mean before the first is 0, which lies as far from the origin as that does from it
            offset -= damping * self._origin
        else:
            mean, offset = mean + damping * previous.mean, offset + damping * previous.offset
        return mean, offset, tf.math.squared_difference(self._deviations, self._spread(offset))

    def _spread(self, row: tf.Tensor) -> tf.Tensor:
        """Statistics [n, j, 1, h] for every child; the product is three times as fast as broadcasting."""
        return tf.matmul(self._ones, row)

    def log_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """See `Votes`."""
        distances = self._distances(gaussian.fit, 0.5 / gaussian.variance)
        return -tf.reduce_sum(gaussian.half_logs, 3, keepdims=True) - distances

    def shifted_densities(self, gaussian: Gaussian) -> tf.Tensor:
        """See `Votes`."""
        shift = self.child_values(self._largest_element(gaussian)) - log(10.0)
        return tf.exp(self.log_densities(gaussian) - int(self.values.shape[3]) * shift)

    @staticmethod
    def shares(logits: tf.Tensor, axis: int) -> tf.Tensor:
        """See `Votes`."""
        return tf.nn.softmax(logits, axis)

    def _distances(self, fit: Fit, precision: tf.Tensor) -> tf.Tensor:
        """Sum over the elements of squared deviations times `precision`, [n, j, i, 1]."""
        scope = backward_scope()
        n, j, i, _ = self.values.shape

        @tf.custom_gradient
        def distances(token: tf.Tensor, mean: tf.Tensor, weights: tf.Tensor) -> Any:  # noqa: ANN401, ARG001 - as in `fit`
            def gradient(column: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                with tf.name_scope(scope):
                    row = tf.reshape(column, (n, j, 1, i))
                    total = tf.reduce_sum(column, 2, keepdims=True)
                    to_mean = -2.0 * weights * (tf.matmul(row, self._deviations) - total * fit.offset)
                    self._terms.append((column, 2.0 * weights, -2.0 * weights * fit.offset))
                    self._readers.append(tf.matmul(row, fit.squares))
                    return tf.zeros_like(token), to_mean, self._readers[-1]

            return tf.matmul(fit.squares, weights, transpose_b=True), gradient

        return distances(self._token, fit.mean, precision)

    def _largest_element(self, gaussian: Gaussian) -> tf.Tensor:
        """Largest log-density of a single element for each child, [n, i].

        The parent that holds it is found without a gradient; the gradient then flows through that parent's elements
        alone, where the gradient of a maximum over all of them would take several passes over the votes.
        """
        j = self.values.shape[1]
        half_precision = 0.5 / gaussian.variance
        constants = (tf.stop_gradient(half_precision), tf.stop_gradient(gaussian.half_logs))
        factor, term = map(self._spread, constants)
        holder = tf.argmin(tf.reduce_min(gaussian.fit.squares * factor + term, 3), 1, output_type=tf.int32)
        # Products with a one-hot matrix pick the holder's statistics; their gradients are products too, not scatters.
        held = tf.one_hot(holder, j, dtype=self.values.dtype)
        squares = self._squares_of(gaussian.fit, holder, held)
        precision, half_logs = (tf.matmul(held, tf.squeeze(part, 2)) for part in (half_precision, gaussian.half_logs))
        return tf.reduce_max(-half_logs - squares * precision, 2)

    def _squares_of(self, fit: Fit, holder: tf.Tensor, held: tf.Tensor) -> tf.Tensor:
        """Squared deviations [n, i, h] of a child's vote for its parent `holder` [n, i], `held` [n, i, j] one-hot."""
        scope = backward_scope()
        n, j, i, h = self.values.shape
        row = (tf.range(n)[:, None] * j + holder) * i + tf.range(i)[None, :]

        @tf.custom_gradient
        def picked(token: tf.Tensor, mean: tf.Tensor) -> Any:  # noqa: ANN401 - as in `fit`
            deviations = tf.gather(tf.reshape(self._deviations, (-1, h)), row)
            deviations -= tf.matmul(held, tf.squeeze(fit.offset, 2))

            def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                with tf.name_scope(scope):
                    to_votes = 2.0 * deviations * upstream
                    self._rows.append((row, to_votes))
                    to_mean = tf.matmul(held, -to_votes, transpose_a=True)
                    return tf.zeros_like(token), tf.reshape(to_mean, mean.shape)

            return tf.square(deviations), gradient

        return picked(self._token, fit.mean)

    def _enter(self, values: tf.Tensor) -> tf.Tensor:
        scope = backward_scope()

        @tf.custom_gradient
        def enter(votes: tf.Tensor) -> Any:  # noqa: ANN401 - as in `fit`
            def gradient(_: tf.Tensor) -> tf.Tensor:
                # The squares must be gone before the gradient is made, or the peak depends on the executor's whim.
                with tf.name_scope(scope), tf.control_dependencies(self._readers):
                    return self._collected()

            return tf.zeros((), votes.dtype), gradient

        return enter(values)

    def _collected(self) -> tf.Tensor:
        """The gradient with respect to the votes from all terms."""
        n, j, i, h = self.values.shape
        columns, slopes, levels = zip(*self._terms, strict=True)
        across = tf.concat([tf.reshape(column, (n, j, 1, i)) for column in columns], 2)
        total = self._deviations * tf.matmul(across, tf.concat(slopes, 2), transpose_a=True)
        total = tf.reshape(total + tf.matmul(across, tf.concat(levels, 2), transpose_a=True), (-1, h))
        for row, values in self._rows:
            total = tf.tensor_scatter_nd_add(total, tf.reshape(row, (-1, 1)), tf.reshape(values, (-1, h)))
        return tf.reshape(total, (n, j, i, h))


def backward_scope() -> str:
    """Name scope for the gradient ops of what is built here, as TensorFlow names those of its own ops."""
    return f"gradient_tape/{tf.get_current_name_scope()}/"
