"""What parent and worker say to each other: frozen dataclasses, one JSON line each.

Both ends come from the same installation, so nothing is versioned. NaN and infinities travel as Python's `json` writes
them. A line that is no message is noise, which the reader hands back as such.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from capsbench.backend import Setting
from capsbench.dataset.protocol import DataUse
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.clock import Timing
from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import StepProfile
from capsbench.network.cost import LayerCost
from capsbench.network.network import Network
from capsbench.network.serialize import from_json, to_json
from capsbench.record.schema import DataParallel, Metric, Parity, SplitFacts
from capsbench.suite.cases import Case

Outcome = Literal["ok", "oom", "timeout", "diverged", "unsupported", "parity_failed", "crash", "bad_input"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where data sets lie (None: the default folders) and where a case's larger files go (None: nowhere)."""

    data_root: str | None = None
    cache: str | None = None
    artifacts: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeJob:
    """Import a backend's framework and say what is there."""

    kind: Literal["probe"] = "probe"
    backend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataJob:
    """Load a data set, say what it is and whether it keeps to its protocol."""

    kind: Literal["data"] = "data"
    dataset: DataUse
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedNetwork:
    """A network with the image [height, width, channels] and class count it is to be realized for."""

    network: Network
    image: tuple[int, int, int]
    classes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityJob:
    """Compare networks on drawn images against the oracle."""

    kind: Literal["parity"] = "parity"
    backend: str
    setting: Setting
    networks: tuple[SizedNetwork, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Everything about a case that repeats exactly: parity, counts, memory, ops."""

    kind: Literal["check"] = "check"
    case: Case
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeJob:
    """One timing round of a case."""

    kind: Literal["time"] = "time"
    case: Case
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyJob:
    """Train a case and evaluate it."""

    kind: Literal["accuracy"] = "accuracy"
    case: Case
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingsJob:
    """Find out what a device can do at best."""

    kind: Literal["ceilings"] = "ceilings"
    backend: str
    setting: Setting


Job = ProbeJob | DataJob | ParityJob | CheckJob | TimeJob | AccuracyJob | CeilingsJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is, `done` of `total`, and what runs now in words."""

    kind: Literal["progress"] = "progress"
    stage: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePart:
    """Versions by name and devices, as the backend sees them."""

    kind: Literal["probe"] = "probe"
    versions: dict[str, str]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityPart:
    """Parity of a network; None, with the reason, where it could not be found out."""

    kind: Literal["parity"] = "parity"
    network: str
    parity: Parity | None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataParallelPart:
    """How far training on several devices lies from that on one."""

    kind: Literal["data_parallel"] = "data_parallel"
    data_parallel: DataParallel


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsPart:
    """Some metrics of the case."""

    kind: Literal["metrics"] = "metrics"
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True, kw_only=True)
class EquationsPart:
    """What each layer must cost by the network's equations."""

    kind: Literal["equations"] = "equations"
    layers: tuple[LayerCost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsPart:
    """A profiled train step and a profiled evaluation."""

    kind: Literal["ops"] = "ops"
    train_step: StepProfile
    forward: StepProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionsPart:
    """What the layers of the trained network give out over the test split, and how routing went there."""

    kind: Literal["distributions"] = "distributions"
    distributions: tuple[Distribution, ...]
    routing: tuple[RoutingIteration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingsPart:
    """What a device can do at best; None where its backend cannot tell."""

    kind: Literal["ceilings"] = "ceilings"
    ceilings: Ceilings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPart:
    """One timing round.

    Attributes:
        forward: one evaluation of the batch.
        train_step: one train step on it.
        overhead_share: share of the timing pass that was spent outside the realization.
        peak_rss_bytes: the most resident memory the process had.
        devices: how many took part.
    """

    kind: Literal["round"] = "round"
    forward: Timing
    train_step: Timing
    overhead_share: float
    peak_rss_bytes: int
    devices: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """Which images were used, by part, and what its protocol forbids of them."""

    kind: Literal["data"] = "data"
    data: dict[str, SplitFacts]
    violations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesPart:
    """What a reader of the numbers must know."""

    kind: Literal["notes"] = "notes"
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactsPart:
    """Files that now stand in the case's folder, by name."""

    kind: Literal["artifacts"] = "artifacts"
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How the job ended; always the last message."""

    kind: Literal["done"] = "done"
    status: Outcome
    reason: str = ""


Part = (
    ProbePart
    | ParityPart
    | DataParallelPart
    | MetricsPart
    | EquationsPart
    | OpsPart
    | RoundPart
    | DistributionsPart
    | CeilingsPart
    | DataPart
    | NotesPart
    | ArtifactsPart
)
Message = Progress | Part | Done


_MESSAGE: Any = Annotated[Message, Field(discriminator="kind")]
_JOB: Any = Annotated[Job, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Received:
    """What a worker left behind: its parts in the order they came, how it ended, the end of its stderr."""

    parts: tuple[Part, ...]
    done: Done
    stderr: str = field(default="", compare=False)


def encode(value: Job | Message) -> bytes:
    """Encode a message or job as one line."""
    return to_json(value) + b"\n"


def decode_message(line: bytes) -> Message | None:
    """Decode the message on a line; None where there is none."""
    try:
        message: Message = from_json(_MESSAGE, line)
    except ValidationError:
        return None
    return message


def decode_job(line: bytes) -> Job:
    """Decode the job on a line.

    Raises:
        pydantic.ValidationError: there is none.
    """
    job: Job = from_json(_JOB, line)
    return job
