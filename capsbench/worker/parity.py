"""Parity: does a realization compute what the float64 oracle computes? Forward, loss and gradients.

**Forward.** Largest difference over largest magnitude, the worst of scores, activations, poses and loss.

**Gradients.** The oracle has no backward pass but exact directional derivatives D(v) = sum_T <o_T, v_T>, o being the
true gradient. With a backend's gradient g and a direction v of independent random signs, scaled per tensor T by
s_T = 1 / |g_T|,

    error(v) = |sum_T <g_T, v_T> - D(v)| = |sum_T <g_T - o_T, v_T>|

has E[error(v)^2] = sum_T s_T^2 |g_T - o_T|^2, because the mixed terms of random signs have mean zero: its root mean
square is the root sum of squares of the relative errors |g_T - o_T| / |g_T| of the tensors, and so at least the worst
of them. No tensor can hide behind a larger one, and a single wrong entry counts with its share of its own tensor. The
worst of two directions is reported.

The scale has a floor, a thousandth of the largest |g_T|: the gradient of a tensor may be zero in truth (the input
activations of a network that cancels them), and then |g_T| holds rounding noise only, which is no relative error of
anything. For a bias under a batch normalisation it is that of the weights beside it, from whose terms its noise comes.

**Mixed precision** has no limits but that errors are finite: see `worker.mixed`.
"""

import sys
from collections.abc import Mapping
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from capsbench import plugins
from capsbench.backend import Backend, Floats, Output, Realization, Setting, Step
from capsbench.network.parameters import cancelled_biases, dropout_masks, normalised_capsules, parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench.record.schema import Parity

ORACLE = "numpy"
MARGIN = 0.5
DIRECTIONS = 2
GRADIENT_FLOOR = 1e-3
FORWARD_LIMITS = {"float32": 1e-5, "float64": 1e-10, "mixed_bfloat16": sys.float_info.max}
GRADIENT_LIMITS = {"float32": 1e-4, "float64": 1e-10, "mixed_bfloat16": sys.float_info.max}
LARGE_VOTE_ELEMENTS = 2_000_000
_DIRECTION_KEY = 1

Gradients = Mapping[str, Floats]


class Oracle(Protocol):
    """What the oracle's realization can do beyond the contract of a backend."""

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> object:
        """Put a batch in place."""

    def forward(self, placed: object) -> Output:
        """Evaluate the batch."""

    def loss(self, placed: object, step: Step) -> float:
        """Training loss of the batch."""

    def directional_derivative(self, placed: object, step: Step, directions: Gradients) -> float:
        """Derivative of the loss along a direction in all parameters, to rounding."""


def batch_size(bound: BoundNetwork) -> int:
    """Images for the comparison: two, or one where the oracle would work on millions of vote elements.

    There are four where the batch normalises class capsules, of whose logits it would make 1 and -1 of two, whatever
    they are.
    """
    if any(layer is bound.layers[-1] for layer in normalised_capsules(bound)):
        return 4
    votes = sum(layer.routing.votes for layer in bound.layers if layer.routing is not None)
    return 1 if votes > LARGE_VOTE_ELEMENTS else 2


def check_parity(
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    parameters: Mapping[str, NDArray[np.float32]],
    images: NDArray[np.float32],
    *,
    labels: NDArray[np.int64],
    seed: int,
) -> Parity:
    """Realize the network in the backend and in the oracle, and compare them on one batch.

    Args:
        backend: to be checked.
        bound: the network.
        setting: of the backend.
        parameters: its untrained parameters.
        images: [batch, h, w, c]; `batch_size` says how many.
        labels: [batch].
        seed: of the dropout masks and directions.

    Raises:
        BadInput: the oracle is not installed.
    """
    masks = dropout_masks(bound, len(images), seed, 0)
    step = Step(0, 0.0, MARGIN)
    realization = backend.realize(bound, parameters, setting)
    oracle = _oracle(bound, parameters)
    placed, truth = realization.place(images, labels, masks), oracle.place(images, labels, masks)
    loss, gradients = realization.loss_and_gradients(placed, step)
    forward_error = max(
        _output_error(realization, placed, oracle, truth),
        _relative(np.asarray(loss), np.asarray(oracle.loss(truth, step))),
        key=_nan_last,
    )
    trainable = {spec.name: spec.shape for spec in parameter_specs(bound) if spec.trainable}
    gradient_error = _gradient_error(
        gradients, trainable, cancelled_biases(bound), oracle=oracle, truth=truth, step=step, seed=seed
    )
    forward_limit, gradient_limit = FORWARD_LIMITS[setting.precision], GRADIENT_LIMITS[setting.precision]
    return Parity(
        oracle=ORACLE,
        forward_max_relative_error=forward_error,
        gradient_relative_error=gradient_error,
        forward_limit=forward_limit,
        gradient_limit=gradient_limit,
        passed=forward_error <= forward_limit and gradient_error <= gradient_limit,
    )


def describe_failure(parity: Parity) -> str:
    """Which limit was passed, and by how much."""
    said = []
    if not parity.forward_max_relative_error <= parity.forward_limit:
        said.append(f"forward error {parity.forward_max_relative_error:.2g} (limit {parity.forward_limit:.0e})")
    if not parity.gradient_relative_error <= parity.gradient_limit:
        said.append(f"gradient error {parity.gradient_relative_error:.2g} (limit {parity.gradient_limit:.0e})")
    return f"differs from the {parity.oracle} oracle: {', '.join(said)}"


def _oracle(bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]]) -> Oracle:
    setting = Setting("float64", precision="float64")
    return cast("Oracle", plugins.load(ORACLE).realize(bound, parameters, setting))


def _output_error(realization: Realization, placed: object, oracle: Oracle, truth: object) -> float:
    mine, right = realization.forward(placed), oracle.forward(truth)
    errors = [_relative(mine.scores, right.scores), _relative(mine.activations, right.activations)]
    if right.poses is not None:
        errors.append(np.inf if mine.poses is None else _relative(mine.poses, right.poses))
    return max(errors, key=_nan_last)


def _relative(mine: Floats, right: Floats) -> float:
    """Largest difference over largest magnitude; infinite where the shapes differ."""
    if mine.shape != right.shape:
        return np.inf
    largest = float(np.abs(right).max())
    return float(np.abs(mine.astype(np.float64) - right).max()) / (largest or 1.0)


def _nan_last(error: float) -> float:
    """Order errors so that `max` finds a NaN, which compares with nothing."""
    return np.inf if np.isnan(error) else error


def _gradient_error(
    gradients: Gradients,
    trainable: Mapping[str, tuple[int, ...]],
    cancelled: Mapping[str, str],
    *,
    oracle: Oracle,
    truth: object,
    step: Step,
    seed: int,
) -> float:
    """Worst error along the random directions; infinite where a gradient is missing or of another shape."""
    if {name: gradient.shape for name, gradient in gradients.items()} != dict(trainable):
        return np.inf
    wide = {name: gradient.astype(np.float64) for name, gradient in gradients.items()}
    scales = _scales(wide, cancelled)
    generator = np.random.Generator(np.random.PCG64([seed, _DIRECTION_KEY]))
    errors = []
    for _ in range(DIRECTIONS):
        directions = {
            name: scales[name] * (2.0 * generator.integers(0, 2, wide[name].shape) - 1.0) for name in sorted(wide)
        }
        mine = sum(float(np.vdot(wide[name], directions[name])) for name in directions)
        errors.append(abs(mine - oracle.directional_derivative(truth, step, directions)))
    return max(errors, key=_nan_last)


def _scales(gradients: Gradients, cancelled: Mapping[str, str]) -> dict[str, float]:
    norms = {name: float(np.linalg.norm(gradients[cancelled.get(name, name)])) for name in gradients}
    floor = GRADIENT_FLOOR * max(norms.values()) or 1.0
    return {name: 1.0 / max(norm, floor) for name, norm in norms.items()}
