"""Rounding or a mistake? What decides where float32 lies beyond its parity limits.

Gradients of untrained capsule networks can be differences of nearly equal numbers: on flat background all votes for a
parent coincide and its variance is next to nothing, and some published networks' gradients grow a hundredfold from the
class layer to the image. No formulation is then exact in float32, the published one as little as any other. A mistake
shows in float64 too, or in float32 by far more.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Setting
from capsbench.record.schema import Parity, Rounding

OWN_LIMIT = 100.0
"""Beyond so many times its limit, an error on a case's own images is never taken for rounding."""
DRAWN_LIMIT = 10.0
"""Likewise on images of random pixels, which have no flat background."""

Compare = Callable[[NDArray[np.float32], Setting], Parity]
"""Parity of a realization on images [b, h, w, c]."""


def explain(
    found: Parity, compare: Compare, images: NDArray[np.float32], setting: Setting, *, drawn: bool, seed: int
) -> Parity:
    """A parity that failed in float32, passed after all where all of this holds.

    In float64 the same mode agrees with the oracle on the same images, within the limits of float64; on random pixels
    float32 errs by less than `DRAWN_LIMIT` times its limits; on these images by less than `OWN_LIMIT` times.

    Args:
        found: on `images`.
        compare: makes the other comparisons.
        images: [b, h, w, c].
        setting: that `found` is of; `compare` is asked for it and for its like in float64.
        drawn: whether `images` are random pixels themselves.
        seed: of the random pixels.
    """
    if found.passed or setting.precision != "float32" or not _within(found, DRAWN_LIMIT if drawn else OWN_LIMIT):
        return found
    double = compare(images, replace(setting, precision="float64"))
    pixels = np.random.Generator(np.random.PCG64(seed)).random(images.shape, dtype=np.float32)
    single = found if drawn else compare(pixels, setting)
    if not (double.passed and _within(single, DRAWN_LIMIT)):
        return found
    rounding = Rounding(
        float64_error=max(double.forward_max_relative_error, double.gradient_relative_error),
        drawn_forward_error=single.forward_max_relative_error,
        drawn_gradient_error=single.gradient_relative_error,
    )
    return replace(found, passed=True, rounding=rounding)


def describe(found: Parity, rounding: Rounding) -> str:
    """What a reader must know of errors beyond the limits that are rounding."""
    return (
        f"parity: float32 is off by {found.forward_max_relative_error:.1g} (forward) and "
        f"{found.gradient_relative_error:.1g} (gradient); that is rounding, for float64 agrees to "
        f"{rounding.float64_error:.0e} on the same images, and float32 to {rounding.drawn_forward_error:.0e} and "
        f"{rounding.drawn_gradient_error:.0e} on random pixels"
    )


def _within(found: Parity, times: float) -> bool:
    """Whether both errors are at most so many times their limits; a NaN is not."""
    return (
        found.forward_max_relative_error <= times * found.forward_limit
        and found.gradient_relative_error <= times * found.gradient_limit
    )
