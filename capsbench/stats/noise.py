"""By how much do two sides of equal code differ? Floors for ratios, resampled from processes that all did the same.

The processes ran in blocks of four, A B B A, so that a machine that drifts treats both sides alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
        interleaved: where the processes of both sides took turns, A B B A.
        apart: where all of A ran before all of B, as with two runs; never less than `interleaved`.
    """

    metric: str
    processes: int
    interleaved: float
    apart: float


def floors(medians: Mapping[str, Sequence[float]]) -> tuple[Floor, ...]:
    """Floors of every metric for up to as many processes a side as there are.

    Args:
        medians: by metric, of one process each, in the order in which they ran; positive, whole blocks of four.

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
    """Processes a side, taking turns, that call a slowdown *worse* with a power of 80 %; None where no number would.

    For the rank test at the corrected level of a table of `rows`, and a ratio that must also pass margin and floor.

    Args:
        growth: the slowdown, such as 1.1.
        scatter: standard deviation of log medians between processes.
        known: floors of one metric; the last one stands for all larger numbers.
        rows: that are decided together.
    """
    for count in range(max(2, min(each.processes for each in known)), _MOST_ROUNDS):
        floor = max((each.processes, each.interleaved) for each in known if each.processes <= count)[1]
        if finds(count, growth, max(MARGIN, floor), scatter, rows):
            return count
    return None


def interleaved_reach(logs: NDArray[np.float64], count: int, *, share: float = SHARE) -> float:
    """What `share` of the log ratios of `count` processes a side stay within, were they to take turns.

    Blocks are drawn with replacement, whole, so that what neighbours have in common cancels as it did in the machine
    (the block bootstrap of Künsch 1989, Annals of Statistics 17, with the blocks of the experiment). Each drawn block
    has its sides exchanged by the toss of a coin, for equal code has no sides; so the ratios lie evenly about one, and
    their spread needs no correction for a mean that was estimated. The ratio is the one that verdicts use, the median
    over all pairs of processes (Hodges, Lehmann 1963).

    Args:
        logs: of medians, [4 * blocks], in the order run.
        count: processes a side.
        share: of the draws.
    """
    generator = np.random.default_rng(_SEED)
    blocks = logs.reshape(-1, len(SIDES))
    drawn = blocks[generator.integers(len(blocks), size=(_DRAWS, (count + 1) // 2))]
    tossed = generator.random(drawn.shape[:2])[..., None] < 0.5
    outer, inner = drawn[..., [0, 3]], drawn[..., [1, 2]]
    sides = (np.where(tossed, x, y).reshape(_DRAWS, -1)[:, :count] for x, y in ((outer, inner), (inner, outer)))
    base, new = sides
    return float(np.quantile(np.abs(_shifts(base, new)), share))


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


def _logs(metric: str, samples: Sequence[float]) -> NDArray[np.float64]:
    if not samples or len(samples) % len(SIDES):
        raise ValueError(f"{len(samples)} samples of {metric} are no whole blocks of {SIDES}")
    if not all(isfinite(value) and value > 0.0 for value in samples):
        raise ValueError(f"samples of {metric} must be positive and finite")
    return np.log(np.asarray(samples, dtype=np.float64))
