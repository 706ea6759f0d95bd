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
5. What perturbs a measurement (profilers, memory counters) is on only inside `memory` and `profile`; what only looks at
   a network (`inspect`) costs nothing where it is not called.
6. Exceptions of the framework may pass through; the worker turns them into a record with a reason. Running out of
   memory is raised as `MemoryError`.
7. Arrays come and go in the precision that parameters are kept in, also where some of the arithmetic is done in
   bfloat16. Only a backend that says so in `precisions` is asked for that.
8. With `devices` above 1 a realization takes the same batches and gives the same numbers, rounding apart: it gives each
   replica its share (`capsbench.network.shards`), and averages losses and gradients by how many images a share has. It
   is never asked for `memory` and `profile`. Only modes in `parallel_modes` are asked for that.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, SupportsFloat, get_args

import numpy as np
from numpy.typing import NDArray

from capsbench.measure.ceilings import Ceilings
from capsbench.measure.steptrace import StepTrace
from capsbench.network.shapes import BoundNetwork

ENTRY_POINT_GROUP = "capsbench.backends"

FullPrecision = Literal["float32", "float64"]
Precision = Literal[FullPrecision, "mixed_bfloat16"]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Setting:
    """How a network is realized.

    Attributes:
        mode: one of the backend's modes.
        device: `cpu`, `cuda` or `cuda:N`; never `auto`, which the core resolves.
        precision: of parameters and arithmetic. In `mixed_bfloat16` convolutions and products of matrices (of dense
            layers, votes, the decoder) round their factors and results to bfloat16; parameters, statistics of batches,
            capsules, all of routing but the votes' products, losses and the optimizer stay in float32.
        threads: CPU threads the framework may use for one op, on each of several devices.
        devices: how many replicas of the network share each batch: so many GPUs from `device` on, or so many replicas
            on the CPU.
    """

    mode: str
    device: str = "cpu"
    precision: Precision = "float32"
    threads: int = 1
    devices: int = 1

    @property
    def replicas(self) -> tuple[str, ...]:
        """The device of each replica: `cpu` for all of them, or GPUs by ascending numbers."""
        if self.devices == 1 or self.device == "cpu":
            return (self.device,) * self.devices
        first = int(self.device.partition(":")[2] or 0)
        return tuple(f"cuda:{first + number}" for number in range(self.devices))

    @property
    def mixed(self) -> bool:
        """Whether some of the arithmetic is done in fewer digits than the rest."""
        return self.precision == "mixed_bfloat16"

    @property
    def kept(self) -> FullPrecision:
        """The precision in which parameters, losses and the optimizer's state are kept."""
        return "float64" if self.precision == "float64" else "float32"


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
            sigmoid or softmax (their mean activations where positions are routed one by one), the class vectors'
            lengths before they are squashed, the logarithms of self-routed classes' activations. Saturated float32
            sigmoids and lengths tie at 1.0, so activations would not do.
        activations: [batch, classes], softmax of a CNN's logits, or the class capsules' activations (vectors' lengths).
        poses: [batch, classes, 16 or 18], or the class vectors; None for a CNN and for classes without poses.
    """

    scores: Floats
    activations: Floats
    poses: Floats | None


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What one train step asked of the framework's allocator.

    Attributes:
        peak_bytes: the most bytes alive at once. Parameters, gradients, optimizer state and the placed batch count.
        allocated_bytes: everything that was handed out, freed or not.
        repeats: whether both are the same, to the byte, in every process. Not so where a scheduler takes ops in an
            order of its own, and with it decides which buffers are used again.
    """

    peak_bytes: int
    allocated_bytes: int
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class PeakForecast:
    """Between what bounds `MemoryUse.peak_bytes` will lie, computed from the shapes.

    The bounds differ where a library's own scratch memory counts: how much a convolution takes depends on the
    processor's vector width and caches, and only the library knows it.

    Attributes:
        low_bytes: the peak if the library takes no scratch memory.
        high_bytes: the peak if it takes the most that any of its algorithms needs.
    """

    low_bytes: int
    high_bytes: int


@dataclass(frozen=True, slots=True)
class RoutingState:
    """How routing went in one layer, image by image; every array is [batch, iterations].

    Routing by agreement has no M-step; its sum of votes times couplings counts as one: a parent's mass is the sum of
    its couplings, its pose here the mean of the votes so weighted, and its variance theirs. Self-attention does not
    iterate, and its couplings may be negative: it has no such state. Self-routing is shown as one iteration: a parent's
    mass is the sum of its couplings times the children's activations, zeros around the maps are children as others are,
    and classes without poses have votes without elements, which are at no distance.

    Attributes:
        coupling_entropy: entropy of a child's couplings at one position over the parents there, scaled to sum one,
            divided by the log of the number of parents (0 with a single parent); mean over positions and children. Of
            the couplings that the iteration's M-step uses, so 1 in the first where children start undecided.
        vote_distance: squared distance of the votes from their parent's pose, weighted as the M-step weighs them: sum
            over positions and parents of mass times the summed variances (without the floor), over the summed mass.
        starved_share: share of the parents (at all positions) whose mass is below 1 % of the mean mass of the parents
            at their position.
    """

    coupling_entropy: Floats
    vote_distance: Floats
    starved_share: Floats


@dataclass(frozen=True, slots=True)
class LayerState:
    """What one layer gives out.

    Attributes:
        activations: [batch, n], the activations of all capsules at all positions (lengths of those that are vectors),
            or every output of a layer without capsules, after its nonlinearity.
        poses: [batch, n, 16 or 18], or vectors; None for a layer without capsules and for capsules without poses.
        votes: every vote element, in any shape, where they were asked for and the layer routes.
        routing: for a layer that routes by iterations, or by itself.
    """

    activations: Floats
    poses: Floats | None = None
    votes: Floats | None = None
    routing: RoutingState | None = None


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

    def optimizer_state(self) -> dict[str, Floats]:
        """What the optimizer remembers between steps, in names and shapes that are the same for every backend.

        `first_moment/layer.tensor` and `second_moment/layer.tensor` of Adam and AdamW, `velocity/layer.tensor` of SGD
        with momentum, for every trainable parameter and shaped like it, zeros before the first step; `step_count` of
        Adam and AdamW, a single number.

        A backend may lack this and `restore`: its trainings then leave no checkpoints, and begin again when killed, and
        parity holds its train steps to looser limits.
        """

    def restore(self, parameters: Mapping[str, Floats], optimizer_state: Mapping[str, Floats]) -> None:
        """Go on from what `parameters` and `optimizer_state` of another realization of the network handed back.

        The next train steps are then those that the other would have taken; on a CPU, and with arrays of the same
        precision, to the bit.
        """

    def memory(self, placed: Any, step: Step) -> MemoryUse:  # noqa: ANN401 - see place
        """What one train step asks of the framework's allocator, counted while nothing else is."""

    def profile(self, placed: Any, step: Step | None) -> StepTrace:  # noqa: ANN401 - see place
        """One train step under the framework's profiler; without a step, one evaluation as `forward` runs it."""

    def inspect(self, placed: Any, *, votes: bool = False) -> Mapping[str, LayerState]:  # noqa: ANN401 - see place
        """What each convolution, residual block, dense and capsule layer gives out at evaluation, by the layer's name.

        The numbers are those of `forward`; `votes` asks for the routed layers' votes as well.
        """


class Backend(Protocol):
    """A framework that can realize networks.

    Attributes:
        name: as in `--backend NAME[:MODE]`.
        distributions: what must be installed for it to work, any one of them (`tensorflow`, `tensorflow-cpu`).
        modes: one line on each mode; the first is the default.
        compiled_modes: modes whose first step compiles, and whose op table is therefore not op by op.

    One that also computes in mixed precision has a further attribute `precisions`, with all that it knows; without it,
    it is asked for float32 and float64 only. One that also trains on several devices has a further attribute
    `parallel_modes`, a set of the modes that do; without it, it is asked for one device only.
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

    def notes(self, bound: BoundNetwork, setting: Setting) -> tuple[str, ...]:
        """What a reader of the numbers must know: which kernel a mode has chosen here, and why. Asked for in a worker.

        A backend that has nothing to say may lack it.
        """

    def ceilings(self, setting: Setting) -> Ceilings | None:
        """How fast the device multiplies large matrices and copies large arrays; None where nobody has looked.

        Measured in a worker, with the framework's own operators; `capsbench.measure.ceilings.measure` does the timing.
        """

    def forecast_peak(self, bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
        """Estimate `MemoryUse.peak_bytes` from the shapes alone; None where no formula is known."""

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> Realization:
        """Build the network in this framework, ready to run; the optimizer state starts empty."""


def unsupported(backend: Backend, bound: BoundNetwork, setting: Setting) -> str | None:
    """Why a backend cannot realize the network, or None where it can; asked only for what it says that it knows."""
    known: Iterable[str] = getattr(backend, "precisions", get_args(FullPrecision))
    if setting.precision not in known:
        return f"{backend.name} does not compute in {setting.precision}, only in {', '.join(known)}"
    parallel: Collection[str] = getattr(backend, "parallel_modes", ())
    if setting.devices > 1 and setting.mode not in parallel:
        others = f"; on several run {', '.join(mode for mode in backend.modes if mode in parallel)}" if parallel else ""
        return f"{backend.name}:{setting.mode} trains on one device only, not on {setting.devices}{others}"
    return backend.unsupported(bound, setting)
