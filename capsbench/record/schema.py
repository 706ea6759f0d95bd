"""What one case left behind. The fields are a promise to users; `SCHEMA` counts their versions."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.metrics import Direction
from capsbench.network.cost import LayerCost

SCHEMA = 4

Status = Literal["ok", "oom", "timeout", "diverged", "unsupported", "parity_failed", "crash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseKey:
    """Which case this is; `id` is readable and ends in the hash of everything that defines the case.

    `devices` share each batch of `batch` images, with `threads` each.
    """

    id: str
    network: str
    dataset: str
    backend: str
    mode: str
    device: str
    batch: int
    routing_iterations: int | None
    seed: int
    threads: int
    precision: str
    devices: int = 1
    allocator: str

    @property
    def realization(self) -> str:
        """`backend:mode`, and on how many devices where there are several."""
        return f"{self.backend}:{self.mode}" + (f" ×{self.devices}" if self.devices > 1 else "")

    def is_like(self, glob: str) -> bool:
        """Whether the id, the network or `backend:mode` matches a glob."""
        return any(fnmatchcase(text, glob) for text in (self.id, *self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """What it is called beside its id, as many cases are: the network, and `backend:mode`."""
        return self.network, f"{self.backend}:{self.mode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What tells rounding from a mistake where float32 lies beyond its limits on the case's own images.

    On flat background all votes for a parent coincide, its variance is next to nothing, and gradients are differences
    of nearly equal numbers: no formulation is then exact in float32. One that agrees in float64 on the same images,
    and in float32 on images without such backgrounds, computes the right thing.

    Attributes:
        float64_error: the worse of both errors in float64 on the same images.
        drawn_forward_error: in float32, on images of random pixels.
        drawn_gradient_error: likewise.
    """

    float64_error: float
    drawn_forward_error: float
    drawn_gradient_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbed:
    """Part two of parity: perturbed parameters, activations on both sides of each hinge of the loss.

    Attributes:
        images: different ones in the batch, which the oracle evaluates.
        batch: images of the batch, that of the case.
        forward_max_relative_error: as in `Parity`, with its limits.
        gradient_relative_error: likewise, the worst of all margins.
        draws: of images and parameters; more than one where the first failed and the two next ones decided.
    """

    images: int
    batch: int
    forward_max_relative_error: float
    gradient_relative_error: float
    draws: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSteps:
    """Part three of parity: train steps against the step as it is defined.

    Attributes:
        steps: taken, each on another batch.
        batch: images of each.
        max_relative_error: the error that is largest by its limit.
        limit: what that may be.
        worst: what is off by it.
    """

    steps: int
    batch: int
    max_relative_error: float
    limit: float
    worst: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the realization lies from the float64 oracle: forward, loss, gradients, train steps.

    Attributes:
        oracle: name of the backend that defines what is right.
        forward_max_relative_error: largest difference over largest magnitude, the worst of scores, activations, poses
            and loss, on untrained parameters.
        gradient_relative_error: error of the gradient along random directions, against the oracle's exact derivative.
        forward_limit: what the first may be.
        gradient_limit: what the second may be.
        passed: every part is within its limits, or beyond them by what is known to be rounding.
        rounding: how that is known of untrained parameters, where it is so.
        perturbed: the same on perturbed parameters; None where the first part failed, and in older runs.
        train_steps: None where a part before failed, and in older runs.
        failure: which part failed, on what, by how much; empty where none did.
    """

    oracle: str
    forward_max_relative_error: float
    gradient_relative_error: float
    forward_limit: float
    gradient_limit: float
    passed: bool
    rounding: Rounding | None = None
    perturbed: Perturbed | None = None
    train_steps: TrainSteps | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What tells rounding from a mistake where losses on several devices part from those on one in float32.

    Some trainings multiply any difference from step to step, deep EM networks above all, or turn next to nothing into a
    whole step, as Adam can. So where float32 agrees to begin with, float64 decides: over the steps in which one device
    still agrees with itself when it takes the images of each batch in reverse, the same training but for rounding.

    Attributes:
        float32_steps: the first ones, whose losses are within the limit.
        float64_steps: the first ones in which one device in float64 agrees with itself so.
        float64_deviation: of several devices from one in float64, over those steps.
    """

    float32_steps: int
    float64_steps: int
    float64_deviation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallel:
    """How far training on several devices lies from the same training on one.

    Attributes:
        devices: how many.
        steps: train steps from the same parameters on the same batches, on either side.
        loss_max_relative_deviation: largest difference of the losses of a step, over that on one device; over a
            thousandth of the first one, where it is smaller than that.
        limit: what it may be.
        passed: within the limit, or beyond it by what is known to be rounding.
        drift: how that is known, where it is so.
    """

    devices: int
    steps: int
    loss_max_relative_deviation: float
    limit: float
    passed: bool
    drift: Drift | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a case.

    Attributes:
        value: the number; the median of `samples` where it was sampled.
        unit: `s`, `B`, `FLOP`, `1`, `images/s`.
        direction: whether lower or higher is better, or neither.
        kind: `exact` repeats to the last digit, `sampled` does not.
        samples: one a fresh process (its median), in the order taken.
        interval: (low, high) that holds the true median with about 95 % confidence, or the samples' range where they
            are too few for that.
        contended: samples during which other programs held the processors.
    """

    value: float | int
    unit: str
    direction: Direction
    kind: Literal["exact", "sampled"]
    samples: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None
    contended: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitFacts:
    """Which images were used: how many of how many, and the SHA-256 over labels and images."""

    count: int
    full_count: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Hashes that say whether two records may be compared: of the network, of the protocol, of the environment."""

    network: str
    protocol: str
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One case: what it was, how it ended, and what was measured.

    Attributes:
        reason: why the status is not `ok`; empty otherwise.
        data_parallel: of a case on several devices.
        metrics: by name; names carry their unit (`train_step_seconds`).
        ops: the profiled train step.
        step_profile_seconds: wall time of that step; ops and an unattributed rest add up to it.
        step_profile_bytes: bytes handed out in that step, likewise.
        step_bare_seconds: median wall time of the same step without the profiler, in the same process.
        alive_at_peak: what is alive when that step's memory is at its peak.
        forward_profile: a profiled evaluation of the same batch.
        equations: what each layer must cost by the network's equations, the same for every backend.
        distributions: what the layers of the trained network give out over the test split.
        routing: how routing went in each layer, iteration by iteration, over the test split.
        data: facts on each split by name.
        notes: what a reader of the numbers must know (subset, overlap, contention, missing parity).
    """

    schema: int = SCHEMA
    run: str
    case: CaseKey
    status: Status
    reason: str = ""
    parity: Parity | None = None
    data_parallel: DataParallel | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    ops: tuple[OpEvent, ...] = ()
    step_profile_seconds: float | None = None
    step_profile_bytes: int | None = None
    step_bare_seconds: float | None = None
    alive_at_peak: tuple[LiveTensor, ...] = ()
    forward_profile: StepProfile | None = None
    equations: tuple[LayerCost, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    routing: tuple[RoutingIteration, ...] = ()
    data: dict[str, SplitFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    fingerprint: Fingerprint
