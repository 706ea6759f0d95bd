"""Rounding or a mistake? What decides where float32 lies beyond its parity limits.

Gradients of untrained capsule networks can be differences of nearly equal numbers: on flat background all votes for a
parent coincide and its variance is next to nothing, and some published networks' gradients grow a hundredfold from the
class layer to the image. No formulation is then exact in float32, on any processor, the published one as little as any
other.

How much float32 may err follows from float64's own error. Both arithmetics round every intermediate result to their
last digit, and the network amplifies these roundings alike, so float32's error is 2^29 times that of float64 between
two formulations that round in different places: the realization and the oracle. One such error is one draw of chance
(it may be small by luck), so it is taken as the worst of three comparisons: of the parameters and images as they are,
and twice with last digits moved at random, which rounds everything anew and is otherwise the same network.

A mistake shows in float64 too, or in float32 by more.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Setting
from capsbench.record.schema import Parity, Rounding

LIMIT = 100.0
"""Beyond so many times its parity limit, an error is never taken for rounding."""
COARSER = 2.0**29
"""How much coarser float32 is than float64."""
SAFETY = 8.0
"""How many times the expected error float32 may reach.

Of 280 comparisons of the zoo with the oracle (PyTorch in three modes, two seeds, MNIST and random pixels, AVX2) the
largest ratio was 3.3 and the median 0.5.
"""
_MOVES = 2
_DRAWS = 2

Parameters = Mapping[str, NDArray[np.float32]]
Compare = Callable[[Setting, Parameters, NDArray[np.float32]], Parity]
"""Parity of a realization in a setting, with parameters, on images [b, h, w, c]."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Float64's own errors, the worst of several comparisons that differ in their last digits only."""

    forward_error: float
    gradient_error: float

    def explains(self, single: Parity) -> bool:
        """Whether float32 errs by no more than this lets expect, or by no more than its limits."""
        times = SAFETY * COARSER
        return single.forward_max_relative_error <= max(
            single.forward_limit, times * self.forward_error
        ) and single.gradient_relative_error <= max(single.gradient_limit, times * self.gradient_error)


def expected(
    compare: Compare, setting: Setting, parameters: Parameters, images: NDArray[np.float32], seed: int
) -> Expected | None:
    """Measure float64's own errors; None where they exceed float64's limits, which no rounding does.

    Args:
        compare: makes the comparisons.
        setting: of the float32 realization.
        parameters: of the network, float32.
        images: [b, h, w, c].
        seed: of the moved last digits.
    """
    in_double = replace(setting, precision="float64")
    errors = []
    for nudged, pixels in _alike(parameters, images, seed):
        double = compare(in_double, nudged, pixels)
        if not double.passed:
            return None
        errors.append((double.forward_max_relative_error, double.gradient_relative_error))
    forward, gradient = map(max, zip(*errors, strict=True))
    return Expected(forward, gradient)


def explain(
    found: Parity,
    compare: Compare,
    setting: Setting,
    *,
    parameters: Parameters,
    images: NDArray[np.float32],
    drawn: bool,
    seed: int,
) -> Parity:
    """Return `found` as passed, with its `rounding`, if its errors are rounding; else as it is.

    Where rounding takes a value to the other side of a kink (ReLU) the gradient jumps, which float64 does not show.
    That is an accident of one set of images. So random pixels are looked at beside the images, and two of three sets
    decide. Float32 must stay within `LIMIT` times its limits on each of them.

    Args:
        found: on `images`, with `parameters` and in `setting`.
        compare: makes the other comparisons.
        setting: that `found` is of.
        parameters: of the network, float32.
        images: [b, h, w, c].
        drawn: whether `images` are random pixels themselves.
        seed: of the random pixels and moved last digits.
    """
    if found.passed or setting.precision != "float32" or not _within(found, LIMIT):
        return found
    double = expected(compare, setting, parameters, images, seed)
    if double is None:
        return found
    singles, explained = [found], [double.explains(found)]
    for number in range(_DRAWS):
        if number and explained[0] == explained[1]:
            break
        pixels = np.random.Generator(np.random.PCG64([seed, 1 + number])).random(images.shape, dtype=np.float32)
        singles.append(compare(setting, parameters, pixels))
        if not _within(singles[-1], LIMIT):
            return found
        there = None if singles[-1].passed else expected(compare, setting, parameters, pixels, seed)
        explained.append(singles[-1].passed or (there is not None and there.explains(singles[-1])))
    if sum(explained) < _DRAWS:
        return found
    shown = found if drawn else singles[1]
    rounding = Rounding(
        float64_error=max(double.forward_error, double.gradient_error),
        drawn_forward_error=shown.forward_max_relative_error,
        drawn_gradient_error=shown.gradient_relative_error,
    )
    return replace(found, passed=True, rounding=rounding, failure="")


def describe(found: Parity, rounding: Rounding) -> str:
    """Say what a reader must know of errors beyond the limits that are rounding."""
    return (
        f"parity: float32 is off by {found.forward_max_relative_error:.1g} (forward) and "
        f"{found.gradient_relative_error:.1g} (gradient); that is rounding, for float64 agrees to "
        f"{rounding.float64_error:.0e} on the same images, and float32 to {rounding.drawn_forward_error:.0e} and "
        f"{rounding.drawn_gradient_error:.0e} on random pixels"
    )


def _alike(
    parameters: Parameters, images: NDArray[np.float32], seed: int
) -> Iterator[tuple[Parameters, NDArray[np.float32]]]:
    """The parameters and images as they are, then with last digits moved."""
    yield parameters, images
    for number in range(_MOVES):
        generator = np.random.Generator(np.random.PCG64([seed, 1 + _DRAWS + number]))
        yield {name: _moved(parameters[name], generator) for name in sorted(parameters)}, _moved(images, generator)


def _moved(numbers: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Each number, or a neighbour of it; zeros stay."""
    towards = generator.choice(np.array([-np.inf, np.inf], np.float32), numbers.shape)
    moved = np.nextafter(numbers, towards)
    return np.where((numbers == 0) | (generator.random(numbers.shape) < 1 / 3), numbers, moved).astype(np.float32)


def _within(found: Parity, times: float) -> bool:
    """Whether both errors are at most so many times their limits; a NaN is not."""
    return (
        found.forward_max_relative_error <= times * found.forward_limit
        and found.gradient_relative_error <= times * found.gradient_limit
    )
