"""The float64 oracle, and how far outputs and gradients lie from it."""

from collections.abc import Mapping
from typing import Any, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from capsbench import plugins
from capsbench.backend import Floats, Output, Setting, Step
from capsbench.network.shapes import BoundNetwork

ORACLE: Final = "numpy"
_DIRECTIONS: Final = 2
_GRADIENT_FLOOR: Final = 1e-3
_DIRECTION_KEY: Final = 1

Gradients = Mapping[str, Floats]
Order = NDArray[np.int64] | slice


class Oracle(Protocol):
    """What the oracle's realization can do beyond the contract of a backend."""

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> object:
        """Put a batch in place."""

    def forward(self, placed: object) -> Output:
        """Evaluate the batch."""

    def training_output(self, placed: object) -> Output:
        """Evaluate the batch as in training."""

    def batch_statistics(self, placed: object) -> dict[str, Floats]:
        """The batch's mean and variance at each normalisation, under the names of the moving ones."""

    def settle(self, placed: object) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Shifts of biases that keep every ReLU of the batch off its kink, and the batch's statistics with them."""

    def loss(self, placed: object, step: Step) -> float:
        """Training loss of the batch."""

    def output_derivative(self, placed: object, directions: Gradients) -> Output:
        """Derivative of `forward` along a direction in some parameters, to rounding."""

    def directional_derivative(self, placed: object, step: Step, directions: Gradients) -> float:
        """Derivative of the loss along a direction in all parameters, to rounding."""


def realize_oracle(bound: BoundNetwork, parameters: Mapping[str, NDArray[Any]]) -> Oracle:
    """The oracle's realization of a network.

    Raises:
        BadInput: the oracle is not installed.
    """
    setting = Setting("float64", precision="float64")
    return cast("Oracle", plugins.load(ORACLE).realize(bound, parameters, setting))


def output_errors(mine: Output, right: Output, order: Order = slice(None)) -> dict[str, float]:
    """Errors of scores, activations and poses: largest difference over largest magnitude.

    Args:
        mine: of a batch.
        right: of the images that stand in it.
        order: which of them stands where.
    """
    errors = {
        "scores": relative_error(mine.scores, right.scores[order]),
        "activations": relative_error(mine.activations, right.activations[order]),
    }
    if right.poses is not None:
        errors["poses"] = np.inf if mine.poses is None else relative_error(mine.poses, right.poses[order])
    return errors


def relative_error(mine: Floats, right: Floats) -> float:
    """Largest difference over largest magnitude; infinite where the shapes differ."""
    if mine.shape != right.shape:
        return np.inf
    largest = float(np.abs(right).max())
    return float(np.abs(mine.astype(np.float64) - right).max()) / (largest or 1.0)


def nan_last(error: float) -> float:
    """Order errors so that `max` finds a NaN, which compares with nothing."""
    return np.inf if np.isnan(error) else error


class GradientCheck:
    """Gradients beside the oracle's derivatives along random directions; `capsbench.worker.parity` has the mathematics.

    Args:
        oracle: at the parameters that the gradients are of.
        truth: the batch, in the oracle.
        step: margin of the loss.
        shapes: of the trainable parameters.
        cancelled: biases whose gradient is zero in truth, and the weights that the noise comes from.
    """

    def __init__(
        self,
        oracle: Oracle,
        truth: object,
        step: Step,
        shapes: Mapping[str, tuple[int, ...]],
        cancelled: Mapping[str, str],
    ) -> None:
        self._oracle, self._truth, self._step = oracle, truth, step
        self._shapes, self._cancelled = dict(shapes), cancelled

    def error(self, gradients: Gradients, seed: int) -> float:
        """The worst error along the directions; infinite where a gradient is missing or of another shape."""
        if {name: gradient.shape for name, gradient in gradients.items()} != self._shapes:
            return np.inf
        wide = {name: gradient.astype(np.float64) for name, gradient in gradients.items()}
        scales = self._scales(wide)
        generator = np.random.Generator(np.random.PCG64([seed, _DIRECTION_KEY]))
        errors = []
        for _ in range(_DIRECTIONS):
            signs = {name: 2.0 * generator.integers(0, 2, wide[name].shape) - 1.0 for name in sorted(wide)}
            errors.append(self._along(wide, {name: scales[name] * sign for name, sign in signs.items()}))
        return max(errors, key=nan_last)

    def worst_tensor(self, gradients: Gradients, seed: int) -> str:
        """The parameter whose own error is largest, in words; costs a pass of the oracle for each of them."""
        found = {name: gradient.shape for name, gradient in gradients.items()}
        if found != self._shapes:
            wrong = sorted(name for name in {*found, *self._shapes} if found.get(name) != self._shapes.get(name))
            return f"{wrong[0]}, which has the shape {found.get(wrong[0])}"
        wide = {name: gradient.astype(np.float64) for name, gradient in gradients.items()}
        scales = self._scales(wide)
        generator = np.random.Generator(np.random.PCG64([seed, _DIRECTION_KEY]))
        errors = {}
        for name in sorted(wide):
            signs = 2.0 * generator.integers(0, 2, wide[name].shape) - 1.0
            errors[name] = self._along(wide, {name: scales[name] * signs})
        return max(errors, key=lambda name: nan_last(errors[name]))

    def _along(self, gradients: Gradients, directions: Gradients) -> float:
        mine = sum(float(np.vdot(gradients[name], directions[name])) for name in directions)
        return abs(mine - self._oracle.directional_derivative(self._truth, self._step, directions))

    def _scales(self, gradients: Gradients) -> dict[str, float]:
        norms = {name: float(np.linalg.norm(gradients[self._cancelled.get(name, name)])) for name in gradients}
        floor = _GRADIENT_FLOOR * max(norms.values()) or 1.0
        return {name: 1.0 / max(norm, floor) for name, norm in norms.items()}
