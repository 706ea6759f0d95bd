from dataclasses import replace

import numpy as np
import pytest

from capsbench.dataset import protocols
from capsbench.dataset.chosen import Chosen
from capsbench.dataset.guard import Findings, examine, identical_images
from capsbench.dataset.loading import Split
from capsbench.dataset.smallnorb import Factors


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 2), dtype=np.uint8)


def split_of(images, labels=None, instance=0, azimuth=0, elevation=30):
    """A split whose images all have the same factors, or each its own where a sequence is given."""
    count = len(images)
    columns = (np.broadcast_to(np.asarray(each, np.int64), count) for each in (instance, elevation, azimuth, 0))
    labels = np.zeros(count, np.int64) if labels is None else labels
    return Split(images, labels, count, Factors(*columns))


def test_disjoint_splits_share_nothing(images):
    """Different images are not reported."""
    assert identical_images(images[:30], images[30:]) == 0


def test_every_copy_counts_once(images):
    """Each test image that is also a training image counts, repeated ones each time, whatever the place."""
    assert identical_images(images[:30], np.concatenate([images[[29, 3, 3]], images[30:]])) == 3


def test_one_grey_level_makes_another_image(images):
    """An image that differs in one pixel by one is not identical."""
    near = images[:5].copy()
    near[:, 0, 0, 0] ^= 1
    assert identical_images(images, near) == 0


def test_other_shapes_are_other_images(images):
    """The same bytes in another shape are another image."""
    assert identical_images(images, images.reshape(40, 4, 16, 2)) == 0


def test_views_are_compared_by_content(images):
    """Strided views and chosen images are compared like contiguous arrays."""
    assert identical_images(images[::-1], images[::2]) == 20
    assert identical_images(images, Chosen(images, np.array([3, 1, 3]))) == 3


def test_an_honest_split_violates_nothing(images):
    """Other images of other toys from other sides are what a protocol asks for."""
    protocol = protocols.load("smallnorb-novel-azimuth")
    train = split_of(images[:20], instance=4, azimuth=320)
    test = split_of(images[20:30], instance=0, azimuth=100)
    familiar = split_of(images[30:], instance=0, azimuth=320)
    assert examine(protocol, {"train": train, "test": test, "familiar": familiar}) == Findings()


def test_identical_images_are_counted_against_what_is_allowed(images):
    """More identical images than the protocol allows are a violation of that number, as many are not."""
    protocol = replace(protocols.load("mnist"), identical_images=2)
    train = Split(images[:30], np.zeros(30, np.int64), 30)
    two, three = (Split(images[30 - n : 35], np.zeros(5 + n, np.int64), 99) for n in (2, 3))
    allowed = Findings(remarks=("2 test images are identical to training images, and mnist allows 2",))
    assert examine(protocol, {"train": train, "test": two}) == allowed
    refused = Findings(("3 test images are identical to training images, and mnist allows 2",))
    assert examine(protocol, {"train": train, "test": three}) == refused


def test_a_toy_on_both_sides_is_a_violation(images):
    """The same instance of the same category must not train and test; of another category it is another toy."""
    protocol = protocols.load("smallnorb")
    train = split_of(images[:20], labels=np.full(20, 1), instance=4)
    other = split_of(images[20:], labels=np.full(20, 2), instance=4)
    same = split_of(images[20:], labels=np.full(20, 1), instance=np.arange(20) % 10)
    assert examine(protocol, {"train": train, "test": other}) == Findings()
    [said] = examine(protocol, {"train": train, "test": same}).violations
    assert said == "1 toys are in the training and in the test images, the first is instance 4 of category 1"


def test_viewpoints_out_of_place_are_a_violation(images):
    """An image from a side that the protocol keeps for another part is found, in training and in test."""
    protocol = protocols.load("smallnorb-novel-elevation")
    train = split_of(images[:20], instance=4, elevation=[30] * 18 + [50] * 2)
    test = split_of(images[20:], instance=0, elevation=50)
    said = examine(protocol, {"train": train, "test": test}).violations
    assert said == (
        "2 train images are seen from viewpoints that smallnorb-novel-elevation does not put there",
        "the elevation is to be new in the test images, but both sides have 50 degrees",
    )
