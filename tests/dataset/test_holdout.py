"""Which training images are held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.dataset.holdout import hold_out
from capsbench.dataset.loading import Split, split_sha256
from capsbench.errors import BadInput


def split_of(count, first=0):
    """A split whose labels count its images."""
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 1), dtype=np.uint8)
    return Split(images, np.arange(first, first + count), 1_000)


@given(st.integers(2, 60), st.floats(0.001, 0.98))
def test_every_image_is_in_one_part(count, share):
    """Both parts together are the split, each in its order, images beside their labels; the share is rounded up."""
    split = split_of(count)
    if np.ceil(share * count) == count:
        return
    train, held_out = hold_out(split, share)
    assert len(held_out.labels) == np.ceil(share * count)
    assert sorted([*train.labels, *held_out.labels]) == list(range(count))
    for part in (train, held_out):
        assert list(part.labels) == sorted(part.labels)
        np.testing.assert_array_equal(part.images[:], split.images[part.labels])
        assert part.full_count == 1_000
    assert len(set(map(split_sha256, (split, train, held_out)))) == 3


@given(st.integers(3, 60), st.floats(0.001, 0.5))
def test_views_of_one_toy_stay_together(count, share):
    """Images that follow one another two by two are in the same part, and one over counts as two."""
    train, held_out = hold_out(split_of(count), share, together=2)
    assert sorted([*train.labels, *held_out.labels]) == list(range(count))
    assert not set(train.labels // 2) & set(held_out.labels // 2)
    assert len(set(held_out.labels // 2)) == np.ceil(share * np.ceil(count / 2))


def test_the_data_alone_decide():
    """The same data part alike, others otherwise, and not at the front or end."""
    first, again, other = (hold_out(split_of(100, first), 0.2)[1] for first in (0, 0, 1))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert split_sha256(first) == split_sha256(again)
    assert set(first.labels) != set(other.labels - 1)
    assert {0, 1, 2, 3, 4} != set(range(5)) & set(first.labels)
    assert 20 < first.labels.mean() < 80


def test_something_must_remain():
    """A share that leaves nothing to train on is refused."""
    with pytest.raises(BadInput, match="holding out 2 of 2 training images leaves none"):
        hold_out(split_of(2), 0.9)
