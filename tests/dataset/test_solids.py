import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.dataset.solids import ball, beam, extent, inverse_rows, meet, placed, rod

AXES = ((0.0, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0))  # straight down; u along x, v along y
coordinate = st.floats(-1.0, 1.0)
point = st.tuples(coordinate, coordinate, coordinate)
size = st.floats(0.1, 1.0)


def from_above(solid, x=0.0, y=0.0):
    """Drop one ray from height 10 at (x, y); return the height of the hit and its normal."""
    hits = meet(solid, (x, y, 10.0), AXES, np.zeros(1), np.zeros(1))
    return 10.0 - hits.distance[0, 0], hits.normal[:, 0, 0]


@pytest.mark.parametrize(
    ("solid", "x", "height", "normal"),
    [
        (ball((0.0, 0.0, 1.0), (1.0, 1.0, 0.5)), 0.0, 1.5, (0, 0, 1)),
        (ball((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 0.6, 0.8, (0.6, 0, 0.8)),
        (beam((0.0, 0.0, 0.0), (0.0, 0.0, 2.0), (0.5, 0.5)), 0.3, 2.0, (0, 0, 1)),
        (beam((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0), (0.0, 0.0)), 0.5, 0.5, (math.sqrt(0.5), 0, math.sqrt(0.5))),
        (rod((0.0, 0.0, 0.0), (0.0, 0.0, 3.0), 1.0), 0.5, 3.0, (0, 0, 1)),
        (rod((-2.0, 0.0, 0.0), (2.0, 0.0, 0.0), 0.5), 1.0, 0.5, (0, 0, 1)),
        (rod((0.0, 0.0, 0.0), (0.0, 0.0, 2.0), 1.0, 0.5), 0.75, 1.0, (2 / math.sqrt(4.25), 0, 0.5 / math.sqrt(4.25))),
    ],
)
def test_heights_and_normals_known_by_hand(solid, x, height, normal):
    """Rays from above meet each solid at the height, and with the normal, of school geometry."""
    found, its_normal = from_above(solid, x)
    assert found == pytest.approx(height, abs=1e-9)
    assert its_normal == pytest.approx(normal, abs=1e-9)


@pytest.mark.parametrize(
    "solid",
    [
        ball((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        rod((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), 1.0),
        beam((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0)),
    ],
)
def test_rays_that_pass_by_miss(solid):
    """A ray outside the solid has an infinite distance."""
    assert from_above(solid, 1.01)[0] == -math.inf


def test_a_tilted_ball_raises_its_nose():
    """A long ball with a pitch stands higher at +x than at -x."""
    solid = ball((0.0, 0.0, 0.0), (1.0, 0.2, 0.2), pitch=30.0)
    assert from_above(solid, 0.5)[0] > from_above(solid, -0.5)[0] + 0.5


@given(start=point, end=point, radius=size, taper=st.floats(0.2, 1.0), azimuth=st.floats(0.0, 360.0))
def test_hits_lie_on_the_surface_inside_the_extent(start, end, radius, taper, azimuth):
    """Every hit on any rod, beam or ball is inside its box of extent and its normal faces the eye."""
    if math.dist(start, end) < 0.2:
        return
    middle = tuple((a + b) / 2.0 for a, b in zip(start, end, strict=True))
    shapes = (
        rod(start, end, radius, radius * taper),
        beam(start, end, (radius, 0.3), (taper, taper)),
        ball(middle, (radius, 0.3, 0.5)),
    )
    grid = np.linspace(-0.3, 0.3, 9)
    for shape in shapes:
        solid = placed(shape, 0.8, (0.0, 0.0, 0.1), azimuth)
        eye = (solid.centre[0], solid.centre[1], 10.0)
        hits = meet(solid, eye, AXES, grid, grid)
        rays = np.stack([*np.meshgrid(grid, grid), np.full((9, 9), -1.0)])
        hit = np.isfinite(hits.distance)
        places = np.array(eye)[:, None] + hits.distance[hit] * rays[:, hit]
        offsets = np.abs(places - np.array(solid.centre)[:, None])
        assert hit[4, 4]
        assert (offsets <= np.array(extent(solid))[:, None] + 1e-9).all()
        assert (np.sum(hits.normal[:, hit] * rays[:, hit], axis=0) <= 1e-9).all()
        assert np.linalg.norm(hits.normal[:, hit], axis=0) == pytest.approx(1.0)


@given(start=point, radius=size)
def test_inverse_rows_invert(start, radius):
    """The rows times the columns are the identity."""
    solid = rod(start, (start[0] + 0.3, start[1] - 0.4, start[2] + 0.5), radius)
    product = np.array(inverse_rows(solid)) @ np.array(solid.columns).T
    assert product == pytest.approx(np.eye(3), abs=1e-9)
