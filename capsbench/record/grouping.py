"""Sort items into groups by what they have in common."""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by a key; keys in the order in which they first come, items of a key in their order."""
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def distinct(items: Iterable[T], key: Callable[[T], K]) -> list[K]:
    """The different keys of the items, in the order in which they first come."""
    return list(dict.fromkeys(map(key, items)))
