"""The numbers of a column written at once: the same texts that `format` makes one by one, in a fraction of the time.

Numbers in the same unit with as many digits go through one pattern; what is zero, not finite or no number at all is
left to the function itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from capsbench.report import format as fmt

Numbers = NDArray[np.float64]
Some = NDArray[np.bool_]
Alike = Iterator[tuple[Some, Numbers, str]]
"""Which numbers are written by a pattern, [numbers]; all of them as it shows them, [numbers]; the pattern."""


@np.errstate(over="ignore")
def texts(write: Callable[[float | None], str], values: Sequence[float | None]) -> list[str]:
    """As `list(map(write, values))`.

    Args:
        write: a function of `format`.
        values: of a column.
    """
    patterns = _PATTERNS.get(write)
    if patterns is None:
        return list(map(write, values))
    numbers = np.array(values, dtype=np.float64)
    found = np.empty(len(numbers), dtype=object)
    for alike, shown, pattern in patterns(numbers):
        found[alike] = list(map(pattern.format, shown[alike].tolist()))
    return _completed(found, lambda place: write(values[place]))


@np.errstate(over="ignore")
def intervals(bounds: Sequence[tuple[float, float] | None], units: Sequence[fmt.Unit]) -> list[str]:
    """As `format.interval` writes each."""
    ends = np.array([(np.nan, np.nan) if each is None else each for each in bounds], dtype=np.float64).reshape(-1, 2)
    low, high = ends.T
    found = np.empty(len(ends), dtype=object)
    for alike, unit, decimals in _in_units(high, units):
        both = alike & np.isfinite(low)
        end = f"{{:,.{decimals}f}}"
        pattern = f"{end}–{end} {unit.name}"
        found[both] = list(map(pattern.format, *(ends[both] / unit.size).T.tolist()))
    return _completed(found, lambda place: fmt.interval(bounds[place], units))


def _completed(found: NDArray[Any], write: Callable[[int], str]) -> list[str]:
    """The texts found, and of the places without one what is written of them."""
    told: list[str] = found.tolist()
    for place, text in enumerate(told):
        if text is None:
            told[place] = write(place)
    return told


def _in_units(numbers: Numbers, units: Sequence[fmt.Unit]) -> Iterator[tuple[Some, fmt.Unit, int]]:
    """Which numbers are in a unit and have so many decimals; none that are zero or not finite."""
    plain, size = _plain(numbers), np.abs(numbers)
    sizes = np.array([unit.size for unit in units])
    unit_of = np.searchsorted(sizes, size / fmt.ROUNDED_UP, side="right") - 1
    for index, unit in enumerate(units):
        mine = plain & (np.maximum(unit_of, 0) == index)
        if unit.whole:
            yield mine, unit, 0
        else:
            few = size / unit.size < fmt.TWO_DECIMALS
            yield from ((mine & few, unit, 2), (mine & ~few, unit, 1))


def _plain(numbers: Numbers) -> Some:
    plain: Some = np.isfinite(numbers) & (numbers != 0)
    return plain


def _quantities(numbers: Numbers, units: Sequence[fmt.Unit]) -> Alike:
    for alike, unit, decimals in _in_units(numbers, units):
        yield alike, numbers / unit.size, f"{{:,.{decimals}f}} {unit.name}".rstrip()


def _counts(numbers: Numbers) -> Alike:
    yield np.isfinite(numbers), numbers, "{:,.0f}"


def _percents(numbers: Numbers) -> Alike:
    yield np.isfinite(numbers), 100 * numbers, "{:.2f}"


def _errors(numbers: Numbers) -> Alike:
    yield _plain(numbers), numbers, "{:.1e}"


def _plain_numbers(numbers: Numbers) -> Alike:
    plain, large = _plain(numbers), np.abs(numbers) >= fmt.NO_DECIMALS
    yield from ((plain & large, numbers, "{:,.0f}"), (plain & ~large, numbers, "{:#.3g}"))


_PATTERNS: Final[Mapping[Callable[[float | None], str], Callable[[Numbers], Alike]]] = {
    fmt.seconds: partial(_quantities, units=fmt.SECONDS),
    fmt.size: partial(_quantities, units=fmt.BYTES),
    fmt.flops: partial(_quantities, units=fmt.FLOPS),
    fmt.count: _counts,
    fmt.percent: _percents,
    fmt.error: _errors,
    fmt.plain_number: _plain_numbers,
}
