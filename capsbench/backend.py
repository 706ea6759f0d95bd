"""The contract between capsbench and a backend.

A backend is a distribution that registers an object with the attributes of `Backend` under the entry-point group
`capsbench.backends`. What it must keep to:

1. Importing the registered module imports no framework. The framework is imported when `probe` or `realize` is called,
   and both are called in a worker process only, after `environment` has been put in place.
2. `realize` starts from the given parameters, to the bit (float64 realizations cast them), draws nothing at random and
   leaves no state outside the realization. Two calls with the same arguments give the same numbers.
3. The definition of every layer, routing variant and loss is the NumPy backend. A network that a mode cannot realize is
   named by `unsupported`, with the reason; it is never approximated.
4. `train_step` uses exactly the learning rate and margin it is handed: schedules belong to the core.
5. What perturbs a measurement (profilers, memory counters) is on only inside `peak_bytes` and `profile`.
6. Exceptions of the framework may pass through; the worker turns them into a record with a reason. Running out of
   memory is raised as `MemoryError`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from capsbench.measure.optable import StepProfile
from capsbench.network.shapes import BoundNetwork

ENTRY_POINT_GROUP = "capsbench.backends"

Precision = Literal["float32", "float64"]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """How a network is realized.

    Attributes:
        mode: one of the backend's modes.
        device: `cpu`, `cuda` or `cuda:N`; never `auto`, which the core resolves.
        precision: of parameters and arithmetic.
        threads: CPU threads the framework may use for one op.
    """

    mode: str
    device: str = "cpu"
    precision: Precision = "float32"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """The scalars of one train step: its number (from 0), learning rate and spread-loss margin."""

    number: int
    learning_rate: float
    margin: float


@dataclass(frozen=True, slots=True)
class Output:
    """What a network says of a batch.

    Attributes:
        scores: [batch, classes], what classes are ranked by: a CNN's logits, the class capsules' logits before the
            sigmoid or softmax (their mean activations where positions are routed one by one). Saturated float32
            sigmoids tie at 1.0, so activations would not do.
        activations: [batch, classes], softmax of a CNN's logits, or the class capsules' activations.
        poses: [batch, classes, 16 or 18]; None for a CNN.
    """

    scores: Floats
    activations: Floats
    poses: Floats | None


@dataclass(frozen=True, slots=True)
class Probe:
    """What a backend found when it imported its framework: versions by name, and devices (`cpu`, `cuda:0`, …)."""

    versions: Mapping[str, str]
    devices: tuple[str, ...]


class Realization(Protocol):
    """A network that can be run; every method but `train_step` returns when the device has finished."""

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> Any:  # noqa: ANN401 - what a placed batch is, only the backend knows
        """Put a batch on the device: images [batch, h, w, c], labels [batch], dropout masks by layer [batch, units].

        Masks may be empty for a batch that is only evaluated.
        """

    def forward(self, placed: Any) -> Output:  # noqa: ANN401 - see place
        """Evaluate the batch: no dropout, moving statistics."""

    def loss_and_gradients(self, placed: Any, step: Step) -> tuple[float, dict[str, Floats]]:  # noqa: ANN401
        """Training loss and its gradient for every trainable parameter; changes nothing."""

    def train_step(self, placed: Any, step: Step) -> SupportsFloat:  # noqa: ANN401 - see place
        """One optimizer step; the loss before it, which may still be on its way (float() waits for it)."""

    def synchronize(self) -> None:
        """Wait until the device has finished everything."""

    def parameters(self) -> dict[str, Floats]:
        """Every parameter and moving statistic, as they are now."""

    def peak_bytes(self, placed: Any, step: Step) -> int:  # noqa: ANN401 - see place
        """The most bytes alive in the framework's allocator during one train step.

        Parameters, gradients, optimizer state and the placed batch count.
        """

    def profile(self, placed: Any, step: Step) -> StepProfile:  # noqa: ANN401 - see place
        """One train step under the framework's profiler."""


class Backend(Protocol):
    """A framework that can realize networks.

    Attributes:
        name: as in `--backend NAME[:MODE]`.
        distributions: what must be installed for it to work, any one of them (`tensorflow`, `tensorflow-cpu`).
        modes: one line on each mode; the first is the default.
        compiled_modes: modes whose first step compiles, and whose op table is therefore not op by op.
    """

    name: str
    distributions: tuple[str, ...]
    modes: Mapping[str, str]
    compiled_modes: frozenset[str]

    def environment(self, setting: Setting) -> dict[str, str]:
        """Environment variables that must stand before the framework is imported."""

    def probe(self) -> Probe:
        """Import the framework and say what is there."""

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:
        """Why this mode cannot realize the network, or None where it can."""

    def forecast_peak_bytes(self, bound: BoundNetwork, setting: Setting, batch: int) -> int | None:
        """`Realization.peak_bytes` foretold from the shapes alone; None where no formula is known."""

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> Realization:
        """Build the network in this framework, ready to run; the optimizer state starts empty."""
