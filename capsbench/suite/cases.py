"""From suites to cases: the product of the axes, refused before anything runs where it makes no sense."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import ClassVar, Final, Literal

from pydantic import ConfigDict

from capsbench.backend import Precision, Setting
from capsbench.dataset import catalog
from capsbench.dataset.protocol import DataUse
from capsbench.errors import BadInput, unknown_name
from capsbench.network import zoo
from capsbench.network.hashing import as_json, content_hash
from capsbench.network.layers import STRICT
from capsbench.network.network import Network, routing_iterations, with_routing_iterations
from capsbench.network.shapes import BoundNetwork, bind
from capsbench.network.text import plain
from capsbench.network.training import Recipe
from capsbench.network.variation import vary
from capsbench.record.schema import CaseKey
from capsbench.suite.schema import LimitChoice, Measure, OwnChoice, Suite, TimeChoice, TrainChoice

MOST_CASES: Final = 1_000_000

_Realization = tuple[str, str, tuple[Measure, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One point of a suite: everything a worker needs to know, but for where the data lie."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    id: str
    suite: str
    network: Network
    dataset: DataUse
    backend: str
    mode: str
    device: str
    batch: int
    seed: int
    threads: int
    devices: int = 1
    precision: Precision
    allocator: Literal["heap", "default"]
    measure: tuple[Measure, ...]
    train: TrainChoice
    time: TimeChoice
    limits: LimitChoice

    @property
    def routing_iterations(self) -> int | None:
        """Routing iterations; None for a network that does not route, or does not iterate."""
        return routing_iterations(self.network)

    @property
    def setting(self) -> Setting:
        """How the backend is asked to realize the network."""
        return Setting(self.mode, self.device, self.precision, self.threads, self.devices)

    def on_one_device(self) -> "Case":
        """The same work on one device, beside which several are measured; no case of any suite."""
        return replace(self, devices=1)

    @property
    def recipe(self) -> Recipe:
        """The network's recipe with what the suite overrides."""
        own, train = self.network.recipe, self.train
        return Recipe(
            optimizer=train.optimizer or own.optimizer,
            learning_rate_schedule=train.learning_rate_schedule or own.learning_rate_schedule,
            warm_up=own.warm_up if train.warm_up is None else train.warm_up,
            clip_norm=own.clip_norm if train.clip_norm is None else train.clip_norm,
        )

    def bind(self) -> BoundNetwork:
        """The network at the size of the prepared images."""
        protocol = self.dataset.protocol
        return bind(self.network, protocol.image_shape(), catalog.info(protocol.data).classes)

    def key(self) -> CaseKey:
        """How records name the case."""
        return CaseKey(
            id=self.id,
            network=self.network.name,
            dataset=self.dataset.name,
            backend=self.backend,
            mode=self.mode,
            device=self.device,
            batch=self.batch,
            routing_iterations=self.routing_iterations,
            seed=self.seed,
            threads=self.threads,
            precision=self.precision,
            devices=self.devices,
            allocator=self.allocator,
        )


def expand(
    suite: Suite, path: Path, modes: Mapping[str, tuple[str, ...]], devices: Mapping[str, str] | None = None
) -> tuple[Case, ...]:
    """Every case of a suite, in the order in which they are run.

    Args:
        suite: as read from `path`.
        path: the suite file, from which relative network paths are followed.
        modes: the modes of every installed backend, the default first.
        devices: what the suite's device means for each backend; None takes the suite's word.

    Raises:
        BadInput: an unknown name, a combination no case can be made of, or more than `MOST_CASES`.
    """
    _check_count(suite, path)
    chosen = {use: _mode(use, modes, path) for use in (*dict(suite.realizations()), *suite.uses())}
    placed = {backend: (devices or {}).get(backend, suite.device) for backend, _ in chosen.values()}
    return tuple(
        _case(suite, fixed, (batch, several), seed, (*chosen[mode], measure), placed[chosen[mode][0]])
        for use in _uses(suite, path)
        for network, choice in _networks(suite, path, use)
        for fixed in (_Fixed.of(suite, use, *network, choice.train),)
        for batch, several, seed, (mode, measure) in product(
            _batches(choice.batch, suite, path), suite.device_counts(), suite.seeds, choice.realizations
        )
    )


def select(cases: Iterable[Case], glob: str | None) -> tuple[Case, ...]:
    """The cases whose id or `network`, `backend:mode` matches the glob; all without one.

    Raises:
        BadInput: none does.
    """
    everything = tuple(cases)
    if glob is None:
        return everything
    chosen = tuple(case for case in everything if case.key().is_like(glob))
    if not chosen:
        raise BadInput(f"no case matches {glob!r}; the first of {len(everything)} is {everything[0].id!r}", "--only")
    return chosen


def comparable_group(case: Case) -> tuple[object, ...]:
    """Cases with equal groups differ in backend and mode only: their timing rounds are interleaved."""
    return (case.suite, case.dataset, case.network.name, case.routing_iterations, case.batch, case.seed, case.device)


def _check_count(suite: Suite, path: Path) -> None:
    """A few lines can stand for more cases than any memory holds; they are counted before one is made."""
    realized = sum(len(choice.batch) * len(choice.realizations) for choice in suite.choices())
    axes = (suite.datasets(), suite.routing_iterations or (None,), suite.device_counts(), suite.seeds)
    count = prod(map(len, axes)) * realized
    if count > MOST_CASES:
        raise BadInput(f"it stands for up to {count:,} cases, at most {MOST_CASES:,} are run at once", str(path))


def _batches(batches: tuple[int, ...], suite: Suite, path: Path) -> tuple[int, ...]:
    """The batches, each with an image for every device at least."""
    most = max(suite.device_counts())
    if min(batches) < most:
        raise BadInput(
            f"a batch of {min(batches)} is too small for {most} devices: each needs an image", f"{path}:devices"
        )
    return batches


def _mode(text: str, modes: Mapping[str, tuple[str, ...]], path: Path) -> tuple[str, str]:
    backend, colon, mode = text.partition(":")
    if backend not in modes:
        raise unknown_name("backend", backend, modes, f"{path}:backends")
    if not colon:
        return backend, modes[backend][0]
    if mode not in modes[backend]:
        raise unknown_name(f"mode of {backend}", mode, modes[backend], f"{path}:backends")
    return backend, mode


def _uses(suite: Suite, path: Path) -> Iterator[DataUse]:
    """What the suite's data sets come to, images of a possible size."""
    for choice in suite.datasets():
        try:
            use = choice.use()
            use.protocol.image_shape()
        except BadInput as error:
            raise BadInput(str(error), f"{path}:dataset") from None
        yield use


def _networks(suite: Suite, path: Path, use: DataUse) -> Iterator[tuple[tuple[Network, str], OwnChoice]]:
    """The suite's networks, each once, with their hashes and choices; all of them fit the data set."""
    image, classes = use.protocol.image_shape(), catalog.info(use.protocol.data).classes
    seen: set[tuple[str, int | None]] = set()
    for (number, choice), iterations in product(enumerate(suite.choices()), suite.routing_iterations or (None,)):
        network = with_routing_iterations(_varied(choice, number, path), iterations)
        key = (choice.name or choice.use, routing_iterations(network))
        if key in seen:
            continue
        seen.add(key)
        try:
            bind(network, image, classes)
        except BadInput as error:
            raise BadInput(f"{error} (data set {use.name})", f"{path}:networks") from None
        yield (network, content_hash(network)), choice


def _varied(choice: OwnChoice, number: int, path: Path) -> Network:
    network = _load(choice.use, path)
    if choice.name is None:
        return network
    try:
        return vary(network, choice.name, choice.set)
    except BadInput as error:
        raise BadInput(str(error), f"{path}:networks[{number}].set") from None


def _load(name: str, path: Path) -> Network:
    if "/" in name or name.endswith((".yaml", ".yml")):
        return zoo.load(str(path.parent / name))
    if name not in zoo.names():
        raise unknown_name("network", name, zoo.names(), f"{path}:networks")
    return zoo.load(name)


@dataclass(frozen=True, slots=True)
class _Fixed:
    """What all cases of a network and a data set share, and the hash of the text that those of their ids begin with."""

    network: Network
    dataset: DataUse
    train: TrainChoice
    iterations: int | None
    begun: "hashlib._Hash"

    @classmethod
    def of(cls, suite: Suite, dataset: DataUse, network: Network, digest: str, train: TrainChoice) -> "_Fixed":
        protocol = (digest, plain((dataset, train, suite.time, suite.limits), defaults=True))
        begun = hashlib.sha256(b"[" + as_json(protocol) + b", ")
        return cls(network, dataset, train, routing_iterations(network), begun)


def _case(
    suite: Suite, fixed: _Fixed, sizes: tuple[int, int], seed: int, realization: _Realization, device: str
) -> Case:
    (backend, mode, measure), (batch, devices) = realization, sizes
    iterations = "" if fixed.iterations is None else f".i{fixed.iterations}"
    parallel = f".d{devices}" if devices > 1 else ""
    label = f"{fixed.network.name}.{fixed.dataset.name}.{backend}-{mode}.b{batch}{parallel}{iterations}.s{seed}"
    several = f", {devices}" if devices > 1 else ""
    rest = _listed(suite.threads, suite.precision, suite.allocator, measure)
    # The same as content_hash of all that a case is, with what many share written out once.
    whole = fixed.begun.copy()
    whole.update(f"[{_listed(backend, mode, device)}, {batch}, {seed}, {rest}{several}]]".encode())
    digest = whole.hexdigest()[:8]
    return Case(
        id=f"{label}-{digest}",
        suite=suite.name,
        network=fixed.network,
        dataset=fixed.dataset,
        backend=backend,
        mode=mode,
        device=device,
        batch=batch,
        seed=seed,
        threads=suite.threads,
        devices=devices,
        precision=suite.precision,
        allocator=suite.allocator,
        measure=measure,
        train=fixed.train,
        time=suite.time,
        limits=suite.limits,
    )


@lru_cache(maxsize=4096)
def _listed(*values: Hashable) -> str:
    """What stands between the brackets of a list in JSON."""
    return as_json(values)[1:-1].decode()
