import numpy as np
import pytest

from capsbench.dataset.camera import Pose, on_turntable, photograph
from capsbench.dataset.solids import ball, rod


def darkness(pose):
    """Which pixels of the left eye's picture are the toy's, which is darker than its shadow: 1.0, else 0.0."""
    toy = on_turntable((rod((-1.0, 0.0, 0.3), (1.0, 0.0, 0.3), 0.3), ball((0.6, 0.0, 0.4), (0.4, 0.4, 0.4))))
    return (photograph(toy, 60.0, 0.0, [2], pose)[0, 0] < 145).astype(float)


def middle(dark):
    """The place of the darkness: column and row, in pixels."""
    return dark.sum(axis=0) @ np.arange(96) / dark.sum(), dark.sum(axis=1) @ np.arange(96) / dark.sum()


@pytest.fixture(scope="module")
def upright():
    """The darkness of a toy in the middle, smaller than the picture."""
    return darkness(Pose(size=0.7))


def test_a_toy_moves_in_the_picture_as_on_the_table(upright):
    """To the right is to the right; away is up, foreshortened; and the toy keeps its look."""
    column, row = middle(upright)
    right = middle(darkness(Pose(size=0.7, right=0.25)))
    away = middle(darkness(Pose(size=0.7, away=0.25)))
    pixels = 0.25 / 1.04 * 48
    assert right == pytest.approx((column + pixels, row), abs=1.5)
    assert away[0] == pytest.approx(column, abs=1.5)
    assert row - pixels < away[1] < row - 0.6 * pixels


def test_a_smaller_toy_covers_less(upright):
    """Half the size is about a quarter of the area, and some more where the dark shadow under it is counted."""
    covered = [(dark > 0.0).sum() for dark in (darkness(Pose(size=0.35)), upright)]
    assert 0.2 < covered[0] / covered[1] < 0.4


def slope(dark):
    """The angle of the toy's long axis in the picture, in degrees."""
    rows, columns = np.nonzero(dark)
    x, y = np.linalg.eigh(np.cov(columns, -rows))[1][:, 1]
    return np.degrees(np.arctan(y / x))


@pytest.mark.parametrize("roll", [-20.0, 20.0])
def test_a_camera_that_rolls_turns_the_picture(upright, roll):
    """The picture turns by the angle of the roll, the other way."""
    assert slope(darkness(Pose(size=0.7, roll=roll))) == pytest.approx(slope(upright) - roll, abs=3.0)
