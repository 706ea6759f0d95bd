"""The most a processor's arithmetic can do: fused multiply-adds that wait for nothing but each other."""

from functools import partial

import numpy as np

from capsbench.backend import FullPrecision
from capsbench.measure.ceilings import least_seconds
from capsbench_fused import threads
from capsbench_fused.compiling import entry
from capsbench_fused.vec import LANES, load, start, store

_ROUNDS = 2_000_000
# Two registers hold LANES numbers of float64 where one holds those of float32, so half as many chains fill them.
_CHAINS = {"float32": 12, "float64": 6}


def fma_flops_per_second(count: int, precision: FullPrecision) -> float:
    """Multiplications and additions of `count` threads at once, the best of several tries."""
    chains = _CHAINS[precision]
    work = [np.linspace(0.1, 0.5, (chains + 1) * LANES).astype(precision) for _ in range(count)]
    chain = _six if chains == 6 else _twelve
    seconds = least_seconds(lambda: threads.run([partial(chain, each, _ROUNDS) for each in work]))
    return 2.0 * chains * LANES * _ROUNDS * count / seconds


@entry
def _six(numbers, rounds):
    """Six chains x <- x m + m."""
    p = start(numbers)
    m, x0, x1, x2 = load(p, 0), load(p, LANES), load(p, 2 * LANES), load(p, 3 * LANES)
    x3, x4, x5 = load(p, 4 * LANES), load(p, 5 * LANES), load(p, 6 * LANES)
    for _ in range(rounds):
        x0, x1, x2, x3, x4, x5 = x0 * m + m, x1 * m + m, x2 * m + m, x3 * m + m, x4 * m + m, x5 * m + m
    store(p, LANES, x0 + x1 + x2 + x3 + x4 + x5)


@entry
def _twelve(numbers, rounds):
    """Twelve of them."""
    p = start(numbers)
    m, x0, x1, x2 = load(p, 0), load(p, LANES), load(p, 2 * LANES), load(p, 3 * LANES)
    x3, x4, x5 = load(p, 4 * LANES), load(p, 5 * LANES), load(p, 6 * LANES)
    x6, x7, x8 = load(p, 7 * LANES), load(p, 8 * LANES), load(p, 9 * LANES)
    x9, x10, x11 = load(p, 10 * LANES), load(p, 11 * LANES), load(p, 12 * LANES)
    for _ in range(rounds):
        x0, x1, x2, x3, x4, x5 = x0 * m + m, x1 * m + m, x2 * m + m, x3 * m + m, x4 * m + m, x5 * m + m
        x6, x7, x8, x9, x10, x11 = x6 * m + m, x7 * m + m, x8 * m + m, x9 * m + m, x10 * m + m, x11 * m + m
    store(p, LANES, x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11)
