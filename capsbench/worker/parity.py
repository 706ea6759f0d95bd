"""Part one of parity: does a realization compute what the float64 oracle computes, on untrained parameters?

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Backend, Floats, Output, Realization, Setting, Step
from capsbench.network.parameters import cancelled_biases, dropout_masks, normalised_capsules, parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench.record.schema import Parity
from capsbench.worker.oracle import (
    ORACLE,
    GradientCheck,
    Order,
    nan_last,
    output_errors,
    realize_oracle,
    relative_error,
)

MARGIN = 0.5
FORWARD_LIMITS = {"float32": 1e-5, "float64": 1e-10, "mixed_bfloat16": sys.float_info.max}
GRADIENT_LIMITS = {"float32": 1e-4, "float64": 1e-10, "mixed_bfloat16": sys.float_info.max}
LARGE_VOTE_ELEMENTS = 2_000_000

Gradients = Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a realization and the oracle are compared on.

    Attributes:
        images: [n, h, w, c], which the oracle takes.
        labels: [n].
        masks: of dropout, by layer [n, units].
        margin: of the spread loss.
        seed: of the directions that gradients are compared along.
        order: which of the images the realization takes [batch], each equally often.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: Mapping[str, NDArray[np.float32]]
    margin: float
    seed: int
    order: Order = field(default_factory=lambda: slice(None))

    def placed_in(self, realization: Realization) -> object:
        """The batch on a realization's device."""
        masks = {name: np.ascontiguousarray(mask[self.order]) for name, mask in self.masks.items()}
        images, labels = np.ascontiguousarray(self.images[self.order]), np.ascontiguousarray(self.labels[self.order])
        placed: object = realization.place(images, labels, masks)
        return placed


@dataclass(frozen=True, slots=True)
class Examined:
    """A realization that has been compared with the oracle.

    Attributes:
        parity: what was found.
        realization: which has taken no train step.
        output: its evaluation of the batch.
        known: loss and gradients of the batch.
        worst: finds out which parameter's gradient is farthest off, at the cost of a pass of the oracle for each.
    """

    parity: Parity
    realization: Realization
    output: Output
    known: tuple[float, Gradients]
    worst: Callable[[], str]

    def failure(self) -> str:
        """What failed, with the parameter whose gradient did."""
        said = self.parity.failure
        return f"{said}, most of {self.worst()}" if "gradient error" in said else said


def batch_size(bound: BoundNetwork) -> int:
    """Images for the comparison: two, or one where the oracle would work on millions of vote elements.

    There are four where the batch normalises class capsules, of whose logits it would make 1 and -1 of two, whatever
    they are.
    """
    if normalises_classes(bound):
        return 4
    votes = sum(layer.routing.votes for layer in bound.layers if layer.routing is not None)
    return 1 if votes > LARGE_VOTE_ELEMENTS else 2


def normalises_classes(bound: BoundNetwork) -> bool:
    """Whether the batch normalises class capsules."""
    return any(layer is bound.layers[-1] for layer in normalised_capsules(bound))


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
    """Parity of untrained parameters on one batch; see `examine_untrained`."""
    return examine_untrained(backend, bound, setting, parameters, images, labels=labels, seed=seed).parity


def examine_untrained(
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    parameters: Mapping[str, NDArray[np.float32]],
    images: NDArray[np.float32],
    *,
    labels: NDArray[np.int64],
    seed: int,
) -> Examined:
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
    return compare(backend, bound, setting, parameters, Batch(images, labels, masks, MARGIN, seed))


def compare(
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    parameters: Mapping[str, NDArray[np.float32]],
    batch: Batch,
) -> Examined:
    """Realize the network in the backend and in the oracle, and compare them on a batch.

    Raises:
        BadInput: the oracle is not installed.
    """
    realization, oracle = backend.realize(bound, parameters, setting), realize_oracle(bound, parameters)
    placed, truth = batch.placed_in(realization), oracle.place(batch.images, batch.labels, batch.masks)
    trainable = {spec.name: spec.shape for spec in parameter_specs(bound) if spec.trainable}
    output = realization.forward(placed)
    forward = output_errors(output, oracle.forward(truth), batch.order)
    step = Step(0, 0.0, batch.margin)
    known = realization.loss_and_gradients(placed, step)
    forward["the loss"] = relative_error(np.asarray(known[0]), np.asarray(oracle.loss(truth, step)))
    check = GradientCheck(oracle, truth, step, trainable, cancelled_biases(bound))
    farthest = max(forward, key=lambda name: nan_last(forward[name]))
    found = _parity(setting, forward[farthest], check.error(known[1], batch.seed), farthest)
    return Examined(found, realization, output, known, partial(check.worst_tensor, known[1], batch.seed))


def describe_failure(parity: Parity) -> str:
    """Which part failed, where, by how much, and what the limit is."""
    return f"differs from the {parity.oracle} oracle: {parity.failure}"


def _parity(setting: Setting, forward: float, gradient: float, farthest: str) -> Parity:
    forward_limit, gradient_limit = FORWARD_LIMITS[setting.precision], GRADIENT_LIMITS[setting.precision]
    said = []
    if not forward <= forward_limit:
        said.append(f"forward error {forward:.2g} (limit {forward_limit:.0e}) in {farthest}")
    if not gradient <= gradient_limit:
        said.append(f"gradient error {gradient:.2g} (limit {gradient_limit:.0e})")
    return Parity(
        oracle=ORACLE,
        forward_max_relative_error=forward,
        gradient_relative_error=gradient,
        forward_limit=forward_limit,
        gradient_limit=gradient_limit,
        passed=not said,
        failure=", ".join(said),
    )
