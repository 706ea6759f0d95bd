"""A suite file as data: every list is an axis, and a case is one point of their product."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag

from capsbench.backend import Precision
from capsbench.dataset import protocols
from capsbench.dataset.protocol import DataUse
from capsbench.dataset.transform import Transform
from capsbench.errors import BadInput
from capsbench.network.layers import STRICT, NotNegative, Positive, Rate
from capsbench.network.network import NetworkName
from capsbench.network.text import parse, read_text
from capsbench.network.training import Optimizer, Schedule

Count = Annotated[int, Field(ge=1, le=10_000_000)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
Measure = Literal["parity", "memory", "time", "ops", "histograms", "accuracy"]
Measures = Annotated[tuple[Measure, ...], Field(min_length=1)]
MEASURES: tuple[Measure, ...] = ("parity", "memory", "time", "ops", "histograms", "accuracy")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetChoice:
    """A protocol by its name, and how much of it is used.

    Attributes:
        name: of a protocol; `capsbench data list` has them.
        train_limit: the first so many training images; None for all that are there.
        test_limit: likewise.
        transform: how images are prepared, in place of what the protocol says.
        identical_images: how many test images may be training images, in place of what the protocol says.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Label
    train_limit: Count | None = None
    test_limit: Count | None = None
    transform: Transform | None = None
    identical_images: Annotated[int, Field(ge=0)] | None = None

    def use(self) -> DataUse:
        """What it comes to.

        Raises:
            BadInput: there is no such protocol.
        """
        protocol = protocols.load(self.name)
        if self.transform is not None:
            protocol = replace(protocol, transform=self.transform)
        if self.identical_images is not None:
            protocol = replace(protocol, identical_images=self.identical_images)
        return DataUse(protocol=protocol, train_limit=self.train_limit, test_limit=self.test_limit)


Batches = Annotated[tuple[Count, ...], Field(min_length=1)]
DeviceCount = Annotated[int, Field(ge=1, le=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendChoice:
    """A realization, `name:mode` or `name` for its first mode, and what is measured of it (None: as in the suite)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    use: str
    measure: Measures | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """Ends training after `patience` epochs in a row that did not gain `least_gain` on the best epoch before them.

    The validation accuracy is watched, a share from 0 to 1, or the train loss where no images are held out; never the
    test split.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    patience: Count = 3
    least_gain: NotNegative = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainChoice:
    """How long and how a case trains.

    Attributes:
        epochs: the most that are trained; schedules are stretched over all of them, even if training stops early.
        optimizer: overrides that of the network's own recipe, as the next three do their namesakes.
        learning_rate_schedule: see optimizer.
        warm_up: see optimizer; 0 takes the network's away.
        clip_norm: see optimizer; 0 takes the network's away.
        validation: the share of the training images that is held out and evaluated after each epoch; the same images
            for every backend and seed.
        early_stop: when to train fewer epochs.
        target_accuracy: a test accuracy, from 0 to 1, whose first time is measured: train steps, images and seconds.
        evaluate_every: evaluate after so many train steps of an epoch too, not only after each epoch: the target is
            tested there, and networks can be matched there by their familiar accuracy.
        stop_at_target: end training after the epoch that reached the target.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    epochs: Count = 1
    optimizer: Optimizer | None = None
    learning_rate_schedule: Schedule | None = None
    warm_up: Rate | None = None
    clip_norm: NotNegative | None = None
    validation: Rate = 0.0
    early_stop: EarlyStop | None = None
    target_accuracy: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    evaluate_every: Count | None = None
    stop_at_target: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkChoice:
    """A network, what of it is changed, and what it has of its own where the suite's would not do.

    Attributes:
        use: its name in the zoo, or the path of its file.
        name: what it is called in records, needed where values are set.
        set: values in place of the network's own, by their dotted paths, such as `routing.inverse_temperature.final`
            or `layers.conv_caps1.transform_std`.
        batch: sizes in place of the suite's.
        backends: `name:mode` in place of the suite's, for a network that its modes do not fit.
        train: in place of the whole of the suite's, for a network that takes longer.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    use: str
    name: NetworkName | None = None
    set: dict[str, JsonValue] = field(default_factory=dict)
    batch: Batches | None = None
    backends: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    train: TrainChoice | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnChoice:
    """A network with everything that it leaves to the suite: sizes, backends and what is measured of each, training."""

    use: str
    name: str | None
    set: dict[str, JsonValue]
    batch: tuple[int, ...]
    realizations: tuple[tuple[str, tuple[Measure, ...]], ...]
    train: TrainChoice


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeChoice:
    """How times are sampled: `rounds` fresh processes a case, each until `min_samples` or `max_seconds`."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    rounds: Annotated[int, Field(ge=1, le=1_000)] = 3
    min_samples: Annotated[int, Field(ge=1, le=100_000)] = 10
    max_seconds: Positive = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitChoice:
    """What one worker process may use before it is stopped: wall seconds and resident bytes (`12GiB`)."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    seconds: Positive = 3600.0
    memory: str | Count | None = None


def _by_shape(mapping: str, *, lists: bool = False) -> Discriminator:
    """Tells text, a mapping and a list apart, so that a mistake in one is not explained as a mistake in another."""
    tags: dict[type, str] = {dict: mapping, list: "list"} if lists else {dict: mapping}
    return Discriminator(lambda given: tags.get(type(given), "text"))


_DatasetEntry = Annotated[
    Annotated[Label, Tag("text")] | Annotated[DatasetChoice, Tag("DatasetChoice")], _by_shape("DatasetChoice")
]
_NetworkEntry = Annotated[
    Annotated[str, Tag("text")] | Annotated[NetworkChoice, Tag("NetworkChoice")], _by_shape("NetworkChoice")
]
_BackendEntry = Annotated[
    Annotated[str, Tag("text")] | Annotated[BackendChoice, Tag("BackendChoice")], _by_shape("BackendChoice")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A suite file.

    Attributes:
        dataset: a name or a mapping, or a list of those.
        networks: names in the zoo, or paths of YAML files relative to the suite file, or a mapping that gives one of
            them other values, batch sizes, backends or a training of its own.
        backends: `name:mode`, `name` for its first mode, or a mapping that narrows what is measured of it.
        routing_iterations: override the networks' own; empty keeps it.
        device: `auto` takes the first GPU where the backend has one, else the CPU.
        threads: for one op, of each device.
        devices: how many devices share each batch, one number or several: GPUs from `device` on, or replicas on the
            CPU.
        precision: of all arithmetic; `mixed_bfloat16` is float32 but for convolutions and products of matrices.
        allocator: `heap` keeps the C library from returning memory to the system between steps
            (MALLOC_MMAP_MAX_=0), `default` leaves it alone; the same for every backend.
        track: whether asv follows the suite over commits.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Label
    description: str = ""
    track: bool = False
    dataset: Annotated[
        Annotated[Label, Tag("text")]
        | Annotated[DatasetChoice, Tag("DatasetChoice")]
        | Annotated[tuple[_DatasetEntry, ...], Field(min_length=1), Tag("list")],
        _by_shape("DatasetChoice", lists=True),
    ]
    networks: Annotated[tuple[_NetworkEntry, ...], Field(min_length=1)]
    backends: Annotated[tuple[_BackendEntry, ...], Field(min_length=1)]
    batch: Batches
    routing_iterations: tuple[Annotated[int, Field(ge=1, le=100)], ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...], Field(min_length=1)] = (0,)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,2})$")] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] = 2
    devices: Annotated[
        Annotated[DeviceCount, Tag("number")] | Annotated[tuple[DeviceCount, ...], Field(min_length=1), Tag("list")],
        Discriminator(lambda given: "list" if isinstance(given, list | tuple) else "number"),
    ] = 1
    precision: Precision = "float32"
    allocator: Literal["heap", "default"] = "heap"
    measure: Measures = MEASURES
    train: TrainChoice = TrainChoice()
    time: TimeChoice = TimeChoice()
    limits: LimitChoice = LimitChoice()

    def datasets(self) -> tuple[DatasetChoice, ...]:
        """The data sets with everything they leave to defaults."""
        given = self.dataset if isinstance(self.dataset, tuple) else (self.dataset,)
        return tuple(each if isinstance(each, DatasetChoice) else DatasetChoice(name=each) for each in given)

    def device_counts(self) -> tuple[int, ...]:
        """On how many devices each case runs, once each."""
        return self.devices if isinstance(self.devices, tuple) else (self.devices,)

    def choices(self) -> tuple[OwnChoice, ...]:
        """The networks, as they are written, with everything they leave to the suite."""
        given = (each if isinstance(each, NetworkChoice) else NetworkChoice(use=each) for each in self.networks)
        return tuple(
            OwnChoice(
                use=each.use,
                name=each.name,
                set=each.set,
                batch=each.batch or self.batch,
                realizations=self._measured(each.backends) if each.backends else self.realizations(),
                train=each.train or self.train,
            )
            for each in given
        )

    def uses(self) -> tuple[str, ...]:
        """Every `name:mode` that any network is run in, as it is written."""
        return tuple(dict.fromkeys(use for choice in self.choices() for use, _ in choice.realizations))

    def realizations(self) -> tuple[tuple[str, tuple[Measure, ...]], ...]:
        """The backends, as they are written, and what is measured of each."""
        given = (each if isinstance(each, BackendChoice) else BackendChoice(use=each) for each in self.backends)
        return tuple((each.use, each.measure or self.measure) for each in given)

    def with_backends(self, names: Iterable[str]) -> "Suite":
        """The suite for other backends, also of networks with their own; one that it lists is measured as it says."""
        listed = {each.use: each for each in self.backends if isinstance(each, BackendChoice)}
        networks = tuple(
            replace(each, backends=None) if isinstance(each, NetworkChoice) else each for each in self.networks
        )
        return replace(self, backends=tuple(listed.get(name, name) for name in names), networks=networks)

    def _measured(self, names: Iterable[str]) -> tuple[tuple[str, tuple[Measure, ...]], ...]:
        narrowed = dict(self.realizations())
        return tuple((name, narrowed.get(name, self.measure)) for name in names)


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        BadInput: at file:line:key.
    """
    suite = parse(read_text(path), Suite, str(path))
    _check_target(suite.train, f"{path}:train")
    for key in ("batch", "routing_iterations", "seeds", "measure"):
        _refuse_twice(getattr(suite, key), f"{path}:{key}")
    _refuse_twice(suite.device_counts(), f"{path}:devices")
    _refuse_twice([use for use, _ in suite.realizations()], f"{path}:backends")
    _refuse_twice([choice.name or choice.use for choice in suite.choices()], f"{path}:networks")
    for number, choice in enumerate(suite.choices()):
        if choice.set and choice.name is None:
            raise BadInput("a network with other values needs a name of its own", f"{path}:networks[{number}].name")
        _refuse_twice(choice.batch, f"{path}:networks[{number}].batch")
        _refuse_twice([use for use, _ in choice.realizations], f"{path}:networks[{number}].backends")
        _check_target(choice.train, f"{path}:networks[{number}].train")
    if len(set(suite.datasets())) != len(suite.datasets()):
        raise BadInput("a data set comes twice with the same choices", f"{path}:dataset")
    for number, each in enumerate(suite.backends):
        if isinstance(each, BackendChoice) and each.measure is not None:
            _check_narrowed(each.measure, suite.measure, f"{path}:backends[{number}].measure")
    if suite.limits.memory is not None:
        memory_bytes(suite.limits.memory, f"{path}:limits.memory")
    return suite


def memory_bytes(text: str | int, where: str | None = None) -> int:
    """Bytes that a person wrote: 4096, 800MB, 12GiB.

    Raises:
        BadInput: not a number with a unit.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in _UNITS or float(match[1]) <= 0:
        raise BadInput(f"{text!r} is no amount of memory; write it like 800MB or 12GiB", where)
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _refuse_twice(values: Iterable[object], where: str) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise BadInput(f"{twice[0]!r} comes twice; every value makes cases of its own", where)


def _check_target(train: TrainChoice, where: str) -> None:
    if train.stop_at_target and train.target_accuracy is None:
        raise BadInput("it needs a target_accuracy beside it", f"{where}.stop_at_target")


def _check_narrowed(measure: tuple[Measure, ...], whole: tuple[Measure, ...], where: str) -> None:
    _refuse_twice(measure, where)
    for each in measure:
        if each not in whole:
            raise BadInput(f"{each!r} is not measured in this suite, legal are {', '.join(whole)}", where)
