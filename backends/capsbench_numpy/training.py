"""The oracle at work: forward, loss, and the loss's exact derivative along a direction.

The derivative comes from the complex step: f is analytic wherever it is smooth, so Im f(x + i h v) / h is the
derivative along v to rounding, with no difference taken (Squire, Trapp 1998, "Using complex variables to estimate
derivatives of real functions"). That gives any backend's gradient something exact to be compared with, without a
backward pass here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Floats, LayerState, MemoryUse, Output, Step
from capsbench.measure.steptrace import StepTrace
from capsbench.network.shapes import BoundNetwork
from capsbench_numpy.inspection import Inspector
from capsbench_numpy.layers import Signal, run
from capsbench_numpy.maps import Seen
from capsbench_numpy.objective import loss
from capsbench_numpy.routing import Array

_COMPLEX_STEP = 1e-30


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch in float64: images [b, h, w, c], labels [b], dropout masks [b, units] by layer."""

    images: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: dict[str, NDArray[np.float64]]


class OracleRealization:
    """A network in float64 NumPy. It has no train step: it says what the others must compute."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[Any]]) -> None:
        self._bound = bound
        self._parameters = {name: value.astype(np.float64) for name, value in parameters.items()}

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> Placed:
        """The batch in float64."""
        return Placed(images.astype(np.float64), labels, {name: m.astype(np.float64) for name, m in masks.items()})

    def forward(self, placed: Placed) -> Output:
        """Evaluate the batch."""
        return self._output(run(self._bound, self._parameters, placed.images))

    @staticmethod
    def _output(signal: Signal) -> Output:
        assert signal.scores is not None  # noqa: S101 - the last layer gives scores
        assert signal.activations is not None  # noqa: S101 - likewise
        poses = signal.values.real if signal.values.ndim == 3 else None
        return Output(signal.scores.real, signal.activations.real, poses)

    def training_output(self, placed: Placed) -> Output:
        """What the network says of the batch in training: dropout, the batch's statistics."""
        return self._output(run(self._bound, self._parameters, placed.images, placed.masks))

    def batch_statistics(self, placed: Placed) -> dict[str, Floats]:
        """The batch's mean and variance [channels] at each normalisation, under the names of the moving ones."""
        seen = Seen()
        run(self._bound, self._parameters, placed.images, placed.masks, seen=seen)
        return {name: value.real for name, value in seen.statistics.items()}

    def settle(self, placed: Placed) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """What biases [channels] must be moved by so that no ReLU of the batch is within rounding of its kink.

        Each layer is looked at with the layers below it shifted. Layers without biases, and the decoder, are left out.

        Returns:
            Shifts of biases, and the batch's statistics with the biases shifted, as `batch_statistics` has them.
        """
        seen = Seen(shifts={})
        run(self._bound, self._parameters, placed.images, placed.masks, seen=seen)
        shifts, statistics = (
            {name: value.real for name, value in each.items()} for each in (seen.shifts or {}, seen.statistics)
        )
        return shifts, statistics

    def loss(self, placed: Placed, step: Step) -> float:
        """Training loss of the batch."""
        return self._loss(self._parameters, placed, step).real

    def directional_derivative(self, placed: Placed, step: Step, directions: Mapping[str, Floats]) -> float:
        """Derivative of loss(parameters + t * directions) at t = 0, to rounding; tensors left out stand still."""
        shifted: dict[str, Array] = dict(self._parameters)
        for name, direction in directions.items():
            shifted[name] = self._parameters[name] + 1j * _COMPLEX_STEP * direction
        return self._loss(shifted, placed, step).imag / _COMPLEX_STEP

    def output_derivative(self, placed: Placed, directions: Mapping[str, Floats]) -> Output:
        """Derivative of `forward` along a direction in some parameters, to rounding."""
        shifted: dict[str, Array] = dict(self._parameters)
        for name, direction in directions.items():
            shifted[name] = self._parameters[name] + 1j * _COMPLEX_STEP * direction
        signal = run(self._bound, shifted, placed.images)
        assert signal.scores is not None  # noqa: S101 - the last layer gives scores
        assert signal.activations is not None  # noqa: S101 - likewise
        scores, activations, values = (
            each.imag / _COMPLEX_STEP for each in (signal.scores, signal.activations, signal.values)
        )
        return Output(scores, activations, values if signal.values.ndim == 3 else None)

    def input_derivative(self, placed: Placed, step: Step, direction: Floats) -> float:
        """Derivative of loss(images + t * direction) at t = 0; direction [b, h, w, c]."""
        images = placed.images + 1j * _COMPLEX_STEP * direction
        return self._loss(self._parameters, Placed(images, placed.labels, placed.masks), step).imag / _COMPLEX_STEP

    def synchronize(self) -> None:
        """NumPy never runs ahead."""

    def parameters(self) -> dict[str, Floats]:
        """The parameters it was given."""
        return dict(self._parameters)

    def loss_and_gradients(self, placed: Placed, step: Step) -> tuple[float, dict[str, Floats]]:
        """Not here: ask for directional derivatives."""
        raise NotImplementedError(_NO_TRAINING)

    def train_step(self, placed: Placed, step: Step) -> float:
        """Not here."""
        raise NotImplementedError(_NO_TRAINING)

    def memory(self, placed: Placed, step: Step) -> MemoryUse:
        """Not here."""
        raise NotImplementedError(_NO_TRAINING)

    def profile(self, placed: Placed, step: Step | None) -> StepTrace:
        """Not here."""
        raise NotImplementedError(_NO_TRAINING)

    def inspect(self, placed: Placed, *, votes: bool = False) -> dict[str, LayerState]:
        """What each layer gives out at evaluation, in float64; votes [b, positions, children, parents, elements].

        Class capsules that are routed position by position give out their means over the positions.
        """
        inspector = Inspector(votes)
        run(self._bound, self._parameters, placed.images, inspector=inspector)
        return inspector.states

    def _loss(self, parameters: Mapping[str, Array], placed: Placed, step: Step) -> complex:
        output = run(self._bound, parameters, placed.images, placed.masks)
        return loss(self._bound, parameters, output, placed.images, placed.labels, step.margin)


_NO_TRAINING = (
    "the oracle computes forward, loss and directional derivatives; it takes no train steps and has no profiler"
)
