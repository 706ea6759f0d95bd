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


def explained(found, double=(1e-12, 1e-11), drawn=(1e-7, 1e-6), drawn_double=(1e-12, 1e-11), *, pixels=False):
    """What comes of a float32 parity when the other comparisons find these errors, and what was asked for."""
    asked = []

    def compare(images, setting):
        random = bool(images.any())
        asked.append(("drawn" if random else "own", setting.precision))
        if setting.precision == "float64":
            return parity_of(*(drawn_double if random else double), "float64")
        return parity_of(*drawn)

    return explain(found, compare, IMAGES, Setting("fast"), drawn=pixels, seed=0), asked


def test_rounding_passes_with_what_explains_it():
    """Right in float64 on the same images and in float32 on random ones: it passes, its errors unchanged."""
    found = parity_of(1e-7, 2e-3)
    passed, asked = explained(found)
    assert asked == [("own", "float64"), ("drawn", "float32")]
    assert passed == replace(found, passed=True, rounding=passed.rounding)
    assert passed.rounding.float64_error == 1e-11
    assert passed.rounding.drawn_gradient_error == 1e-6
    assert describe(passed, passed.rounding) == (
        "parity: float32 is off by 1e-07 (forward) and 0.002 (gradient); that is rounding, for float64 agrees to 1e-11 "
        "on the same images, and float32 to 1e-07 and 1e-06 on random pixels"
    )


def test_random_pixels_may_round_as_much_as_float64_lets_expect():
    """Beyond ten times the limits on random pixels it passes where float64's error there explains that."""
    passed, asked = explained(parity_of(1e-7, 2e-3), drawn=(1e-7, 3e-3))
    assert asked == [("own", "float64"), ("drawn", "float32"), ("drawn", "float64")]
    assert passed.passed
    assert passed.rounding.drawn_gradient_error == 3e-3


@pytest.mark.parametrize(
    "others",
    [
        {"double": (1e-12, 1e-9)},
        {"double": (1e-9, 1e-11)},
        {"double": (float("nan"), 1e-11)},
        {"drawn": (1e-7, 3e-3), "drawn_double": (1e-12, 1e-13)},
        {"drawn": (1e-7, 3e-3), "drawn_double": (1e-12, 1e-9)},
        {"drawn": (5e-4, 1e-6), "drawn_double": (1e-15, 1e-11)},
        {"drawn": (1e-7, 1.1e-2)},
        {"drawn": (1e-7, float("nan"))},
    ],
)
def test_a_mistake_fails(others):
    """Wrong in float64, or far off on random pixels, farther than float64's own error explains, is no rounding."""
    found = parity_of(1e-7, 2e-3)
    assert explained(found, **others)[0] == found


@pytest.mark.parametrize("errors", [(1e-7, 1.1e-2), (1.1e-3, 1e-6), (1e-7, float("nan")), (float("inf"), 1e-6)])
def test_a_large_error_fails_unasked(errors):
    """A hundred times the limit is a mistake, whatever other comparisons say."""
    found = parity_of(*errors)
    assert explained(found) == (found, [])


def test_random_pixels_are_not_asked_twice():
    """Where the images are random pixels already, theirs is the closer limit, and only float64 is asked."""
    passed, asked = explained(parity_of(1e-7, 9e-4), (1e-12, 1e-14), pixels=True)
    assert asked == [("own", "float64")]
    assert passed.rounding.drawn_gradient_error == 9e-4
    expected, far = parity_of(1e-7, 3e-3), parity_of(1e-7, 3e-3)
    assert explained(expected, (1e-12, 1e-11), pixels=True)[0].passed
    assert explained(far, (1e-12, 1e-13), pixels=True)[0] == far


def test_nothing_else_is_explained():
    """What passed needs no explanation, and float64 has none."""
    for found, precision in ((parity_of(1e-7, 1e-6), "float32"), (parity_of(1e-7, 1e-9, "float64"), "float64")):
        setting = Setting("fast", precision=precision)
        assert explain(found, lambda *_: pytest.fail("asked"), IMAGES, setting, drawn=False, seed=0) == found
