import numpy as np
import pytest

from capsbench.dataset.guard import identical_images
from capsbench.dataset.loading import Split


def split_of(images):
    return Split(images, np.zeros(len(images), np.int64), len(images))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 2), dtype=np.uint8)


def test_disjoint_splits_share_nothing(images):
    """Different images are not reported."""
    assert identical_images(split_of(images[:30]), split_of(images[30:])) == 0


def test_every_copy_counts_once(images):
    """Each test image that is also a training image counts, repeated ones each time, whatever the place."""
    test = np.concatenate([images[[29, 3, 3]], images[30:]])
    assert identical_images(split_of(images[:30]), split_of(test)) == 3


def test_one_grey_level_makes_another_image(images):
    """An image that differs in one pixel by one is not identical."""
    near = images[:5].copy()
    near[:, 0, 0, 0] ^= 1
    assert identical_images(split_of(images), split_of(near)) == 0


def test_other_shapes_are_other_images(images):
    """The same bytes in another shape are another image."""
    assert identical_images(split_of(images), split_of(images.reshape(40, 4, 16, 2))) == 0


def test_views_are_compared_by_content(images):
    """Strided views are compared like contiguous arrays."""
    assert identical_images(split_of(images[::-1]), split_of(images[::2])) == 20
