import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.dataset.affine import Affine, draw_maps, warp

SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 12), st.integers(2, 12), st.integers(1, 2))


def images_of(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def matrix(rows):
    return np.array([rows], dtype=np.float64)


@given(SHAPES)
def test_no_map_changes_nothing(shape):
    """Ranges of zero leave every image as it is, to the bit."""
    images = images_of(shape)
    np.testing.assert_array_equal(warp(images, draw_maps(Affine(), np.arange(shape[0]))), images)


@given(SHAPES, st.integers(-5, 5), st.integers(-5, 5))
def test_whole_shifts_move_pixels(shape, down, right):
    """A shift by whole pixels moves every pixel, exactly, and zeros come in from the edge."""
    images = images_of(shape)
    height, width = shape[1:3]
    maps = np.repeat(matrix([[1, 0, down], [0, 1, right]]), len(images), axis=0)
    expected = np.zeros_like(images)
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                expected[:, row, column] = images[:, row - down, column - right]
    np.testing.assert_array_equal(warp(images, maps), expected)


def test_a_quarter_turn_is_a_quarter_turn():
    """A rotation by 90 degrees is NumPy's own."""
    images = images_of((2, 7, 7, 2))
    maps = np.repeat(matrix([[0, -1, 0], [1, 0, 0]]), 2, axis=0)
    np.testing.assert_allclose(warp(images, maps), np.rot90(images, 1, axes=(1, 2)), atol=1e-6)


def test_interpolation_is_exact_on_planes():
    """Inside, an image that is a linear function of the place stays one under any map."""
    rows, columns = np.meshgrid(np.arange(15.0) - 7, np.arange(15.0) - 7, indexing="ij")
    image = (0.3 * rows - 0.7 * columns)[None, :, :, None].astype(np.float32)
    turn = draw_maps(Affine(rotation_degrees=30.0, shear=0.2, scale=0.2), np.arange(1))
    moved = warp(image, turn)[0, 5:10, 5:10, 0]
    back = np.linalg.inv(turn[0, :, :2])
    places = np.einsum("ij,jrc->irc", back, np.stack([rows, columns]))[:, 5:10, 5:10]
    np.testing.assert_allclose(moved, 0.3 * places[0] - 0.7 * places[1], atol=1e-5)


def test_maps_stay_in_their_ranges():
    """Angles, factors and shifts lie where they may, and use the whole of their ranges."""
    affine = Affine(rotation_degrees=20.0, scale=0.3, shift=2)
    maps = draw_maps(affine, np.arange(400))
    stretch = np.linalg.norm(maps[:, :, :2], axis=1)
    assert 0.7 <= stretch.min() < 0.72
    assert 1.28 < stretch.max() <= 1.3
    angles = np.rad2deg(np.arctan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert -20.0 <= angles.min() < -18.0
    assert 18.0 < angles.max() <= 20.0
    assert set(np.unique(maps[:, :, 2])) == {-2.0, -1.0, 0.0, 1.0, 2.0}


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_a_map_belongs_to_its_place(places):
    """An image has the same map whatever stands beside it in the batch."""
    affine = Affine(rotation_degrees=20.0, shear=0.2, scale=0.2, shift=4)
    together = draw_maps(affine, np.array(places))
    for place, one in zip(places, together, strict=True):
        np.testing.assert_array_equal(draw_maps(affine, np.array([place]))[0], one)


def test_the_maps_are_pinned():
    """The map of an image never changes, for runs of different versions are compared."""
    drawn = draw_maps(Affine(rotation_degrees=20.0, shear=0.2, scale=0.2, shift=4), np.array([0]))
    pinned = [[1.0403054957527516, 0.29462884280826324, -4.0], [-0.4326913704406971, 0.9899512967132255, -1.0]]
    np.testing.assert_allclose(drawn[0], pinned, rtol=1e-12)


@pytest.mark.parametrize("changes", [{"scale": 1.0}, {"shear": -0.1}, {"rotation_degrees": 181.0}, {"shift": -1}])
def test_impossible_ranges_are_refused(changes):
    """A range that turns an image inside out, or is none, is no Affine."""
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError):
        TypeAdapter(Affine).validate_python(changes)
