"""The metrics of a record, packed: a hundred thousand records' fit into memory, and one is made when it is asked for.

Records of one kind of case have the same metrics with the same units and as many samples; what differs are numbers.
So those are an array, and everything else is kept once for all records that agree in it.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from capsbench.metrics import Direction
from capsbench.record.schema import Metric

_MOST: Final = 2**53
"""Up to here a float holds every whole number."""

_FIELDS: Final = ("kind", "value", "unit", "direction", "samples", "interval", "contended")
"""Of a metric, in the order in which they are written."""

Layout = tuple[tuple[str, str, Direction, Literal["exact", "sampled"], str, int, int | None], ...]
"""All that metrics are but for their numbers: name, unit, direction, kind, type of the value, samples, ends."""


@dataclass(frozen=True, slots=True)
class Place:
    """A metric without its numbers, and where among the numbers these lie: value, contended, interval, samples."""

    at: int
    end: int
    is_whole: bool
    has_interval: bool
    sample_count: int
    unit: str
    direction: Direction
    kind: Literal["exact", "sampled"]


class Places(dict[str, Place]):
    """Of the metrics of a layout, by name; each layout has one, which stands for it."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other


class PackedMetrics(Mapping[str, Metric]):
    """What a dictionary of metrics holds.

    Args:
        places: of the metrics, from `Layouts`.
        numbers: of many records.
        first: of this one's.
    """

    __slots__ = ("_first", "_numbers", "places")

    def __init__(self, places: Places, numbers: "Sequence[float]", first: int) -> None:
        self.places = places
        self._numbers = numbers
        self._first = first

    def __getitem__(self, name: str) -> Metric:
        place = self.places[name]
        return Metric(
            value=self.value(place),
            unit=place.unit,
            direction=place.direction,
            kind=place.kind,
            samples=self.samples(place),
            interval=self.interval(place),
            contended=int(self._numbers[self._first + place.at + 1]),
        )

    def place(self, name: str) -> Place | None:
        """Where a metric lies, and what it is in; None where there is none of the name."""
        return self.places.get(name)

    def value(self, place: Place) -> float | int:
        """The value that lies there."""
        value = self._numbers[self._first + place.at]
        return int(value) if place.is_whole else value

    def samples(self, place: Place) -> tuple[float, ...]:
        """The samples that lie there."""
        end = self._first + place.end
        return tuple(self._numbers[end - place.sample_count : end])

    def interval(self, place: Place) -> tuple[float, float] | None:
        """The interval that lies there, if one does."""
        at = self._first + place.at
        return (self._numbers[at + 2], self._numbers[at + 3]) if place.has_interval else None

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return repr(dict(self))


def value_of(metrics: Mapping[str, Metric], name: str) -> float | int | None:
    """The value of a metric, packed or not; None where there is none of the name."""
    if isinstance(metrics, PackedMetrics):
        place = metrics.place(name)
        return None if place is None else metrics.value(place)
    return metrics[name].value if name in metrics else None


def in_both(
    a: Mapping[str, Metric], b: Mapping[str, Metric]
) -> Iterator[tuple[str, Literal["exact", "sampled"], float | int, float | int, Direction]]:
    """What both have, packed or not: name, kind (exact where both are), values in A and in B, direction."""
    if isinstance(a, PackedMetrics) and isinstance(b, PackedMetrics):
        for name, kind, in_a, in_b in _shared(a.places, b.places):
            yield name, kind, a.value(in_a), b.value(in_b), in_a.direction
        return
    for name in (name for name in a if name in b):
        (kind, value, direction), (other, new, _) = _exact_or_sampled(a, name), _exact_or_sampled(b, name)
        yield name, kind if kind == other else "sampled", value, new, direction


@lru_cache(maxsize=4096)
def _shared(a: Places, b: Places) -> tuple[tuple[str, Literal["exact", "sampled"], Place, Place], ...]:
    """What records of two layouts have in common."""
    both = ((name, a[name], b[name]) for name in a if name in b)
    return tuple((name, x.kind if x.kind == y.kind else "sampled", x, y) for name, x, y in both)


def _exact_or_sampled(
    metrics: Mapping[str, Metric], name: str
) -> tuple[Literal["exact", "sampled"], float | int, Direction]:
    """Kind, value and direction of a metric that is there, packed or not."""
    if isinstance(metrics, PackedMetrics) and (place := metrics.place(name)) is not None:
        return place.kind, metrics.value(place), place.direction
    metric = metrics[name]
    return metric.kind, metric.value, metric.direction


def samples_of(metrics: Mapping[str, Metric], name: str) -> tuple[float, ...]:
    """The samples of a metric that is there, packed or not."""
    if isinstance(metrics, PackedMetrics) and (place := metrics.place(name)) is not None:
        return metrics.samples(place)
    return metrics[name].samples


def interval_of(metrics: Mapping[str, Metric], name: str) -> tuple[float, float] | None:
    """The interval of a metric, packed or not; None where there is none."""
    if isinstance(metrics, PackedMetrics):
        place = metrics.place(name)
        return None if place is None else metrics.interval(place)
    return metrics[name].interval if name in metrics else None


def sample_count(metrics: Mapping[str, Metric], name: str) -> int:
    """How many samples a metric has, packed or not; 0 where there is none of the name."""
    if isinstance(metrics, PackedMetrics):
        place = metrics.place(name)
        return 0 if place is None else place.sample_count
    return len(metrics[name].samples) if name in metrics else 0


class Layouts:
    """The layouts of many records, each kept once.

    Args:
        known: layouts, which are numbered in their order.

    Raises:
        ValueError: what is known is no layout.
    """

    def __init__(self, known: Iterable[Layout] = ()) -> None:
        self._numbers: dict[Layout, int] = {}
        self._places: list[Places] = []
        self._sizes: list[int] = []
        for layout in known:
            self._add(layout)

    @property
    def all(self) -> tuple[Layout, ...]:
        """By their numbers."""
        return tuple(self._numbers)

    @property
    def all_places(self) -> list[Places]:
        """Where the metrics of each layout lie."""
        return self._places

    @property
    def sizes(self) -> list[int]:
        """How many numbers a record of each layout has."""
        return self._sizes

    def pack(self, found: Mapping[str, Mapping[str, Any]], numbers: "array[float]") -> int | None:
        """Add the numbers of metrics to those of others.

        Args:
            found: the metrics by name, as a line of records.jsonl has them.
            numbers: are added to.

        Returns:
            The number of their layout; None, and nothing is added, where they are not as capsbench writes them, or hold
            numbers that an array cannot: they must be read whole.
        """
        told: list[Any] = []
        layout: list[Any] = []
        try:
            for name, each in found.items():
                if tuple(each) != _FIELDS:
                    return None
                kind, value, unit, direction, samples, interval, contended = each.values()
                if abs(value) > _MOST or type(contended) is not int:
                    return None
                number = type(value).__name__
                layout.append((name, unit, direction, kind, number, len(samples), interval and len(interval)))
                told += value, contended
                if interval:
                    told += interval
                told += samples
            packed = array("d", told)
            key = tuple(layout)
            known = self._numbers.get(key)
            index = self._add(key) if known is None else known
        except (TypeError, KeyError, AttributeError, OverflowError, ValueError):
            return None
        numbers += packed
        return index

    def _add(self, layout: Layout) -> int:
        places, size = _places(layout)
        self._places.append(places)
        self._sizes.append(size)
        return self._numbers.setdefault(layout, len(self._numbers))


def _places(layout: Layout) -> tuple[Places, int]:
    """Where metrics lie, and how many numbers they have.

    Raises:
        ValueError: not as capsbench writes metrics.
    """
    places = Places()
    at = 0
    for name, unit, direction, kind, number, samples, ends in layout:
        # Everything but numbers is checked here, once; that those are numbers, an array checks.
        kept = _adapter().validate_python({"value": 0.0, "unit": unit, "direction": direction, "kind": kind})
        if number not in {"int", "float"} or ends not in {None, 2} or samples < 0:
            raise ValueError(name)
        end = at + 2 + (ends or 0) + samples
        places[name] = Place(at, end, number == "int", ends is not None, samples, kept.unit, kept.direction, kept.kind)
        at = end
    return places, at


@cache
def _adapter() -> TypeAdapter[Metric]:
    return TypeAdapter(Metric)
