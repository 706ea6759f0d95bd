"""Part three of parity: real train steps of the case's batch, held to the train step as it is defined.

Adam moves a parameter by about the learning rate whatever the size of its gradient, so two right trainings part where a
gradient is next to nothing. Each step is therefore compared by itself, from the state that the realization was in:

* the loss of `train_step` with that of `loss_and_gradients` on the same batch, and with the oracle's;
* what the optimizer remembers with what follows from those gradients;
* the parameters with what follows from what the optimizer remembers, which no rounding of gradients can move;
* moving statistics with the oracle's statistics of the batch. Where these are ill-conditioned, as those of votes that
  nearly agree, float32 may err by what float64's own error explains, as in `worker.rounding`.

The gradients themselves are right: the first step takes the batch whose gradients part two has held to the oracle, and
the others go through the same function. In the end, the oracle evaluates with the parameters that came out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Floats, Realization, Step
from capsbench.network.parameters import cancelled_biases, momenta
from capsbench.network.shapes import BoundNetwork
from capsbench.worker import reference
from capsbench.worker.reference import Arrays
from capsbench.worker.rounding import COARSER, SAFETY

LIMITS: Final = {"float32": 1e-4, "float64": 1e-9}
"""Largest error of a loss, of what the optimizer remembers, of an update, of a moving statistic."""
WITHOUT_STATE: Final = 1e-2
"""The same of an update, where the backend does not hand out what its optimizer remembers."""
AFTERWARDS: Final = {"float32": 1e-3, "float64": 1e-8}
"""Largest error of losses and outputs, against the oracle's, of parameters that train steps have moved."""
EXPLAINED: Final = 10.0
"""A moving statistic's error beyond so many times the limit is never taken for rounding."""
_ORACLE_LOSS: Final = "the loss, beside the oracle's,"
_FLOOR: Final = 1e-3
"""No error is relative to less than this share of the largest tensor's."""
_ROUNDINGS: Final = 4.0
"""A stored number may be off by so many roundings."""


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A batch of a train step.

    Attributes:
        placed: in the realization.
        step: number, learning rate and margin.
        known: loss and gradients, where they are known already.
        truth: the oracle's loss and statistics of the batch, given the parameters; None where they are not asked for.
        in_float64: parameters after the step of a realization in float64, given those before; None where `truth` is.
    """

    placed: object
    step: Step
    known: tuple[float, Mapping[str, Floats]] | None = None
    truth: Callable[[Arrays], tuple[float, Arrays]] | None = None
    in_float64: Callable[[Arrays], Arrays] | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """How far something is off, in what unit of its limit, and what it is."""

    value: float
    limit: float
    what: str

    @property
    def excess(self) -> float:
        """Times its limit; a NaN is infinite."""
        return np.inf if np.isnan(self.value) else self.value / self.limit


def compare_steps(
    realization: Realization, bound: BoundNetwork, batches: Sequence[TrainingBatch], precision: str
) -> Error:
    """Take a train step on each batch, and return the error that is largest by its limit.

    Args:
        realization: its parameters and optimizer change.
        bound: the network, with the recipe that it was realized with.
        batches: of the steps.
        precision: `float32` or `float64`.
    """
    has_state = hasattr(realization, "optimizer_state")
    before = reference.wide(realization.parameters())
    state: Arrays = {}
    worst = Error(0.0, LIMITS[precision], "nothing")
    for number, batch in enumerate(batches, 1):
        loss, own = batch.known or realization.loss_and_gradients(batch.placed, batch.step)
        gradients = reference.wide(own)
        if number == 1:
            state = reference.empty_state(bound.network.recipe.optimizer, {name: before[name] for name in gradients})
        step = _Comparison(bound, before, gradients, state, batch.step.learning_rate, precision)
        taken = float(realization.train_step(batch.placed, batch.step))
        realization.synchronize()
        after = reference.wide(realization.parameters())
        state = reference.wide(realization.optimizer_state()) if has_state else step.expected
        found = [Error(abs(taken - loss) / (abs(loss) or 1.0), LIMITS[precision], "the loss")]
        found += step.state_errors(state) if has_state else []
        if all(error.excess <= 1.0 for error in found):
            found += step.update_errors(after, state, LIMITS[precision] if has_state or not state else WITHOUT_STATE)
        if batch.truth is not None:
            right, statistics = batch.truth(before)
            found.append(Error(abs(taken - right) / (abs(right) or 1.0), AFTERWARDS[precision], _ORACLE_LOSS))
            errors = step.statistics_errors(after, statistics)
            if precision == "float32" and batch.in_float64 is not None and any(error.excess > 1.0 for error in errors):
                expected = [step.float64_errors(batch.in_float64(before), statistics)]
                nudged = _nudged(before)
                expected.append(step.float64_errors(batch.in_float64(nudged), batch.truth(nudged)[1], nudged))
                errors = explained(errors, expected)
            found += errors
        largest = max(found, key=lambda error: error.excess)
        if largest.excess > worst.excess:
            worst = Error(largest.value, largest.limit, f"{largest.what} in train step {number}")
        if worst.excess > 1.0:
            break
        before = after
    return worst


class _Comparison:
    """What a step should have made of a state.

    Attributes:
        expected: what the optimizer should remember after it.
    """

    def __init__(
        self,
        bound: BoundNetwork,
        before: Arrays,
        gradients: Arrays,
        state: Arrays,
        rate: float,
        precision: str,
    ) -> None:
        self._bound, self._before, self._rate, self._precision = bound, before, rate, precision
        recipe = bound.network.recipe
        self._spec, self._was = recipe.optimizer, state
        self._gradients = reference.prepare_gradients(recipe, before, gradients)
        self._cancelled = cancelled_biases(bound)
        self._rounding = _ROUNDINGS * float(np.finfo(precision).eps) / 2
        self.expected = reference.next_state(self._spec, state, self._gradients)

    def state_errors(self, found: Arrays) -> list[Error]:
        """Of each tensor that the optimizer remembers, relative to it."""
        if {name: value.shape for name, value in found.items()} != {n: v.shape for n, v in self.expected.items()}:
            return [Error(np.inf, LIMITS[self._precision], "what the optimizer remembers")]
        errors = []
        for tensor in (*self._spec.state, *([reference.STEP_COUNT] if reference.STEP_COUNT in found else [])):
            names = [name for name in self.expected if name.partition("/")[0] == tensor]
            sizes = {name: _rms(self.expected[self._beside(name)]) for name in names}
            floor = (_FLOOR**2 if tensor == "second_moment" else _FLOOR) * max(sizes.values())
            for name in names:
                off = _rms(found[name] - self.expected[name]) / (max(sizes[name], floor) or 1.0)
                errors.append(Error(off, LIMITS[self._precision], name))
        return errors

    def update_errors(self, after: Arrays, state: Arrays, limit: float) -> list[Error]:
        """Of each parameter's change, relative to it, beyond what its own precision rounds."""
        right = reference.updates(self._spec, self._before, self._gradients, state, self._rate)
        sizes = {name: _rms(update) for name, update in right.items()}
        floor = _FLOOR * max(sizes.values())
        return [
            Error(
                self._beyond(after[name] - self._before[name] - update, self._before[name])
                / (max(sizes[name], floor) or 1.0),
                limit,
                f"the update of {name}",
            )
            for name, update in right.items()
        ]

    def statistics_errors(self, after: Arrays, batch: Arrays) -> list[Error]:
        """Of each moving statistic, relative to the part of the batch's that enters it."""
        right = reference.next_statistics(self._before, batch, momenta(self._bound))
        parts = self._parts(batch)
        return [
            Error(self._beyond(after[name] - value, self._before[name]) / parts[name], LIMITS[self._precision], name)
            for name, value in right.items()
        ]

    def float64_errors(self, after: Arrays, batch: Arrays, before: Arrays | None = None) -> dict[str, float]:
        """The errors of each layer's moving statistics in float64, the largest of each layer.

        Args:
            after: parameters and statistics of the float64 realization after the step.
            batch: the oracle's statistics.
            before: parameters and statistics before it; those of the step compared by default.
        """
        right, parts = (
            reference.next_statistics(before or self._before, batch, momenta(self._bound)),
            self._parts(batch),
        )
        errors: dict[str, float] = {}
        for name, value in right.items():
            layer = name.partition(".")[0]
            errors[layer] = max(errors.get(layer, 0.0), _rms(after[name] - value) / parts[name])
        return errors

    def _parts(self, batch: Arrays) -> dict[str, float]:
        """Of each statistic the size of what a batch adds to it: of a mean its standard deviation."""
        kept = momenta(self._bound)
        scales = {
            name: np.sqrt(batch[f"{name.removesuffix('mean')}variance"]) if name.endswith("mean") else value
            for name, value in batch.items()
        }
        return {name: (1.0 - kept[name.partition(".")[0]]) * _rms(scale) or 1.0 for name, scale in scales.items()}

    def _beside(self, name: str) -> str:
        """A tensor whose gradient is noise is measured by the one that the noise comes from."""
        tensor, _, parameter = name.partition("/")
        return f"{tensor}/{self._cancelled[parameter]}" if parameter in self._cancelled else name

    def _beyond(self, difference: NDArray[np.float64], stored: NDArray[np.float64]) -> float:
        """Root mean square of a difference, less what storing the numbers rounds."""
        return max(0.0, _rms(difference) - self._rounding * _rms(stored)) if np.isfinite(difference).all() else np.inf


def clipping_norm(norms: Sequence[float]) -> float:
    """A norm to clip to that the first of these exceeds, and the shortest does not, where that is another one."""
    shortest = min(norms)
    return 0.7 * norms[0] if shortest == norms[0] else float(np.sqrt(shortest * norms[0]))


def explained(errors: Sequence[Error], expected: Sequence[Mapping[str, float]]) -> list[Error]:
    """The errors of statistics in float32, with the limits that float64's errors of their layers explain."""

    def limit(error: Error) -> float:
        double = max(each[error.what.partition(".")[0]] for each in expected)
        return max(error.limit, min(EXPLAINED * error.limit, SAFETY * COARSER * double))

    return [replace(error, limit=limit(error)) for error in errors]


def _nudged(parameters: Arrays) -> dict[str, NDArray[np.float64]]:
    """The parameters, each moved by a last digit of float32 up or down, at random."""
    generator = np.random.Generator(np.random.PCG64(0))
    digit = float(np.finfo(np.float32).eps)
    moved = {
        name: value * (1.0 + digit * (2.0 * generator.integers(0, 2, value.shape) - 1.0))
        for name, value in parameters.items()
    }
    return {name: value.astype(np.float32).astype(np.float64) for name, value in moved.items()}


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).mean())) if values.size else 0.0
