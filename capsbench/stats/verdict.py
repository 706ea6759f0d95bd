"""Is B better than A, worse, the same, or is that undecided? From samples of which each stands for one process.

Repetitions within a process follow each other within seconds, for which a machine is much the same, so that they agree
with each other more than with the truth: they are no replicates, and only their median comes here.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isfinite, log, sqrt
from statistics import NormalDist, fmean, stdev
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from capsbench.stats.interval import Interval
from capsbench.stats.ranktests import rank_sum_can_reject, signed_rank_can_reject
from capsbench.stats.shift import Shift, Shifts
from capsbench.stats.student import mean_interval, t_quantile

Numbers = npt.NDArray[np.float64]
Verdict = Literal["better", "worse", "same", "undecided"]

VERDICTS: Final[tuple[Verdict, ...]] = ("better", "worse", "same", "undecided")

ALPHA: Final = 0.01
"""What share of true equalities may be called better or worse, over a whole table."""
MARGIN: Final = 0.05
"""Ratios this close to one are called the same, unless the user or the machine's noise asks for more."""
_LEVEL: Final = 0.05  # of intervals
_POWER: Final = 0.8
_EFFICIENCY: Final = 0.864  # of both rank tests against the best one, at their worst (Hodges, Lehmann 1956)
_MOST_SAMPLES: Final = 1_000


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
    scatter = stdev(gaps) if max(gaps) > min(gaps) else 0.0
    interval = mean_interval(gaps, scatter=scatter) or Interval(gaps[0], gaps[0])
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
    sure = found.sure if isinstance(found, Shift) else found.count > 1 or found.mean == 0.0
    one = [np.array([each]) for each in (*_scaled(found), sure, corrected, _edge(found, margin))]
    return VERDICTS[int(_decided(*one)[0])]


def decide_shifts(found: Shifts, corrected: Numbers, margins: Numbers) -> npt.NDArray[np.int64]:
    """As `decide`, of many shifts; places among `VERDICTS`, [rows].

    Args:
        found: what was seen.
        corrected: p-values, [rows].
        margins: [rows].
    """
    middle, low, high = (_logs(each) for each in found.columns[:3])
    return _decided(middle, low, high, np.array([found.sure]), corrected, _logs(1.0 + margins))


def _decided(
    middle: Numbers, low: Numbers, high: Numbers, sure: npt.NDArray[np.bool_], corrected: Numbers, edge: Numbers
) -> npt.NDArray[np.int64]:
    """Where what is seen has no effect at 0, and a margin reaches as far to either side."""
    is_same = sure & (-edge < low) & (high < edge)
    is_moved = (corrected < ALPHA) & (np.abs(middle) > edge)
    moved = np.where(middle > 0.0, VERDICTS.index("worse"), VERDICTS.index("better"))
    return np.where(is_moved, moved, np.where(is_same, VERDICTS.index("same"), VERDICTS.index("undecided")))


def holm(p_values: npt.ArrayLike) -> Numbers:
    """Corrected p-values: how likely any false alarm is (Holm 1979, Scandinavian Journal of Statistics 6)."""
    known = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(known, kind="stable")
    corrected = np.empty(len(known))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, np.arange(len(known), 0, -1) * known[order]))
    return corrected


def samples_needed(found: Shift | Difference, margin: float, rows: int) -> int | None:
    """Samples a side, or pairs, that would decide what is undecided with a power of 80 %, were it as it looks.

    None where there is no scatter to reckon with, or where more than a thousand would not do because it lies at the
    very edge of the margin.
    """
    middle, edge = _scaled(found)[0], _edge(found, margin)
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
    return next(n for n in range(2, _MOST_SAMPLES) if rank_sum_can_reject(n, n, ALPHA / rows))


@cache
def least_pairs(rows: int) -> int:
    """The fewest pairs of samples with which Wilcoxon's test, corrected for a table of `rows`, can reject."""
    return next(n for n in range(2, _MOST_SAMPLES) if signed_rank_can_reject(n, ALPHA / rows))


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
            seen = size - power >= t_quantile(freedom, 1.0 - ALPHA / rows) * error
        return seen and size - power >= edge
    return edge - size >= (t_quantile(freedom, 1.0 - _LEVEL) + normal.inv_cdf((1.0 + _POWER) / 2.0)) * error


def _scaled(found: Shift | Difference) -> tuple[float, float, float]:
    """Middle and ends of the interval, such that nothing is 0."""
    if isinstance(found, Shift):
        return _log(found.ratio), _log(found.low), _log(found.high)
    return found.mean, found.low, found.high


def _edge(found: Shift | Difference, margin: float) -> float:
    """A margin, such that it reaches as far to either side."""
    return log(1.0 + margin) if isinstance(found, Shift) else margin


def _logs(factors: Numbers) -> Numbers:
    return np.array([_log(each) for each in factors.tolist()])


def _log(factor: float) -> float:
    return log(factor) if factor > 0.0 else -inf


def _paired_p_value(gaps: Sequence[float], scatter: float) -> float:
    if len(gaps) < 2 or max(gaps) == min(gaps):  # no scatter is no evidence: seeds of one run may all be alike
        return 1.0
    from scipy.special import stdtr  # noqa: PLC0415 - takes time to import

    t = fmean(gaps) / (scatter / sqrt(len(gaps)))
    return float(2.0 * stdtr(len(gaps) - 1, -abs(t)))
