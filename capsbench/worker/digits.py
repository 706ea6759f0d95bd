"""Transforms with fewer bits than float32 has: told from rounding by the trace that they leave in the outputs.

Where every transform is larger by a share c of itself, or smaller, outputs change by c times their derivative along the
transforms, which the oracle knows. The numbers that are compared are such that to cut them to any number of bits does
just that (`perturbation.round_badly`). The errors of an output are therefore projected on that derivative: rounding of
the arithmetic goes in all directions and nearly vanishes in the projection, however large it is in the gradients.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Output
from capsbench.worker.oracle import Order

LIMIT: Final = 4e-6
"""Largest share that transforms may be off by: cut to 15 bits they are off by 7e-6, to 14 by 1.5e-5."""
_DEVIATIONS: Final = 4.0
_LEAST_SLOPE: Final = 5e-3
"""Outputs that change by less, relative to the largest, would change by less than float32 can show."""

Numbers = NDArray[np.float64]


def transform_error(mine: Output, right: Output, slope: Output, order: Order) -> float:
    """The share of themselves by which transforms are off, less what chance may have made of it.

    Args:
        mine: of a batch.
        right: of the images that stand in it, by the oracle.
        slope: derivative of the latter along the transforms.
        order: which image stands where.
    """
    projected = weight = 0.0
    for name in ("scores", "poses"):
        values, expected, slopes = (getattr(each, name) for each in (mine, right, slope))
        if expected is None:
            continue
        largest = float(np.abs(expected).max()) or 1.0
        errors = _once(np.asarray(values, np.float64) - expected[order], len(expected), order) / largest
        along = slopes / largest
        if np.sqrt(np.square(along).mean()) < _LEAST_SLOPE:
            continue
        share = float(np.vdot(along, errors) / np.vdot(along, along))
        noise = float(np.square(errors - share * along).mean()) or np.finfo(np.float64).tiny
        projected += float(np.vdot(along, errors)) / noise
        weight += float(np.vdot(along, along)) / noise
    return max(0.0, abs(projected) / weight - _DEVIATIONS / np.sqrt(weight)) if weight else 0.0


def _once(errors: Numbers, count: int, order: Order) -> Numbers:
    """Of each image the mean of its errors, wherever it stands in the batch."""
    where = np.arange(count)[order]
    return np.stack([errors[where == image].mean(0) for image in range(count)])
