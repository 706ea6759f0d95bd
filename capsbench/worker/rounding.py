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

LIMIT = 100.0
"""Beyond so many times its parity limit, an error is never taken for rounding."""
DRAWN_LIMIT = 10.0
"""Likewise on images of random pixels, which have no flat background, unless float64's own error lets expect more."""
COARSER = 2.0**29
"""How much coarser float32 is than float64: rounding makes errors so many times larger, whatever amplifies them."""
APART = 30.0
"""How much larger than that it may be.

Between the oracle and torch's and TensorFlow's realizations of the zoo it is 0.02 to 10 times as large, unless rounding
takes a value to the other side of a kink (ReLU), where the gradient jumps.
"""

Compare = Callable[[NDArray[np.float32], Setting], Parity]
"""Parity of a realization on images [b, h, w, c]."""


def explain(
    found: Parity, compare: Compare, images: NDArray[np.float32], setting: Setting, *, drawn: bool, seed: int
) -> Parity:
    """A parity that failed in float32, passed after all where all of this holds.

    In float64 the same mode agrees with the oracle on the same images, within the limits of float64; on these images
    float32 errs by less than `LIMIT` times its limits; on random pixels by less than `DRAWN_LIMIT` times, or by less
    than `LIMIT` times where float64 agrees there as well, but errs so much itself that this is to be expected.

    Args:
        found: on `images`.
        compare: makes the other comparisons.
        images: [b, h, w, c].
        setting: that `found` is of; `compare` is asked for it and for its like in float64.
        drawn: whether `images` are random pixels themselves.
        seed: of the random pixels.
    """
    if found.passed or setting.precision != "float32" or not _within(found, LIMIT):
        return found
    in_double = replace(setting, precision="float64")
    double = compare(images, in_double)
    pixels = np.random.Generator(np.random.PCG64(seed)).random(images.shape, dtype=np.float32)
    single = found if drawn else compare(pixels, setting)
    near = _within(single, DRAWN_LIMIT) or (
        _within(single, LIMIT) and _is_expected(single, double if drawn else compare(pixels, in_double))
    )
    if not (double.passed and near):
        return found
    rounding = Rounding(
        float64_error=max(double.forward_max_relative_error, double.gradient_relative_error),
        drawn_forward_error=single.forward_max_relative_error,
        drawn_gradient_error=single.gradient_relative_error,
    )
    return replace(found, passed=True, rounding=rounding)


def _is_expected(single: Parity, double: Parity) -> bool:
    """Whether float32 errs as much as float64's error on the same images lets expect, which is within its limits."""
    times = APART * COARSER
    return double.passed and (
        single.forward_max_relative_error <= max(single.forward_limit, times * double.forward_max_relative_error)
        and single.gradient_relative_error <= max(single.gradient_limit, times * double.gradient_relative_error)
    )


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
