"""Cases of two runs side by side: which are the same work, one by one, and in blocks that are compared at once."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from capsbench.record.classes import Classed, Classes, H, Places, classes_of, taken, told
from capsbench.record.schema import CaseKey, Fingerprint, Record
from capsbench.store.records import StoredRecords, op_calls, samples_of, seeds_of, value_of

APART: Final = "rounds of its times were taken one after the other, not side by side"
"""A note on a case whose sides were not there at the same time, though they took turns."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A case of A and the same case of B."""

    base: Record
    new: Record

    @property
    def beside(self) -> bool:
        """Whether both were there at the same time, if they took turns."""
        return APART not in self.base.notes and APART not in self.new.notes


class StoredPairs(Classed[Pair]):
    """Pairs of records that lie in files; those in the same place belong together."""

    def __init__(self, base: StoredRecords, new: StoredRecords) -> None:
        self.base = base
        self.new = new

    def __len__(self) -> int:
        return len(self.base)

    def item(self, place: int) -> Pair:
        """The pair at a place."""
        return Pair(self.base.item(place), self.new.item(place))

    def take(self, places: Places) -> Self:
        """The pairs at some places."""
        return type(self)(self.base.take(places), self.new.take(places))

    @cached_property
    def classes(self) -> Classes:
        """Pairs are alike whose sides are."""
        return classes_of(self.base.classes.of, self.new.classes.of)

    def by_class(self, tell: Callable[[Pair], H]) -> list[H]:
        """What is told of each class."""
        sides = (side.alike(self.classes.firsts) for side in (self.base, self.new))
        return [tell(Pair(*records)) for records in zip(*sides, strict=True)]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The cases that both runs have, and those that one has alone."""

    pairs: Sequence[Pair]
    only_base: Sequence[Record]
    only_new: Sequence[Record]


def setting(case: CaseKey, fingerprint: Fingerprint) -> tuple[object, ...]:
    """What makes cases the same work, all but the seed."""
    what = (case.network, fingerprint.network, case.dataset, case.batch, case.routing_iterations)
    return (*what, case.backend, case.mode, case.device, case.threads, case.devices, case.precision, case.allocator)


def setting_of(record: Record) -> tuple[object, ...]:
    """Likewise."""
    return setting(record.case, record.fingerprint)


def pair_cases(base: Sequence[Record], new: Sequence[Record]) -> Pairing:
    """Match cases by what they do: network, data set, realization and setting, and the hash of the network's spec.

    Cases that do the same by all of those, as those of two suites may, are told apart by their ids.
    """
    numbers: dict[Hashable, int] = {}
    of_base, of_new = (_by_work(side, lambda key: numbers.setdefault(key, len(numbers))) for side in (base, new))
    matched: list[tuple[int, int]] = []
    for work, places in of_base.items():
        others = of_new.get(work, [])
        if len(places) == len(others) == 1:
            matched.append((places[0], others[0]))
        elif others:
            by_id = {new[other].case.id: other for other in others}
            ids = ((place, base[place].case.id) for place in places)
            matched += [(place, by_id[name]) for place, name in ids if name in by_id]
    at = np.array(matched, dtype=np.int64).reshape(-1, 2).T
    alone = (_alone(*each) for each in ((base, of_base, at[0]), (new, of_new, at[1])))
    return Pairing(_pairs(taken(base, at[0]), taken(new, at[1])), *alone)


def _by_work(records: Sequence[Record], number: Callable[[Hashable], int]) -> dict[tuple[int, int], list[int]]:
    """Places of records by setting and seed."""
    found: dict[tuple[int, int], list[int]] = {}
    settings = told(records, lambda record: number(setting_of(record)))
    for place, work in enumerate(zip(settings, seeds_of(records), strict=True)):
        found.setdefault(work, []).append(place)
    return found


def _alone(records: Sequence[Record], by_work: dict[tuple[int, int], list[int]], paired: Places) -> Sequence[Record]:
    known = set(paired.tolist())
    places = [place for places in by_work.values() for place in places if place not in known]
    alone = taken(records, np.array(places, dtype=np.int64))
    return alone if isinstance(alone, StoredRecords) else tuple(alone)


def _pairs(base: Sequence[Record], new: Sequence[Record]) -> Sequence[Pair]:
    if isinstance(base, StoredRecords) and isinstance(new, StoredRecords):
        return StoredPairs(base, new)
    return tuple(map(Pair, base, new))


def base_seeds(pairs: Sequence[Pair], places: Places) -> list[int]:
    """Seeds of the cases of some pairs."""
    if isinstance(pairs, StoredPairs):
        return pairs.base.seeds[places].tolist()  # type: ignore[no-any-return]
    return [pairs[place].base.case.seed for place in places.tolist()]


def values(pairs: Sequence[Pair], metric: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.generic]]:
    """Of a metric in A and in B, [pairs] each; NaN or None where a record has none of the name."""
    if isinstance(pairs, StoredPairs):
        return pairs.base.values(metric), pairs.new.values(metric)
    told = [(value_of(pair.base.metrics, metric), value_of(pair.new.metrics, metric)) for pair in pairs]
    base, new = np.array(told, dtype=object).reshape(-1, 2).T
    return base, new


class Side(Protocol):
    """Numbers of records that have the same metrics, with equally many samples."""

    def values(self, metric: str) -> npt.NDArray[Any]:
        """Of a metric that all have, [records]."""

    def samples(self, metric: str) -> npt.NDArray[np.float64]:
        """Likewise, [records, samples]."""

    @property
    def calls(self) -> npt.NDArray[Any]:
        """Of all ops of the profiled step, [records], where all have one."""


@dataclass(frozen=True, slots=True)
class Block:
    """Pairs that have the same metrics, with equally many samples, the same notes and the same statuses.

    Attributes:
        places: of the pairs, [pairs].
        example: one of them.
        base: their sides in A.
        new: in B.
    """

    places: Places
    example: Pair
    base: Side
    new: Side


@dataclass(frozen=True, slots=True)
class _Alone:
    """One record; its numbers stay as exact as they are."""

    record: Record

    def values(self, metric: str) -> npt.NDArray[Any]:
        return np.array([value_of(self.record.metrics, metric)], dtype=object)

    def samples(self, metric: str) -> npt.NDArray[np.float64]:
        return np.array([samples_of(self.record.metrics, metric)], dtype=np.float64)

    @property
    def calls(self) -> npt.NDArray[Any]:
        return np.array([op_calls(self.record)], dtype=object)


def blocks(pairs: Sequence[Pair]) -> Iterator[Block]:
    """All pairs, in blocks as large as can be."""
    if not isinstance(pairs, StoredPairs):
        for place, pair in enumerate(pairs):
            yield Block(np.array([place]), pair, _Alone(pair.base), _Alone(pair.new))
        return
    shapes = classes_of(pairs.base.shapes.of, pairs.new.shapes.of)
    order = np.argsort(shapes.of, kind="stable")
    for places in np.split(order, np.cumsum(np.bincount(shapes.of))[:-1]):
        if len(places) == 1:  # a line of another make may hold numbers that no column can
            pair = pairs.item(int(places[0]))
            yield Block(places, pair, _Alone(pair.base), _Alone(pair.new))
        elif len(places):
            some = pairs.take(places)
            yield Block(places, some.item(0), some.base, some.new)
