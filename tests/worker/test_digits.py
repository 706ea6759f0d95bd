"""Transforms that have lost digits are told from rounding by what they do to the outputs."""

import numpy as np
import pytest

from capsbench.backend import Output
from capsbench.worker.digits import LIMIT, transform_error

COUNT, CLASSES, ELEMENTS = 4, 10, 16


def outputs(share, noise, slope=0.1, seed=0):
    """Outputs of a batch whose transforms are off by a share, with noise; the right ones, their slope, the order."""
    generator = np.random.default_rng(seed)
    shapes = {"scores": (COUNT, CLASSES), "poses": (COUNT, CLASSES, ELEMENTS)}
    right = {name: generator.uniform(-1.0, 1.0, shape) for name, shape in shapes.items()}
    slopes = {name: slope * generator.standard_normal(shape) for name, shape in shapes.items()}
    order = np.tile(np.arange(COUNT), 3)[::-1]
    mine = {
        name: (right[name] + share * slopes[name] + noise * generator.standard_normal(shapes[name]))[order]
        for name in shapes
    }
    made = [Output(each["scores"], each["scores"], each["poses"]) for each in (mine, right, slopes)]
    return *made, order


@pytest.mark.parametrize("seed", range(10))
def test_rounding_is_no_error_of_the_transforms(seed):
    """Errors that go in all directions, even large ones, do not count."""
    assert transform_error(*outputs(0.0, 1e-5, seed=seed)) <= LIMIT


@pytest.mark.parametrize("share", [-1.5e-5, 1.5e-5])
def test_a_share_is_found_below_the_noise(share):
    """What moves all outputs along their slope is found where it is a fraction of each output's error."""
    assert transform_error(*outputs(share, 1e-6)) == pytest.approx(1.5e-5, rel=0.3)


def test_outputs_that_do_not_depend_on_the_transforms_say_nothing():
    """Where float32 could not show the change, none is found."""
    assert transform_error(*outputs(1.5e-5, 1e-8, slope=1e-4)) == 0.0
