"""What decides whether an error beyond the limits of float32 is rounding."""

from dataclasses import replace

import numpy as np
import pytest

from capsbench.backend import Setting
from capsbench.record.schema import Parity
from capsbench.worker.parity import FORWARD_LIMITS, GRADIENT_LIMITS
from capsbench.worker.rounding import describe, explain

IMAGES = np.zeros((2, 4, 4, 1), np.float32)


def parity_of(forward, gradient, precision="float32"):
    """A parity with these errors."""
    limits = FORWARD_LIMITS[precision], GRADIENT_LIMITS[precision]
    passed = forward <= limits[0] and gradient <= limits[1]
    return Parity(
        oracle="numpy",
        forward_max_relative_error=forward,
        gradient_relative_error=gradient,
        forward_limit=limits[0],
        gradient_limit=limits[1],
        passed=passed,
    )


def explained(found, double=(1e-12, 1e-12), drawn=(1e-7, 1e-6), *, precision="float32", pixels=False):
    """What comes of a parity when the other comparisons find these errors, and for which images they were asked."""
    asked = []

    def compare(images, setting):
        asked.append((bool(images.any()), setting.precision))
        return parity_of(*(double if setting.precision == "float64" else drawn), setting.precision)

    setting = Setting("fast", precision=precision)
    return explain(found, compare, IMAGES, setting, drawn=pixels, seed=0), asked


def test_rounding_passes_with_what_explains_it():
    """Right in float64 on the same images and in float32 on random ones: it passes, its errors unchanged."""
    found = parity_of(1e-7, 2e-3)
    passed, asked = explained(found)
    assert asked == [(False, "float64"), (True, "float32")]
    assert passed == replace(found, passed=True, rounding=passed.rounding)
    assert passed.rounding.float64_error == 1e-12
    assert passed.rounding.drawn_gradient_error == 1e-6
    assert describe(passed, passed.rounding) == (
        "parity: float32 is off by 1e-07 (forward) and 0.002 (gradient); that is rounding, for float64 agrees to 1e-12 "
        "on the same images, and float32 to 1e-07 and 1e-06 on random pixels"
    )


@pytest.mark.parametrize(
    "others",
    [
        {"double": (1e-12, 1e-9)},
        {"double": (1e-9, 1e-12)},
        {"double": (float("nan"), 1e-12)},
        {"drawn": (1e-7, 1.1e-3)},
        {"drawn": (1.1e-4, 1e-6)},
        {"drawn": (1e-7, float("nan"))},
    ],
)
def test_a_mistake_fails(others):
    """Wrong in float64, or far off on random pixels, is no rounding."""
    found = parity_of(1e-7, 2e-3)
    assert explained(found, **others)[0] == found


@pytest.mark.parametrize("errors", [(1e-7, 1.1e-2), (1.1e-3, 1e-6), (1e-7, float("nan")), (float("inf"), 1e-6)])
def test_a_large_error_fails_unasked(errors):
    """A hundred times the limit is a mistake, whatever other comparisons say."""
    found = parity_of(*errors)
    assert explained(found) == (found, [])


def test_random_pixels_are_not_asked_twice():
    """Where the images are random pixels already, theirs is the closer limit, and only float64 is asked."""
    found = parity_of(1e-7, 9e-4)
    passed, asked = explained(found, pixels=True)
    assert asked == [(False, "float64")]
    assert passed.rounding.drawn_gradient_error == 9e-4
    far = parity_of(1e-7, 2e-3)
    assert explained(far, pixels=True) == (far, [])


def test_nothing_else_is_explained():
    """What passed needs no explanation, and float64 has none."""
    for found, precision in ((parity_of(1e-7, 1e-6), "float32"), (parity_of(1e-7, 1e-9, "float64"), "float64")):
        assert explained(found, precision=precision) == (found, [])
