"""Sequences many of whose items are alike: what all of a class have in common is asked of one of them.

A hundred thousand records fall into a few thousand classes, which differ in ids, seeds and numbers only.
"""

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

Places = npt.NDArray[np.int64]
"""Of items in a sequence, from 0."""


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes of the items of a sequence, numbered in the order in which they first come.

    Attributes:
        of: class of each item, [items].
        firsts: place of the first item of each class, [classes], ascending.
    """

    of: Places
    firsts: Places


class Classed(Sequence[T], Generic[T]):
    """Items that are made when they are asked for, of which those of a class differ in ids, seeds and numbers only."""

    @property
    @abstractmethod
    def classes(self) -> Classes:
        """Which items are alike."""

    @abstractmethod
    def take(self, places: Places) -> Self:
        """The items at some places, in their order."""

    @abstractmethod
    def item(self, place: int) -> T:
        """The item at a place from 0 on."""

    def by_class(self, tell: Callable[[T], H]) -> list[H]:
        """What is told of each class."""
        return list(map(tell, self.examples))

    @cached_property
    def examples(self) -> Sequence[T]:
        """The first of each class."""
        return [self.item(place) for place in self.classes.firsts.tolist()]

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204 - of Sequence
        places = range(len(self))[index]
        return self.item(places) if isinstance(places, int) else self.take(np.array(places, dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


def _equal(one: object, other: object) -> bool:
    return one == other


def classes_of(*columns: npt.ArrayLike) -> Classes:
    """Classes of rows that agree in all columns, whole numbers from -1 on, [rows] each."""
    found: Places = np.zeros(0, dtype=np.int64)
    firsts = found
    for number, column in enumerate(columns):
        whole = np.asarray(column, dtype=np.int64)
        mixed = whole if number == 0 else found * (whole.max(initial=0) + 2) + whole + 1
        _, firsts, found = np.unique(mixed, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.arange(len(order))
    return Classes(numbers[found], firsts[order])


def examples(items: Sequence[T]) -> Sequence[T]:
    """One of each class; all, where items are just held."""
    return items.examples if isinstance(items, Classed) else items


def told(items: Sequence[T], tell: Callable[[T], H]) -> list[H]:
    """What is told of each item, which must follow from its class."""
    if not isinstance(items, Classed):
        return list(map(tell, items))
    by_class = items.by_class(tell)
    return [by_class[number] for number in items.classes.of.tolist()]


def different(items: Sequence[T], tell: Callable[[T], H]) -> list[H]:
    """What is told of the items, each once, in the order in which it comes."""
    return list(dict.fromkeys(items.by_class(tell) if isinstance(items, Classed) else map(tell, items)))


def where(items: Sequence[T], holds: Callable[[T], object]) -> npt.NDArray[np.bool_]:
    """Of which items something holds, which must follow from their class; [items]."""
    if not isinstance(items, Classed):
        return np.fromiter(map(bool, map(holds, items)), dtype=np.bool_)
    return np.array(items.by_class(lambda item: bool(holds(item))), dtype=np.bool_)[items.classes.of]


def taken(items: Sequence[T], places: Places) -> Sequence[T]:
    """The items at some places, in their order."""
    return items.take(places) if isinstance(items, Classed) else [items[place] for place in places.tolist()]


def chosen(items: Sequence[T], holds: Callable[[T], object]) -> Sequence[T]:
    """The items of which something holds, which must follow from their class."""
    return taken(items, np.flatnonzero(where(items, holds)))


def grouped_places(items: Sequence[T], key: Callable[[T], H]) -> dict[H, Places]:
    """Places of the items by a key, which must follow from their class; both in the order in which they come."""
    numbers: dict[H, int] = {}
    group_of = np.array(told(items, lambda each: numbers.setdefault(key(each), len(numbers))), dtype=np.int64)
    order = np.argsort(group_of, kind="stable")
    ends = np.cumsum(np.bincount(group_of, minlength=len(numbers)))
    return dict(zip(numbers, np.split(order, ends[:-1]), strict=True)) if numbers else {}


def grouped(items: Sequence[T], key: Callable[[T], H]) -> dict[H, Sequence[T]]:
    """The items by a key, likewise."""
    return {found: taken(items, places) for found, places in grouped_places(items, key).items()}


def ranks(keys: Iterable[Any]) -> Places:
    """Places of keys among the different ones in ascending order."""
    listed = list(keys)
    order = {key: number for number, key in enumerate(sorted(set(listed)))}
    return np.array([order[key] for key in listed], dtype=np.int64)
