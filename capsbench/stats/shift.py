"""By what factor the samples of B lie above those of A, of any number of pairs of sides at once.

Each sample stands for one process; see `verdict`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from capsbench.stats.ranktests import (
    Samples,
    rank_sum_can_reject,
    rank_sum_outside,
    rank_sum_p_values,
    signed_rank_can_reject,
    signed_rank_outside,
    signed_rank_p_values,
    walsh_averages,
)

_LEVEL: Final = 0.05  # of intervals
_TOGETHER: Final = 1 << 18  # ratios that are in memory at a time


@dataclass(frozen=True, slots=True)
class Shift:
    """By what factor B's samples lie above A's.

    Attributes:
        ratio: median of all ratios of a sample of B to one of A; where samples are paired, of the ratios of pairs and
            of the geometric means of any two of those (Hodges, Lehmann 1963).
        low: of the factors that the rank test does not reject at 95 %, the smallest.
        high: the largest.
        p_value: of no shift at all, two-sided, by the rank test of Mann and Whitney, or of Wilcoxon where paired.
        scatter: standard deviation of log samples within A and B; where paired that of the log ratios of pairs over the
            root of 2, which is the same if pairs have nothing in common.
        count: samples on the side that has fewer.
        sure: whether there are samples enough for the interval to hold 95 %; if not it is all ratios there are.
        paired: whether each sample of B was held to the one of A in its place.
    """

    ratio: float
    low: float
    high: float
    p_value: float
    scatter: float
    count: int
    sure: bool
    paired: bool = False


@dataclass(frozen=True, slots=True)
class Shifts:
    """Shifts of sides with equally many samples, in columns.

    Attributes:
        columns: ratio, low, high, p-value and scatter, as in `Shift`, [5, rows].
        count: as in `Shift`, and so are the next two.
        sure: see count.
        paired: see count.
    """

    columns: Samples
    count: int
    sure: bool
    paired: bool

    def __len__(self) -> int:
        return len(self.p_values)

    @property
    def p_values(self) -> Samples:
        """Of no shift, [rows]."""
        p_values: Samples = self.columns[3]
        return p_values

    def take(self, rows: npt.NDArray[np.int64]) -> "Shifts":
        """Some of them."""
        return replace(self, columns=self.columns[:, rows])

    def __getitem__(self, row: int) -> Shift:
        ratio, low, high, p_value, scatter = self.columns[:, row].tolist()
        return Shift(ratio, low, high, p_value, scatter, self.count, self.sure, self.paired)


def shift(base: Sequence[float], new: Sequence[float], *, paired: bool = False) -> Shift | None:
    """Compare the positive samples of A and B; None where a side has none, or one that is not positive and finite.

    Args:
        base: of A.
        new: of B.
        paired: whether samples in the same place have something in common that cancels in their ratio, such as the
            moment; sides that have not equally many are compared as if they had not.
    """
    return shifts([(base, new)], paired=paired)[0]


def shifts(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], *, paired: bool = False) -> list[Shift | None]:
    """As `shift`, of any number of sides A and B; those with equally many samples are reckoned with together."""
    found: list[Shift | None] = [None] * len(pairs)
    alike: dict[tuple[int, int], list[int]] = {}
    for place, (base, new) in enumerate(pairs):
        alike.setdefault((len(base), len(new)), []).append(place)
    for places in alike.values():
        sides = [np.array([pairs[place][side] for place in places], dtype=np.float64) for side in (0, 1)]
        fine, seen = shifts_of(*sides, paired=paired)
        for row, each in enumerate(fine.tolist()):
            found[places[each]] = seen[row]
    return found


def shifts_of(base: Samples, new: Samples, *, paired: bool = False) -> tuple[npt.NDArray[np.int64], Shifts]:
    """As `shift`, of the sides in each row of [rows, samples of A] and [rows, samples of B].

    Returns:
        The rows of which there is a shift, and their shifts.
    """
    count_a, count_b = base.shape[1], new.shape[1]
    is_paired = paired and count_a == count_b
    count = min(count_a, count_b)
    if count == 0:
        return np.zeros(0, dtype=np.int64), Shifts(np.zeros((5, 0)), 0, sure=False, paired=is_paired)
    usable = [np.all((side > 0) & np.isfinite(side), axis=1) for side in (base, new)]
    fine = np.flatnonzero(usable[0] & usable[1])
    reckon = _paired if is_paired else _unpaired
    step = max(1, _TOGETHER // (count_a * count_b))
    some = (fine[first : first + step] for first in range(0, len(fine), step))
    parts = [np.array(list(reckon(np.log(base[rows]), np.log(new[rows])))) for rows in some]
    sure = signed_rank_can_reject(count, _LEVEL) if is_paired else rank_sum_can_reject(count_a, count_b, _LEVEL)
    return fine, Shifts(np.concatenate([np.zeros((5, 0)), *parts], axis=1), count, sure, is_paired)


def _unpaired(base: Samples, new: Samples) -> Iterator[npt.ArrayLike]:
    """The columns of shifts of logarithms, a pair of samples a row."""
    (rows, count_a), count_b = base.shape, new.shape[1]
    gaps = np.sort((new[:, None, :] - base[:, :, None]).reshape(rows, count_a * count_b), axis=1)
    squares = count_a * base.var(axis=1) + count_b * new.var(axis=1)
    yield from _factors(gaps, rank_sum_outside(count_a, count_b, _LEVEL))
    yield rank_sum_p_values(base, new)
    yield np.sqrt(squares / max(1, count_a + count_b - 2))


def _paired(base: Samples, new: Samples) -> Iterator[npt.ArrayLike]:
    """Likewise, each sample of B held to the one of A in its place."""
    gaps, count = new - base, base.shape[1]
    averages = np.sort(walsh_averages(gaps), axis=1)
    yield from _factors(averages, signed_rank_outside(count, _LEVEL))
    yield signed_rank_p_values(gaps)
    yield np.sqrt(count * gaps.var(axis=1) / max(1, count - 1) / 2.0)


def _factors(ordered: Samples, outside: int) -> Iterator[Samples]:
    """Median and ends of the interval, of logarithms in order, a row each, of which so many lie outside at each end."""
    ends = ordered[:, outside], ordered[:, ordered.shape[1] - 1 - outside]
    return map(np.exp, (np.median(ordered, axis=1), *ends))
