from hypothesis import given
from hypothesis import strategies as st

from capsbench.stats.settle import is_settled, is_warm

SECONDS = st.floats(1e-6, 1e3)


@given(st.lists(SECONDS, max_size=4))
def test_fewer_than_five_samples_never_settle(samples):
    """Three medians of three neighbours need five samples."""
    assert not is_settled(samples)


@given(SECONDS, st.integers(5, 40))
def test_a_constant_settles(seconds, count):
    """Equal samples have settled as soon as there are enough of them."""
    assert is_settled([seconds] * count)


@given(SECONDS, st.integers(0, 4), st.floats(1.0, 1e6))
def test_one_outlier_does_not_unsettle(seconds, where, factor):
    """A single outlier among the last five changes no median of three beyond its neighbours."""
    samples = [seconds] * 5
    samples[where] *= factor
    assert is_settled(samples)


@given(SECONDS, st.floats(0.5, 0.9))
def test_a_steady_fall_has_not_settled(start, factor):
    """While every sample is a tenth or more below the one before, the process is not warm."""
    assert not is_settled([start * factor**i for i in range(8)])


@given(st.lists(SECONDS, min_size=1, max_size=30), SECONDS)
def test_scale_does_not_matter(samples, factor):
    """Whether samples have settled does not depend on the unit they are in, up to rounding at the edge."""
    if is_settled(samples, tolerance=0.049):
        assert is_settled([sample * factor for sample in samples], tolerance=0.051)


def test_caps_end_the_warmup():
    """A process that never settles is warm after the calls or the seconds it was allowed."""
    wild = [1.0, 10.0, 100.0, 1.0, 1000.0]
    assert not is_warm(wild, max_samples=6, max_seconds=1e6)
    assert is_warm(wild, max_samples=5, max_seconds=1e6)
    assert is_warm(wild[:2], max_samples=50, max_seconds=11.0)
