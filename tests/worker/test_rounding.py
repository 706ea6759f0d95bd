"""What decides whether an error beyond the limits of float32 is rounding."""

from dataclasses import replace

import numpy as np
import pytest

from capsbench.backend import Setting
from capsbench.record.schema import Parity
from capsbench.worker.parity import FORWARD_LIMITS, GRADIENT_LIMITS
from capsbench.worker.rounding import COARSER, SAFETY, describe, explain

IMAGES = np.zeros((2, 4, 4, 1), np.float32)
PARAMETERS = {"weights": np.linspace(-1.0, 1.0, 7, dtype=np.float32)}
EXACT = (1e-15, 1e-13)
"""Float64's errors; float32 may then err by 4e-6 (so by its limit of 1e-5) and by 4e-4."""
MOST = SAFETY * COARSER * EXACT[1]


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


def explained(found, *, double=(EXACT,), drawn=((1e-7, 1e-6),), drawn_double=(EXACT,), pixels=False):
    """What comes of a float32 parity when further comparisons find these errors in turn, and what was asked for."""
    asked = []
    answers = {
        ("own", "float64"): list(double),
        ("drawn", "float32"): list(drawn),
        ("drawn", "float64"): list(drawn_double),
    }

    def compare(setting, parameters, images):
        assert set(parameters) == set(PARAMETERS)
        question = "drawn" if images.any() else "own", setting.precision
        asked.append(question)
        left = answers[question]
        return parity_of(*(left.pop(0) if len(left) > 1 else left[0]), setting.precision)

    given = {"parameters": PARAMETERS, "images": IMAGES}
    return explain(found, compare, Setting("fast"), **given, drawn=pixels, seed=0), asked


def test_rounding_passes_with_what_explains_it():
    """Float64's own error on the same images lets expect it, and random pixels are within the limits: it passes."""
    found = parity_of(1e-7, 0.9 * MOST)
    passed, asked = explained(found)
    assert asked == [("own", "float64")] * 3 + [("drawn", "float32")]
    assert passed == replace(found, passed=True, rounding=passed.rounding)
    assert passed.rounding.float64_error == EXACT[1]
    assert passed.rounding.drawn_gradient_error == 1e-6
    assert describe(passed, passed.rounding) == (
        "parity: float32 is off by 1e-07 (forward) and 0.0004 (gradient); that is rounding, for float64 agrees to "
        "1e-13 on the same images, and float32 to 1e-07 and 1e-06 on random pixels"
    )


def test_the_worst_of_three_float64_errors_counts():
    """One float64 error may be small by luck; last digits moved at random show what it is otherwise."""
    lucky = (1e-15, 1e-16)
    assert explained(parity_of(1e-7, 0.9 * MOST), double=(lucky, lucky, EXACT))[0].passed
    assert not explained(parity_of(1e-7, 0.9 * MOST), double=(lucky,), drawn=((1e-7, 2e-4),), drawn_double=(lucky,))[
        0
    ].passed


def test_last_digits_move_by_one():
    """The networks that float64 is compared on differ from the case's in last digits; zeros stay zeros."""
    seen = []

    def compare(setting, parameters, images):
        if setting.precision == "float64":
            seen.append((parameters["weights"], images))
        return parity_of(1e-16, 1e-16, setting.precision)

    images = np.array([0.0, 0.5, 1.0], np.float32)
    given = {"parameters": PARAMETERS, "images": images}
    explain(parity_of(1e-7, 2e-4), compare, Setting("fast"), **given, drawn=False, seed=0)
    (weights, same), *moved = seen[:3]
    assert weights is PARAMETERS["weights"]
    assert same is images
    for others, pixels in moved:
        assert others.dtype == pixels.dtype == np.float32
        for now, before in ((others, weights), (pixels, images)):
            np.testing.assert_array_max_ulp(now, before, maxulp=1)
            assert (now != before).any()
            assert not now[before == 0].any()
    assert any((one != other).any() for one, other in zip(*moved, strict=True))


def test_two_of_three_sets_of_images_decide():
    """A jump at a kink on one set is no mistake; what two sets do not explain is."""
    kink, far = parity_of(1e-7, 2 * MOST), (1e-7, 2 * MOST)
    assert explained(kink)[0].passed
    assert explained(parity_of(1e-7, 0.9 * MOST), drawn=(far, (1e-7, 1e-6)))[0].passed
    assert explained(kink, drawn=(far, (1e-7, 1e-6)))[0] == kink
    near = parity_of(1e-7, 0.9 * MOST)
    assert explained(near, drawn=(far, far))[0] == near


@pytest.mark.parametrize(
    "others",
    [
        {"double": ((1e-15, 1e-9),)},
        {"double": (EXACT, EXACT, (1e-9, 1e-13))},
        {"double": ((float("nan"), 1e-13),)},
        {"drawn": ((1e-7, 2 * MOST),)},
        {"drawn": ((1e-7, 0.9 * MOST),), "drawn_double": ((1e-15, 1e-9),)},
        {"drawn": ((5e-4, 1e-6),)},
        {"drawn": ((1e-7, 1.1e-2),)},
        {"drawn": ((1e-7, float("nan")),)},
    ],
)
def test_a_mistake_fails(others):
    """Wrong in float64, or farther off on random pixels than float64's own error explains, is no rounding."""
    found = parity_of(1e-7, 0.9 * MOST)
    assert explained(found, **others)[0] == found


@pytest.mark.parametrize("errors", [(1e-7, 1.1e-2), (1.1e-3, 1e-6), (1e-7, float("nan")), (float("inf"), 1e-6)])
def test_a_large_error_fails_unasked(errors):
    """A hundred times the limit is a mistake, whatever other comparisons say."""
    found = parity_of(*errors)
    assert explained(found) == (found, [])


def test_images_that_are_random_pixels_show_their_own_errors():
    """The record then names what was found on them."""
    passed, _ = explained(parity_of(1e-7, 0.9 * MOST), pixels=True)
    assert passed.rounding.drawn_gradient_error == 0.9 * MOST


def test_nothing_else_is_explained():
    """What passed needs no explanation, and float64 has none."""
    for found, precision in ((parity_of(1e-7, 1e-6), "float32"), (parity_of(1e-7, 1e-9, "float64"), "float64")):
        setting, given = Setting("fast", precision=precision), {"parameters": PARAMETERS, "images": IMAGES}
        assert explain(found, lambda *_: pytest.fail("asked"), setting, **given, drawn=False, seed=0) == found
