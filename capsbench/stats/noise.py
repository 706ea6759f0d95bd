"""By how much do two sides of equal code differ? Floors for ratios, resampled from processes that all did the same.

The processes ran in pairs, A B, B A, ..., the two of each at the same time, taking turns sample by sample, so that what
the machine does to one it does to the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.stats.ranktests import walsh_averages
from capsbench.stats.verdict import MARGIN, finds

SHARE: Final = 0.99
"""Of comparisons of equal code, so many stay within the floor; half of the others say that B takes longer."""
SIDES: Final = "ABBA"
COUNTS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30)
"""Processes a side that floors are stated for, up to as many as were recorded."""
_DRAWS: Final = 4_000
_SEED: Final = 20261126
_MOST_ROUNDS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """By what share times of equal code differ, B over A or A over B, minus one.

    Attributes:
        metric: which time.
        processes: a side, whose medians the ratio is estimated from.
        interleaved: where the processes of both sides took turns, pair by pair.
        apart: where all of A ran before all of B, as with two runs; never less than `interleaved`.
    """

    metric: str
    processes: int
    interleaved: float
    apart: float


def floors(medians: Mapping[str, Sequence[float]]) -> tuple[Floor, ...]:
    """Floors of every metric for up to as many processes a side as there are.

    Args:
        medians: by metric, of one process each, pair after pair; positive, whole blocks of four.

    Raises:
        ValueError: no whole blocks, or a median that is not positive and finite.
    """
    return tuple(
        Floor(
            metric=metric,
            processes=count,
            interleaved=exp(within := interleaved_reach(logs, count)) - 1.0,
            apart=exp(max(within, apart_reach(logs, count))) - 1.0,
        )
        for metric, samples in medians.items()
        for logs in [_logs(metric, samples)]
        for count in COUNTS
        if count <= len(logs) // 2
    )


def floor_of(known: Sequence[Floor], metric: str, count: int, *, interleaved: bool) -> float | None:
    """The floor for `count` processes a side, or for the next fewer that one is known for.

    Fewer processes scatter more, so that what is handed out is never too small. None where nothing is known of the
    metric, or only of more processes.
    """
    there = [each for each in known if each.metric == metric and each.processes <= count]
    if not there:
        return None
    nearest = max(there, key=lambda each: each.processes)
    return nearest.interleaved if interleaved else nearest.apart


def rounds_to_find(growth: float, scatter: float, known: Sequence[Floor], *, rows: int = 1) -> int | None:
    """Pairs of processes that call a slowdown *worse* with a power of 80 %; None where no number would.

    For the signed-rank test at the corrected level of a table of `rows`, and a ratio that must also pass margin and
    floor.

    Args:
        growth: the slowdown, such as 1.1.
        scatter: of the log ratios of pairs, as `pair_scatter` has it.
        known: floors of one metric; the last one stands for all larger numbers.
        rows: that are decided together.
    """
    for count in range(max(2, min(each.processes for each in known)), _MOST_ROUNDS):
        floor = max((each.processes, each.interleaved) for each in known if each.processes <= count)[1]
        if finds(count, growth, max(MARGIN, floor), scatter / sqrt(2.0), rows):
            return count
    return None


def pair_scatter(logs: NDArray[np.float64]) -> float:
    """Standard deviation of the log ratios of pairs of equal code, of which one is known to be the mean, not estimated.

    With nothing in common within pairs it is the root of 2 times that of `logs`.

    Args:
        logs: of medians, [2 * pairs], pair after pair.
    """
    return float(np.sqrt(np.mean(_gaps(logs) ** 2)))


def interleaved_reach(logs: NDArray[np.float64], count: int, *, share: float = SHARE) -> float:
    """What `share` of the log ratios of `count` pairs stay within.

    Pairs are drawn with replacement, whole, so that what both have in common cancels as it did in the machine (the
    bootstrap of Efron 1979, Annals of Statistics 7, of pairs). Each has its sides exchanged by the toss of a coin, for
    equal code has no sides; so the ratios lie evenly about one, and their spread needs no correction for a mean that
    was estimated. The ratio is the one that paired verdicts use, from Walsh averages (Hodges, Lehmann 1963).

    Args:
        logs: of medians, [2 * pairs], pair after pair.
        count: pairs.
        share: of the draws.
    """
    generator = np.random.default_rng(_SEED)
    gaps = _gaps(logs)
    drawn = gaps[generator.integers(len(gaps), size=(_DRAWS, count))]
    tossed = np.where(generator.random(drawn.shape) < 0.5, drawn, -drawn)
    return float(np.quantile(np.abs(np.median(walsh_averages(tossed), axis=1)), share))


def apart_reach(logs: NDArray[np.float64], count: int) -> float:
    """The largest log ratio between `count` processes in a row and the next `count`, wherever they begin.

    Such windows overlap, so that of few processes there are hardly two independent ones: the largest of what was seen
    stands for a tail that cannot be.
    """
    windows = np.lib.stride_tricks.sliding_window_view(logs, 2 * count)
    return float(np.abs(_shifts(windows[:, :count], windows[:, count:])).max())


def _shifts(base: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of all pairwise differences, [draws], of samples [draws, count] a side."""
    gaps = (new[:, :, None] - base[:, None, :]).reshape(len(base), -1)
    medians: NDArray[np.float64] = np.median(gaps, axis=1)
    return medians


def _gaps(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log ratios, [pairs], of the second of each pair to the first."""
    first, second = logs.reshape(-1, 2).T
    gaps: NDArray[np.float64] = second - first
    return gaps


def _logs(metric: str, samples: Sequence[float]) -> NDArray[np.float64]:
    if not samples or len(samples) % len(SIDES):
        raise ValueError(f"{len(samples)} samples of {metric} are no whole blocks of {SIDES}")
    if not all(isfinite(value) and value > 0.0 for value in samples):
        raise ValueError(f"samples of {metric} must be positive and finite")
    return np.log(np.asarray(samples, dtype=np.float64))
