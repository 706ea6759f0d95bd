"""Is B better than A, worse, the same, or is that undecided? From samples of which each stands for one process.

A process keeps its memory layout for life, so that repetitions within one agree with each other more than with the
truth: they are no replicates, and only their median comes here.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from math import comb, isfinite, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

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
_EFFICIENCY: Final = 0.864  # of the rank test against the best one, at its worst (Hodges, Lehmann 1956)
_MOST_SAMPLES: Final = 1_000
_FEW: Final = 100  # degrees of freedom, below which Student's distribution is not the normal one
_MOST_EXACT: Final = 2_500  # pairs of samples for which orders are counted


@dataclass(frozen=True, slots=True)
class Shift:
    """By what factor B's samples lie above A's.

    Attributes:
        ratio: median of all ratios of a sample of B to one of A (Hodges, Lehmann 1963).
        low: of the factors that the rank test does not reject at 95 %, the smallest.
        high: the largest.
        p_value: of no shift at all, two-sided, by the rank test of Mann and Whitney.
        scatter: standard deviation of log samples within A and B.
        count: samples on the side that has fewer.
        sure: whether there are samples enough for the interval to hold 95 %; if not it is all ratios there are.
    """

    ratio: float
    low: float
    high: float
    p_value: float
    scatter: float
    count: int
    sure: bool


def shift(base: Sequence[float], new: Sequence[float]) -> Shift | None:
    """Compare the positive samples of A and B; None where a side has none, or one that is not positive and finite."""
    return shifts([(base, new)])[0]


def shifts(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Shift | None]:
    """As `shift`, of any number of pairs; those with equally many samples are reckoned with together."""
    found: list[Shift | None] = [None] * len(pairs)
    alike: dict[tuple[int, int], list[int]] = {}
    for place, (base, new) in enumerate(pairs):
        if min(len(base), len(new)) > 0:
            alike.setdefault((len(base), len(new)), []).append(place)
    for places in alike.values():
        samples = [np.array([pairs[place][side] for place in places], dtype=np.float64) for side in (0, 1)]
        fine = np.all((samples[0] > 0) & np.isfinite(samples[0]), axis=1)
        fine &= np.all((samples[1] > 0) & np.isfinite(samples[1]), axis=1)
        chosen = [place for place, is_fine in zip(places, fine, strict=True) if is_fine]
        for place, each in zip(chosen, _shifts(*(np.log(side[fine]) for side in samples)), strict=True):
            found[place] = each
    return found


def _shifts(base: Samples, new: Samples) -> Iterator[Shift]:
    """Of logarithms, a pair of samples a row."""
    (rows, count_a), count_b = base.shape, new.shape[1]
    gaps = np.sort((new[:, None, :] - base[:, :, None]).reshape(rows, count_a * count_b), axis=1)
    reach = _rejected(count_a, count_b)
    low, high = gaps[:, reach], gaps[:, gaps.shape[1] - 1 - reach]
    squares = count_a * base.var(axis=1) + count_b * new.var(axis=1)
    scatter = np.sqrt(squares / max(1, count_a + count_b - 2))
    count, sure = min(count_a, count_b), comb(count_a + count_b, count_a) >= 2.0 / _LEVEL
    factors = (np.exp(each).tolist() for each in (np.median(gaps, axis=1), low, high))
    for ratio, least, most, p_value, spread in zip(*factors, _p_values(base, new), scatter.tolist(), strict=True):
        yield Shift(ratio, least, most, p_value, spread, count, sure)


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
    interval = mean_interval(gaps) or Interval(gaps[0], gaps[0], 0.0)
    scatter = stdev(gaps) if len(gaps) > 1 else 0.0
    return Difference(fmean(gaps), interval.low, interval.high, _paired_p_value(gaps), scatter, len(gaps))


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
    fewest = max(_least(found, rows), found.count + 1)
    sides = 2 if isinstance(found, Shift) else 1
    counts = range(fewest, _MOST_SAMPLES + 1)
    # More samples never decide less.
    place = bisect_left(counts, True, key=lambda n: _decides(n, abs(middle), edge, found.scatter, rows, sides))
    return counts[place] if place < len(counts) else None


def finds(count: int, growth: float, margin: float, scatter: float, rows: int) -> bool:
    """Whether so many samples a side call a growth of a time *worse* with a power of 80 %.

    Args:
        count: samples a side.
        growth: the factor, above 1.
        margin: the share that counts for nothing.
        scatter: standard deviation of log samples within a side.
        rows: of the table, which the level is corrected for.
    """
    enough = comb(2 * count, count) >= 2.0 * rows / ALPHA
    return enough and log(growth) > log(1.0 + margin) and _decides(count, log(growth), log(1.0 + margin), scatter, rows)


def _decides(count: int, size: float, edge: float, scatter: float, rows: int, sides: int = 2) -> bool:
    """Whether the power is 80 %: to reject and to see more than the margin, or to have the interval within it.

    By Student's distribution where samples are few: the rank test has its tails, not those of the normal distribution.
    """
    error = scatter * sqrt(2.0 / (_EFFICIENCY * count) if sides == 2 else 1.0 / count)
    freedom, normal = sides * (count - 1), NormalDist()
    if size > edge:
        power = normal.inv_cdf(_POWER) * error
        return size - power >= max(edge, _critical(freedom, 1.0 - ALPHA / rows) * error)
    return edge - size >= (_critical(freedom, 1.0 - _LEVEL) + normal.inv_cdf((1.0 + _POWER) / 2.0)) * error


@cache
def _critical(freedom: int, confidence: float) -> float:
    return t_quantile(freedom, confidence) if freedom <= _FEW else NormalDist().inv_cdf(0.5 + confidence / 2.0)


@cache
def least_samples(rows: int) -> int:
    """The fewest samples a side with which the rank test, corrected for a table of `rows`, can reject at all."""
    return next(n for n in range(2, _MOST_SAMPLES) if comb(2 * n, n) >= 2.0 * rows / ALPHA)


def _scaled(found: Shift | Difference, margin: float) -> tuple[float, float, float, float]:
    """Middle, ends of the interval and margin, such that nothing is 0 and a margin reaches as far to either side."""
    if isinstance(found, Shift):
        return log(found.ratio), log(found.low), log(found.high), log(1.0 + margin)
    return found.mean, found.low, found.high, margin


def _least(found: Shift | Difference, rows: int) -> int:
    """The fewest samples with which the test can reject at all."""
    return 3 if isinstance(found, Difference) else least_samples(rows)


def _p_values(base: Samples, new: Samples) -> list[float]:
    """Two-sided, of Mann and Whitney's U: exact where no samples are equal, else by the normal approximation.

    The approximation is far off in the tail that a table of many rows is decided in: of ten samples a side that do not
    overlap at all it says 2e-4, where one order in 92,378 is as extreme.
    """
    (rows, count_a), count_b = base.shape, new.shape[1]
    ordered = np.sort(np.concatenate([base, new], axis=1), axis=1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if count_a * count_b > _MOST_EXACT:
        tied[:] = True
    below = (new[:, None, :] < base[:, :, None]).reshape(rows, count_a * count_b).sum(axis=1)
    fewer = np.minimum(below, count_a * count_b - below)
    p_values = np.ones(rows)
    if not tied.all():
        p_values = np.minimum(1.0, 2.0 * np.array(_at_most(count_a, count_b))[fewer])
    for row in np.flatnonzero(tied):
        p_values[row] = _tied_p_value(base[row].tolist(), new[row].tolist())
    found: list[float] = p_values.tolist()
    return found


def _tied_p_value(base: Sequence[float], new: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu  # noqa: PLC0415 - takes seconds to import

    if max(*base, *new) == min(*base, *new):
        return 1.0
    return float(mannwhitneyu(base, new, alternative="two-sided", method="asymptotic").pvalue)


def _paired_p_value(gaps: Sequence[float]) -> float:
    from scipy.special import stdtr  # noqa: PLC0415 - takes time to import

    if len(gaps) < 2 or max(gaps) == min(gaps):  # no scatter is no evidence: seeds of one run may all be alike
        return 1.0
    t = fmean(gaps) / (stdev(gaps) / sqrt(len(gaps)))
    return float(2.0 * stdtr(len(gaps) - 1, -abs(t)))


@cache
def _rejected(count_a: int, count_b: int) -> int:
    """How many of the smallest pairwise gaps lie outside the interval: the most for which 2 P(U < k) <= 0.05."""
    ways = _ways(count_a, count_b)
    total, below = comb(count_a + count_b, count_a), 0
    for reach, count in enumerate(ways):
        below += count
        if 2 * below > _LEVEL * total:
            return reach
    return len(ways) - 1


@cache
def _at_most(count_a: int, count_b: int) -> tuple[float, ...]:
    """P(U <= u) for each u, where all orders of the samples are equally likely."""
    total = comb(count_a + count_b, count_a)
    return tuple(below / total for below in accumulate(_ways(count_a, count_b)))


@cache
def _ways(count_a: int, count_b: int) -> tuple[int, ...]:
    """In how many orders of the samples each value of Mann and Whitney's U comes about (Mann, Whitney 1947, eq. 6)."""
    ways = [1] + [0] * (count_a * count_b)
    for k in range(1, count_a + 1):  # times (1 - x^(b + k)) / (1 - x^k), the factors of the Gaussian binomial
        for value in range(count_a * count_b, count_b + k - 1, -1):
            ways[value] -= ways[value - count_b - k]
        for value in range(k, count_a * count_b + 1):
            ways[value] += ways[value - k]
    return tuple(ways)
