"""Numbers as a person reads them: with unit, with separators, never with more digits than say something."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

NOTHING: Final = "—"
"""Stands where there is no number."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A decimal multiple of a base unit (`MB` of bytes); `whole` where parts of it make no sense."""

    name: str
    size: float
    whole: bool = False


SECONDS: Final = (Unit("ns", 1e-9), Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s", 1.0))
BYTES: Final = (Unit("B", 1, whole=True), Unit("kB", 1e3), Unit("MB", 1e6), Unit("GB", 1e9), Unit("TB", 1e12))
FLOPS: Final = (
    Unit("", 1, whole=True),
    Unit("k", 1e3),
    Unit("M", 1e6),
    Unit("G", 1e9),
    Unit("T", 1e12),
    Unit("P", 1e15),
)
PERCENT: Final = Unit("%", 1.0)
"""Of a column that holds 100 times a share, to one decimal."""

ROUNDED_UP: Final = 0.99995
"""Of a unit: from there on a number is one of it, after rounding (999.97 ms is 1.00 s)."""
TWO_DECIMALS: Final = 9.995
"""Below it a number has two decimals, as 9.99 has; else one."""
NO_DECIMALS: Final = 99.95
"""From there on a number without a unit has none; below it three digits that count."""


def seconds(value: float | None) -> str:
    """12.3 ms."""
    return quantity(value, SECONDS)


def size(value: float | None) -> str:
    """163.1 MB (decimal: a MB is 10^6 bytes)."""
    return _size(value)


def flops(value: float | None) -> str:
    """1.23 G, for a column that says FLOPs."""
    return _flops(value)


def count(value: float | None) -> str:
    """1,234,567."""
    return NOTHING if value is None else _finite(value) or f"{value:,.0f}"


def percent(share: float | None) -> str:
    """97.31, for a column or a sentence that says %."""
    return NOTHING if share is None else _finite(share) or f"{100 * share:.2f}"


def error(value: float | None) -> str:
    """1.2e-06, for relative errors."""
    return NOTHING if value is None else _finite(value) or ("0" if value == 0 else f"{value:.1e}")


def plain_number(value: float | None) -> str:
    """1,234 or 12.3 or 0.0120, for rates and other numbers without a unit: three digits that count."""
    if value is None or value == 0 or not math.isfinite(value):
        return count(value)
    return f"{value:,.0f}" if abs(value) >= NO_DECIMALS else f"{value:#.3g}"


UNITS: Final[Mapping[Callable[[float | None], str], str]] = {seconds: "s", size: "B", flops: "FLOP", percent: "share"}
"""Of the values that are written so; what is written by others is a mere number."""


def quantity(value: float | None, units: Sequence[Unit]) -> str:
    """A number in the unit that leaves one to three digits before the point."""
    if value is None:
        return NOTHING
    unit = _unit(value, units)
    return _finite(value) or f"{_in_unit(value, unit)} {unit.name}".rstrip()


# What many cases of a table have in common.
_size = lru_cache(maxsize=4096)(partial(quantity, units=BYTES))
_flops = lru_cache(maxsize=4096)(partial(quantity, units=FLOPS))


def interval(bounds: tuple[float, float] | None, units: Sequence[Unit]) -> str:
    """12.1–12.5 ms, both ends in the unit of the upper one."""
    if bounds is None:
        return NOTHING
    low, high = bounds
    unit = _unit(high, units)
    decimals = 0 if unit.whole else _decimals(high / unit.size)
    ends = (_finite(end) or f"{end / unit.size:,.{decimals}f}" for end in (low, high))
    return f"{'–'.join(ends)} {unit.name}"


def bounds(low: float | None, high: float | None, units: Sequence[Unit]) -> str:
    """Write 12.1–15.3 MB, or the upper end alone where the lower one is within 10 % of it."""
    if low is None or high is None:
        return NOTHING
    return quantity(high, units) if high <= 1.1 * low else interval((low, high), units)


def label(text: object) -> str:
    """Text from elsewhere on one line, with everything that does not print written as an escape."""
    told = str(text)
    if told.isprintable():
        return told
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in told)


def common_unit(largest: float, units: Sequence[Unit]) -> Unit:
    """The unit for a column whose numbers go up to `largest`: at least ten of it, so that one decimal tells enough."""
    return next((unit for unit in reversed(units) if abs(largest) >= 10 * unit.size), units[0])


def apportion(values: Sequence[float], total: float, tick: float) -> list[int]:
    """Round `values` to multiples of `tick` that add up to `total`, rounded likewise; each is off by less than one.

    The largest remainders are rounded up (Hamilton's method), so that a printed column adds up to its printed total.
    """
    ticks = [math.floor(value / tick) for value in values]
    missing = round(total / tick) - sum(ticks)
    remainders = sorted(range(len(values)), key=lambda i: ticks[i] - values[i] / tick)
    for i in remainders[: max(0, missing)]:
        ticks[i] += 1
    return ticks


def _finite(value: float) -> str:
    """Empty for a number that has digits, else what it is."""
    return "" if math.isfinite(value) else str(float(value))


def _unit(value: float, units: Sequence[Unit]) -> Unit:
    """The largest unit that still leaves a digit before the point."""
    if not math.isfinite(value) or value == 0:
        return units[-1] if units is SECONDS else units[0]
    least = abs(value) / ROUNDED_UP
    for unit in reversed(units):
        if least >= unit.size:
            return unit
    return units[0]


def _in_unit(value: float, unit: Unit) -> str:
    scaled = value / unit.size
    return f"{scaled:,.0f}" if unit.whole or value == 0 else f"{scaled:,.{_decimals(scaled)}f}"


def _decimals(scaled: float) -> int:
    return 2 if abs(scaled) < TWO_DECIMALS else 1
