"""How a batch is shared among replicas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.network.shards import shards


@given(st.integers(1, 70), st.integers(1, 9))
def test_every_image_counts_once(count, replicas):
    """In order, in shares that differ by one image at most; whoever has none is given one that weighs nothing."""
    found = shards(count, replicas)
    rows = np.concatenate([np.arange(count)[each.images] for each in found if each.weight])
    np.testing.assert_array_equal(rows, np.arange(count))
    assert all(len(np.arange(count)[each.images]) >= 1 for each in found)
    counts = [each.counted for each in found]
    assert len(counts) == replicas
    assert max(counts) - min(counts) <= 1
    assert sum(each.weight for each in found) == pytest.approx(1.0, abs=1e-12)


@given(st.integers(1, 40), st.integers(1, 7))
def test_weighted_means_are_the_mean(count, replicas):
    """Also where the batch does not divide by the number of replicas."""
    losses = np.random.default_rng(count).random(count)
    whole = sum(each.weight * losses[each.images].mean() for each in shards(count, replicas))
    assert whole == pytest.approx(losses.mean(), rel=1e-12)
