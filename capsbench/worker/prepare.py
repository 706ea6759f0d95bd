"""What every job on a case begins with: the backend, the network at its size, its parameters, its images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsbench import plugins
from capsbench.backend import Backend, Probe, Realization, Step, unsupported
from capsbench.dataset.batches import fixed_batch
from capsbench.dataset.loading import Split
from capsbench.dataset.parts import load_part
from capsbench.dataset.protocol import DataUse, Part
from capsbench.dataset.transform import Transform
from capsbench.network.parameters import draw_parameters, dropout_masks
from capsbench.network.shapes import BoundNetwork
from capsbench.suite.cases import Case
from capsbench.worker.messages import Message, NotesPart, Outcome, Place, ProbePart

Send = Callable[[Message], None]


class Stopped(Exception):  # noqa: N818 - not an error but how a case ends
    """The job cannot go on; `status` and the text say how it ended."""

    def __init__(self, status: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Prepared:
    """A case that its backend can realize.

    Attributes:
        case: with the recipe that the suite wants put into its network.
        place: where data lie and files go.
        backend: the one asked for.
        bound: the network at the size of the prepared images.
        parameters: drawn from the case's seed.
        versions: of the backend and what it stands on.
    """

    case: Case
    place: Place
    backend: Backend
    bound: BoundNetwork
    parameters: dict[str, NDArray[np.float32]]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def item_bytes(self) -> int:
        """Bytes of one number in the precision that is kept, which routing works in."""
        return 8 if self.case.setting.kept == "float64" else 4

    @property
    def least_item_bytes(self) -> int:
        """Bytes that one number must take at the least."""
        return 2 if self.case.setting.mixed else self.item_bytes

    def realize(self) -> Realization:
        """A fresh realization."""
        return self.backend.realize(self.bound, self.parameters, self.case.setting)

    def split(self, part: Part) -> Split:
        """The images of one part, as far as the case uses them."""
        return load_images(self.case.dataset, self.place, part)

    def transform(self, part: Part) -> Transform:
        """How they are prepared."""
        return self.case.dataset.protocol.transform_of(part)

    def training_batch(self, realization: Realization) -> object:
        """The first training images, always the same, with the masks of step 0, on the device."""
        case = self.case
        batch = fixed_batch(self.split("train"), self.transform("train"), batch=case.batch)
        masks = dropout_masks(self.bound, case.batch, case.seed, 0)
        placed: object = realization.place(batch.images, batch.labels, masks)
        return placed

    def standing_step(self) -> Step:
        """A train step at learning rate 0: all of the arithmetic, but the parameters stay.

        So every repetition does the same work, and none diverges on a batch that it sees a thousand times.
        """
        return Step(0, 0.0, self.case.network.objective.margin_at(0, 1))


def prepare(case: Case, place: Place, send: Send) -> Prepared:
    """Find the backend, see that it can do the case, draw the parameters.

    Raises:
        Stopped: as `unsupported`, where the device is not there or the mode cannot realize the network.
        BadInput: the backend cannot be used.
    """
    case = replace(case, network=replace(case.network, recipe=case.recipe))
    backend = plugins.load(case.backend)
    probe = backend.probe()
    send(ProbePart(versions=dict(probe.versions), devices=tuple(probe.devices)))
    missing = [device for device in case.setting.replicas if not has_device(probe, device)]
    if missing:
        asked = f", and {case.devices} from {case.device} on are asked for" if case.devices > 1 else ""
        there = ", ".join(probe.devices)
        raise Stopped("unsupported", f"{case.backend} has no device {missing[0]!r} here, only {there}{asked}")
    bound = case.bind()
    problem = unsupported(backend, bound, case.setting)
    if problem is not None:
        raise Stopped("unsupported", problem)
    if hasattr(backend, "notes"):
        send(NotesPart(notes=backend.notes(bound, case.setting)))
    return Prepared(case, place, backend, bound, draw_parameters(bound, case.seed), probe.versions)


def load_images(use: DataUse, place: Place, part: Part, progress: Callable[[int, int], None] | None = None) -> Split:
    """The images of one part; `progress` hears of images that must be made.

    Raises:
        BadInput: the files are missing or broken.
    """
    root = None if place.data_root is None else Path(place.data_root)
    cache = None if place.cache is None else Path(place.cache)
    return load_part(use, part, root, cache=cache, progress=progress)


def has_device(probe: Probe, device: str) -> bool:
    """Whether the device is there; `cuda` means the first one."""
    return ("cuda:0" if device == "cuda" else device) in {"cuda:0" if d == "cuda" else d for d in probe.devices}
