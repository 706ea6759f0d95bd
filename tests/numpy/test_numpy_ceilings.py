"""What NumPy is timed at: the whole product, and every byte of the copy."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from capsbench.backend import Setting
from capsbench.measure import ceilings
from capsbench_numpy.backend import BACKEND
from capsbench_numpy.ceilings import copy, product


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Sizes that take no time."""
    monkeypatch.setattr(ceilings, "SIDE", 64)
    monkeypatch.setattr(ceilings, "COPIED_BYTES", 1 << 12)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_product_is_whole(precision):
    """A call multiplies two square matrices of the setting's precision, into the same memory each time."""
    multiply = product(Setting("float64", precision=precision))
    result = multiply()
    assert result.shape == (64, 64)
    assert result.dtype == precision
    assert multiply() is result
    # Entries are sums of 64 products of uniform numbers: 16 on average, with a deviation of about 1.8.
    assert result.mean() == pytest.approx(16.0, abs=1.0)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_copy_is_whole(monkeypatch, threads, precision):
    """A call copies as many bytes as the ceiling divides by, a part for each thread, none of them twice."""
    copied = []

    def spy(target, source):
        target[...] = source
        copied.append(target)

    monkeypatch.setattr(np, "copyto", spy)
    with ThreadPoolExecutor(threads) as pool:
        copy(Setting("float64", precision=precision, threads=threads), pool)()
    assert len(copied) == threads
    assert sum(part.nbytes for part in copied) == 1 << 12
    assert all((part == 1.0).all() and part.dtype == precision for part in copied)
    starts = sorted((part.__array_interface__["data"][0], part.nbytes) for part in copied)
    assert all(start + size <= after for (start, size), (after, _) in pairwise(starts))


def test_ceilings_are_rates():
    """The backend answers with two positive rates, and a rate is work over the least time."""
    found = BACKEND.ceilings(Setting("float64", threads=2))
    assert 0.0 < found.flops_per_second < 1e15
    assert 0.0 < found.bytes_per_second < 1e15
