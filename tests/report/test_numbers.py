"""Columns of numbers are written as their numbers are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.report import format as fmt
from capsbench.report.numbers import intervals, texts

WRITERS = (fmt.seconds, fmt.size, fmt.flops, fmt.count, fmt.percent, fmt.error, fmt.plain_number, fmt.label)
EDGES = [
    edge
    for size in (1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9, 1e12, 1e15)
    for share in (1.0, fmt.ROUNDED_UP, fmt.TWO_DECIMALS, fmt.NO_DECIMALS, 999.95)
    for edge in (size * share, math.nextafter(size * share, 0), math.nextafter(size * share, math.inf))
]
NUMBERS = st.one_of(st.none(), st.sampled_from(EDGES), st.floats(), st.floats(-2e3, 2e3), st.integers())


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@given(values=st.lists(NUMBERS))
def test_a_column_reads_as_its_numbers_one_by_one(write, values):
    """Whatever numbers come together, each has the text that it has alone."""
    assert texts(write, values) == list(map(write, values))


@given(st.lists(st.none() | st.tuples(*[st.sampled_from(EDGES) | st.floats()] * 2)))
def test_intervals_read_as_one_by_one(bounds):
    """Likewise, of their ends together."""
    assert intervals(bounds, fmt.SECONDS) == [fmt.interval(each, fmt.SECONDS) for each in bounds]
    assert intervals(bounds, fmt.BYTES) == [fmt.interval(each, fmt.BYTES) for each in bounds]
