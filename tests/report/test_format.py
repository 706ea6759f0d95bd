"""Numbers as they are printed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.report import format as fmt


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (fmt.seconds(0.0123), "12.3 ms"),
        (fmt.seconds(0.99996), "1.00 s"),
        (fmt.seconds(0.009996), "10.0 ms"),
        (fmt.seconds(4.2e-7), "420.0 ns"),
        (fmt.seconds(0), "0 s"),
        (fmt.seconds(math.nan), "nan"),
        (fmt.size(163_123_456), "163.1 MB"),
        (fmt.size(512), "512 B"),
        (fmt.size(None), "—"),
        (fmt.flops(1_234_567_890), "1.23 G"),
        (fmt.flops(512), "512"),
        (fmt.count(1_234_567), "1,234,567"),
        (fmt.percent(0.97314), "97.31"),
        (fmt.error(1.234e-6), "1.2e-06"),
        (fmt.error(0.0), "0"),
        (fmt.plain_number(12_345.6), "12,346"),
        (fmt.plain_number(3.14159), "3.14"),
        (fmt.interval((0.0121, 0.0125), fmt.SECONDS), "12.1–12.5 ms"),
        (fmt.interval((0.98, 1.2), fmt.SECONDS), "0.98–1.20 s"),
        (fmt.label("a\nb\t[red]\x1b[31m"), "a\\nb\\t[red]\\x1b[31m"),
    ],
)
def test_numbers_read_as_people_write_them(text, wanted):
    """Units, separators and digits are those of the house."""
    assert text == wanted


@given(st.floats(1e-9, 1e9), st.sampled_from([fmt.SECONDS, fmt.BYTES, fmt.FLOPS]))
def test_a_quantity_is_within_its_last_digit(value, units):
    """What is printed is the number to at least three digits, or to the whole unit below that."""
    number, _, unit = fmt.quantity(value, units).partition(" ")
    size = next(each.size for each in units if each.name == unit)
    assert float(number.replace(",", "")) * size == pytest.approx(value, rel=0.0051, abs=0.51 * units[0].size)


@given(st.floats(1e-12, 1e12), st.sampled_from([fmt.SECONDS, fmt.BYTES, fmt.FLOPS]))
def test_no_quantity_has_more_digits_than_the_next_unit_saves(value, units):
    """There are at most three digits before the point, but in the largest unit."""
    number, _, unit = fmt.quantity(value, units).partition(" ")
    assert unit == units[-1].name or len(number.partition(".")[0]) <= 3


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.sampled_from([0.1, 1.0, 1e3]))
def test_rounded_parts_add_up_to_the_rounded_total(values, tick):
    """Ticks add up to the total's, and none is off by a whole one."""
    total = math.fsum(values)
    ticks = fmt.apportion(values, total, tick)
    assert abs(sum(ticks) - total / tick) <= 0.5 + 1e-6
    assert all(abs(each - value / tick) < 1 + 1e-6 for each, value in zip(ticks, values, strict=True))


@given(st.text())
def test_a_label_stays_on_its_line(text):
    """Whatever a name holds, it prints as one line that a terminal takes for text."""
    assert fmt.label(text).isprintable()


def test_bounds_that_agree_are_one_number():
    """A range of memory is written as one, unless its ends are within 10 %: then the upper one stands alone."""
    assert fmt.bounds(26.4e6, 57.95e6, fmt.BYTES) == "26.4–58.0 MB"
    assert fmt.bounds(52.7e6, 54.3e6, fmt.BYTES) == "54.3 MB"
    assert fmt.bounds(None, None, fmt.BYTES) == "—"
