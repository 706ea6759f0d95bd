"""Is B better than A, worse, the same, or is that undecided? From samples of which each stands for one process.

Repetitions within a process follow each other within seconds, for which a machine is much the same, so that they agree
with each other more than with the truth: they are no replicates, and only their median comes here.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from capsbench.stats import rank_sum, signed_rank
from capsbench.stats.interval import Interval
from capsbench.stats.student import mean_interval, t_quantile

Samples = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "same", "undecided"]

ALPHA: Final = 0.01
"""What share of true equalities may be called better or worse, over a whole table."""
MARGIN: Final = 0.05
"""Ratios this close to one are called the same, unless the user or the machine's noise asks for more."""
_LEVEL: Final = 0.05  # of intervals
_POWER: Final = 0.8
_EFFICIENCY: Final = 0.864  # of both rank tests against the best one, at their worst (Hodges, Lehmann 1956)
_MOST_SAMPLES: Final = 1_000
_FEW: Final = 100  # degrees of freedom, below which Student's distribution is not the normal one


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
        if min(len(base), len(new)) > 0:
            alike.setdefault((len(base), len(new)), []).append(place)
    for (count_a, count_b), places in alike.items():
        reckon = _paired_shifts if paired and count_a == count_b else _shifts
        samples = [np.array([pairs[place][side] for place in places], dtype=np.float64) for side in (0, 1)]
        fine = np.all((samples[0] > 0) & np.isfinite(samples[0]), axis=1)
        fine &= np.all((samples[1] > 0) & np.isfinite(samples[1]), axis=1)
        chosen = [place for place, is_fine in zip(places, fine, strict=True) if is_fine]
        for place, each in zip(chosen, reckon(*(np.log(side[fine]) for side in samples)), strict=True):
            found[place] = each
    return found


def _shifts(base: Samples, new: Samples) -> Iterator[Shift]:
    """Of logarithms, a pair of samples a row."""
    (rows, count_a), count_b = base.shape, new.shape[1]
    gaps = np.sort((new[:, None, :] - base[:, :, None]).reshape(rows, count_a * count_b), axis=1)
    squares = count_a * base.var(axis=1) + count_b * new.var(axis=1)
    scatter = np.sqrt(squares / max(1, count_a + count_b - 2))
    count, sure = min(count_a, count_b), rank_sum.can_reject(count_a, count_b, _LEVEL)
    factors = _factors(gaps, rank_sum.outside(count_a, count_b, _LEVEL))
    for middle, p_value, spread in zip(factors, rank_sum.p_values(base, new), scatter.tolist(), strict=True):
        yield Shift(*middle, p_value, spread, count, sure)


def _paired_shifts(base: Samples, new: Samples) -> Iterator[Shift]:
    """Likewise, each sample of B held to the one of A in its place."""
    gaps, count = new - base, base.shape[1]
    scatter = np.sqrt(count * gaps.var(axis=1) / max(1, count - 1) / 2.0)
    averages = np.sort(signed_rank.walsh_averages(gaps), axis=1)
    factors = _factors(averages, signed_rank.outside(count, _LEVEL))
    for middle, p_value, spread in zip(factors, signed_rank.p_values(gaps), scatter.tolist(), strict=True):
        yield Shift(*middle, p_value, spread, count, signed_rank.can_reject(count, _LEVEL), paired=True)


def _factors(ordered: Samples, outside: int) -> Iterator[tuple[float, float, float]]:
    """Median and ends of the interval, of logarithms in order, a row each, of which so many lie outside at each end."""
    low, high = ordered[:, outside], ordered[:, ordered.shape[1] - 1 - outside]
    return zip(*(np.exp(each).tolist() for each in (np.median(ordered, axis=1), low, high)), strict=True)


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much B's numbers lie above A's, seed by seed.

    Attributes:
        mean: of the differences.
        low: of Student's 95 % interval of it; that of all differences where there is but one.
        high: likewise.
        p_value: of no difference, two-sided, by the paired t test.
        scatter: standard deviation of the differences.
        count: pairs.
    """

    mean: float
    low: float
    high: float
    p_value: float
    scatter: float
    count: int


def difference(base: Sequence[float], new: Sequence[float]) -> Difference | None:
    """Compare numbers pair by pair; None where there are none, or some are not finite."""
    gaps = [b - a for a, b in zip(base, new, strict=True)]
    if not gaps or not all(map(isfinite, gaps)):
        return None
    scatter = stdev(gaps) if len(gaps) > 1 else 0.0
    interval = mean_interval(gaps, scatter=scatter) or Interval(gaps[0], gaps[0], 0.0)
    return Difference(fmean(gaps), interval.low, interval.high, _paired_p_value(gaps, scatter), scatter, len(gaps))


def decide(found: Shift | Difference, corrected: float, margin: float) -> Verdict:
    """A verdict where lower is better.

    *Worse* or *better* takes a p-value below `ALPHA` after correction and a ratio or difference beyond the margin;
    *same* takes a 95 % interval within the margin, or a lone pair that does not differ. Everything else is undecided.

    Args:
        found: what was seen.
        corrected: its p-value after `holm` over all that are decided together.
        margin: of a shift the share, of a difference the amount, that counts for nothing.
    """
    middle, low, high, edge = _scaled(found, margin)
    if corrected < ALPHA and abs(middle) > edge:
        return "worse" if middle > 0.0 else "better"
    sure = found.sure if isinstance(found, Shift) else found.count > 1 or found.mean == 0.0
    return "same" if sure and -edge < low and high < edge else "undecided"


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Corrected p-values: how likely any false alarm is (Holm 1979, Scandinavian Journal of Statistics 6)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return tuple(corrected)


def samples_needed(found: Shift | Difference, margin: float, rows: int) -> int | None:
    """Samples a side, or pairs, that would decide what is undecided with a power of 80 %, were it as it looks.

    None where there is no scatter to reckon with, or where more than a thousand would not do because it lies at the
    very edge of the margin.
    """
    middle, _, _, edge = _scaled(found, margin)
    if found.count < 2 or abs(middle) == edge:
        return None
    test = _test(found)
    counts = range(max(test.least(rows), found.count + 1), _MOST_SAMPLES + 1)
    # More samples never decide less.
    place = bisect_left(counts, True, key=lambda n: _decides(n, abs(middle), edge, found.scatter, rows, test))
    return counts[place] if place < len(counts) else None


def finds(count: int, growth: float, margin: float, scatter: float, rows: int) -> bool:
    """Whether so many pairs of samples call a growth of a time *worse* with a power of 80 %.

    Args:
        count: of pairs.
        growth: the factor, above 1.
        margin: the share that counts for nothing.
        scatter: as a paired `Shift` has it.
        rows: of the table, which the level is corrected for.
    """
    size, edge = log(growth), log(1.0 + margin)
    return count >= least_pairs(rows) and size > edge and _decides(count, size, edge, scatter, rows, _SIGNED_RANK)


@cache
def least_samples(rows: int) -> int:
    """The fewest samples a side with which Mann and Whitney's test, corrected for a table of `rows`, can reject."""
    return next(n for n in range(2, _MOST_SAMPLES) if rank_sum.can_reject(n, n, ALPHA / rows))


@cache
def least_pairs(rows: int) -> int:
    """The fewest pairs of samples with which Wilcoxon's test, corrected for a table of `rows`, can reject."""
    return next(n for n in range(2, _MOST_SAMPLES) if signed_rank.can_reject(n, ALPHA / rows))


class _Test(NamedTuple):
    """What of a test the numbers of samples follow from.

    Attributes:
        variance: of its estimate, times the samples a side and over the square of the scatter.
        groups: whose means are estimated; each takes a degree of freedom.
        least: the fewest samples with which it can reject in a table of so many rows.
    """

    variance: float
    groups: int
    least: Callable[[int], int]


_RANK_SUM: Final = _Test(2.0 / _EFFICIENCY, 2, least_samples)
_SIGNED_RANK: Final = _Test(2.0 / _EFFICIENCY, 1, least_pairs)
_PAIRED_T: Final = _Test(1.0, 1, lambda _rows: 3)


def _test(found: Shift | Difference) -> _Test:
    if isinstance(found, Difference):
        return _PAIRED_T
    return _SIGNED_RANK if found.paired else _RANK_SUM


def _decides(count: int, size: float, edge: float, scatter: float, rows: int, test: _Test) -> bool:
    """Whether the power is 80 %: to reject and to see more than the margin, or to have the interval within it.

    By Student's distribution where samples are few: the rank tests have its tails, not those of the normal
    distribution.
    """
    error, freedom, normal = scatter * sqrt(test.variance / count), test.groups * (count - 1), NormalDist()
    if size > edge:
        power = normal.inv_cdf(_POWER) * error
        if test is _SIGNED_RANK and count == least_pairs(rows):  # so few reject only if all gaps have one sign
            seen = size >= normal.inv_cdf(_POWER ** (1.0 / count)) * sqrt(2.0) * scatter
        else:
            seen = size - power >= _critical(freedom, 1.0 - ALPHA / rows) * error
        return seen and size - power >= edge
    return edge - size >= (_critical(freedom, 1.0 - _LEVEL) + normal.inv_cdf((1.0 + _POWER) / 2.0)) * error


@cache
def _critical(freedom: int, confidence: float) -> float:
    return t_quantile(freedom, confidence) if freedom <= _FEW else NormalDist().inv_cdf(0.5 + confidence / 2.0)


def _scaled(found: Shift | Difference, margin: float) -> tuple[float, float, float, float]:
    """Middle, ends of the interval and margin, such that nothing is 0 and a margin reaches as far to either side."""
    if isinstance(found, Shift):
        return log(found.ratio), log(found.low), log(found.high), log(1.0 + margin)
    return found.mean, found.low, found.high, margin


def _paired_p_value(gaps: Sequence[float], scatter: float) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - takes time to import

    if len(gaps) < 2 or max(gaps) == min(gaps):  # no scatter is no evidence: seeds of one run may all be alike
        return 1.0
    t = fmean(gaps) / (scatter / sqrt(len(gaps)))
    return float(2.0 * stdtr(len(gaps) - 1, -abs(t)))
