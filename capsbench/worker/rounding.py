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

COARSER = 2.0**29
"""How much coarser float32 is than float64."""
APART = 30.0
"""So many times larger than float64's error makes one expect, an error of float32 is no rounding.

Between torch's and TensorFlow's realizations of every network of the zoo and the oracle it is 0.03 to 6 times as large.
"""
LIMIT = 100.0
"""Beyond so many times its parity limit, an error is never taken for rounding."""

Compare = Callable[[NDArray[np.float32], Setting], Parity]
"""Parity of a realization on images [b, h, w, c]."""


def explain(
    found: Parity, compare: Compare, images: NDArray[np.float32], setting: Setting, *, drawn: bool, seed: int
) -> Parity:
    """A parity that failed in float32, passed after all where on these images and on random pixels all of this holds.

    In float64 the same mode agrees with the oracle, within the limits of float64; its errors, `COARSER` times as large,
    are `APART` times smaller than those of float32 at most; and these are below `LIMIT` times their own limits. On
    random pixels, which have no flat background, it is enough that float32 passes.

    Args:
        found: on `images`.
        compare: makes the other comparisons.
        images: [b, h, w, c].
        setting: that `found` is of; `compare` is asked for it and for its like in float64.
        drawn: whether `images` are random pixels themselves.
        seed: of the random pixels.
    """
    if found.passed or setting.precision != "float32":
        return found
    double = _rounded(found, compare, images, setting)
    if double is None:
        return found
    pixels = np.random.Generator(np.random.PCG64(seed)).random(images.shape, dtype=np.float32)
    single = found if drawn else compare(pixels, setting)
    if not (drawn or single.passed or _rounded(single, compare, pixels, setting)):
        return found
    rounding = Rounding(
        float64_error=max(double.forward_max_relative_error, double.gradient_relative_error),
        drawn_forward_error=single.forward_max_relative_error,
        drawn_gradient_error=single.gradient_relative_error,
    )
    return replace(found, passed=True, rounding=rounding)


def _rounded(found: Parity, compare: Compare, images: NDArray[np.float32], setting: Setting) -> Parity | None:
    """The parity in float64, where the one found in float32 differs from it by rounding; a NaN is none."""
    if not (
        found.forward_max_relative_error <= LIMIT * found.forward_limit
        and found.gradient_relative_error <= LIMIT * found.gradient_limit
    ):
        return None
    double, times = compare(images, replace(setting, precision="float64")), APART * COARSER
    near = found.forward_max_relative_error <= max(
        times * double.forward_max_relative_error, found.forward_limit
    ) and found.gradient_relative_error <= max(times * double.gradient_relative_error, found.gradient_limit)
    return double if double.passed and near else None


def describe(found: Parity, rounding: Rounding) -> str:
    """What a reader must know of errors beyond the limits that are rounding."""
    return (
        f"parity: float32 is off by {found.forward_max_relative_error:.1g} (forward) and "
        f"{found.gradient_relative_error:.1g} (gradient); that is rounding, for float64 agrees to "
        f"{rounding.float64_error:.0e} on the same images, and float32 to {rounding.drawn_forward_error:.0e} and "
        f"{rounding.drawn_gradient_error:.0e} on random pixels"
    )
