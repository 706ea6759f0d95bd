"""The metrics of a record, packed: a hundred thousand records' fit into memory, and one is made when it is asked for.

Records of one kind of case have the same metrics with the same units and as many samples; what differs are numbers.
So those are an array, and everything else is kept once for all records that agree in it.
"""

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from capsbench.record.schema import Direction, Metric

_MOST: Final = 2**53
"""Up to here a float holds every whole number."""

_FIELDS: Final = ("kind", "value", "unit", "direction", "samples", "interval", "contended")
"""Of a metric, in the order in which they are written."""

_Layout = tuple[Any, ...]
"""All that metrics are but for their numbers, `_PER_METRIC` of it for each."""
_PER_METRIC: Final = 7


@dataclass(frozen=True, slots=True)
class _Place:
    """A metric without its numbers, and where among the numbers these lie: value, contended, interval, samples."""

    at: int
    end: int
    is_whole: bool
    has_interval: bool
    sample_count: int
    unit: str
    direction: Direction
    kind: Literal["exact", "sampled"]


class PackedMetrics(Mapping[str, Metric]):
    """What a dictionary of metrics holds."""

    __slots__ = ("_numbers", "_places")

    def __init__(self, places: Mapping[str, _Place], numbers: "array[float]") -> None:
        self._places = places
        self._numbers = numbers

    def __getitem__(self, name: str) -> Metric:
        place, numbers = self._places[name], self._numbers
        at = place.at
        return Metric(
            value=self.value(place),
            unit=place.unit,
            direction=place.direction,
            kind=place.kind,
            samples=self.samples(place),
            interval=(numbers[at + 2], numbers[at + 3]) if place.has_interval else None,
            contended=int(numbers[at + 1]),
        )

    def place(self, name: str) -> _Place | None:
        """Where a metric lies, and what it is in; None where there is none of the name."""
        return self._places.get(name)

    def value(self, place: _Place) -> float | int:
        """The value that lies there."""
        value = self._numbers[place.at]
        return int(value) if place.is_whole else value

    def samples(self, place: _Place) -> tuple[float, ...]:
        """The samples that lie there."""
        return tuple(self._numbers[place.end - place.sample_count : place.end])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        return repr(dict(self))


def value_of(metrics: Mapping[str, Metric], name: str) -> float | int | None:
    """The value of a metric, packed or not; None where there is none of the name."""
    if isinstance(metrics, PackedMetrics):
        place = metrics.place(name)
        return None if place is None else metrics.value(place)
    return metrics[name].value if name in metrics else None


def exact_or_sampled(metrics: Mapping[str, Metric], name: str) -> tuple[str, float | int, Direction]:
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


def sample_count(metrics: Mapping[str, Metric], name: str) -> int:
    """How many samples a metric has, packed or not; 0 where there is none of the name."""
    if isinstance(metrics, PackedMetrics):
        place = metrics.place(name)
        return 0 if place is None else place.sample_count
    return len(metrics[name].samples) if name in metrics else 0


def pack(found: Mapping[str, Mapping[str, Any]], layouts: dict[_Layout, Mapping[str, _Place]]) -> PackedMetrics | None:
    """Metrics out of JSON.

    Args:
        found: by name, as a line of records.jsonl has them.
        layouts: what is known of other records, and added to.

    Returns:
        None where they are not as capsbench writes them, or hold numbers that an array cannot: they must be read whole.
    """
    numbers: list[Any] = []
    layout: list[Any] = []
    try:
        for name, told in found.items():
            if tuple(told) != _FIELDS:
                return None
            kind, value, unit, direction, samples, interval, contended = told.values()
            if abs(value) > _MOST:
                return None
            layout += name, unit, direction, kind, type(value), len(samples), interval and len(interval)
            numbers += value, contended
            if interval:
                numbers += interval
            numbers += samples
        key = tuple(layout)
        places = layouts.get(key)
        if places is None:
            places = layouts[key] = _places(key)
        packed = array("d", numbers)
    except (TypeError, KeyError, AttributeError, OverflowError, ValidationError):
        return None
    return PackedMetrics(places, packed)


def _places(layout: _Layout) -> Mapping[str, _Place]:
    places = {}
    at = 0
    told = iter(layout)
    for name, unit, direction, kind, number, samples, ends in zip(*[told] * _PER_METRIC, strict=True):
        # Everything but numbers is checked here, once; that those are numbers, an array checks.
        kept = _adapter().validate_python({"value": 0.0, "unit": unit, "direction": direction, "kind": kind})
        if number not in {int, float} or ends not in {None, 2}:
            raise TypeError(name)
        end = at + 2 + (ends or 0) + samples
        places[name] = _Place(at, end, number is int, ends is not None, samples, kept.unit, kept.direction, kept.kind)
        at = end
    return places


@cache
def _adapter() -> TypeAdapter[Metric]:
    return TypeAdapter(Metric)
