"""A metric over the runs, as tables and as figures."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from printing import approved, printed_tables
from sample_records import case

from capsbench.record.history import History, Stop, Trend
from capsbench.report.trend import ASCII_LEVELS, FAILED, UNICODE_LEVELS, said, sparkline, trend_tables

MACHINES = (
    {"processor": "Some Processor 9000", "cores": 2, "memory_bytes": 8_000_000_000, "system": "Linux 6.1"},
    {"processor": "\x1b[31mOther", "architecture": "arm64"},
)


def stop(number, machine=1, **changes):
    """A run an hour after the one before."""
    fields = {"commit": f"{number:x}" * 40, "dirty": number == 3, "packages": {"torch": "2.13.0"}, **changes}
    return Stop(run=f"20261126T{number:02d}0000Z-00000{number % 10}", machine=machine, **fields)


def trend(points, key=None, machines=(1,), failures=None):
    """A row."""
    return Trend(case=key or case(), points=points, failures=failures or {}, machines=machines)


def times():
    """A metric in seconds: slower and slower, failing, on another machine, by another backend."""
    stops = [stop(number) for number in range(5)]
    stops += [stop(5, 2), stop(6, packages={"torch": "2.14.0", "numba": "0.68"}), stop(7, commit=None)]
    return History(
        metric="train_step_seconds",
        unit="s",
        direction="lower",
        exact=False,
        stops=tuple(stops),
        machines=MACHINES,
        trends=(
            trend({0: 0.2, 1: 0.201, 2: 0.199, 3: 0.25, 4: 0.26, 6: 0.31, 7: 0.3}),
            trend({5: 0.1}, machines=(2,)),
            trend(
                {0: 0.4, 2: 0.2, 4: 0.1}, case(backend="tensorflow", mode="graph"), failures={3: "oom", 7: "timeout"}
            ),
            trend({6: 0.1, 7: 0.1001}, case("cnn-seed", iterations=None)),
        ),
        skipped=("20261126T010000Z-000001: lines of records.jsonl that are damaged were skipped: 2",),
    )


def shares(direction="higher", count=3):
    """A metric that is a share, of two seeds, on one machine."""
    return History(
        metric="accuracy",
        unit="1",
        direction=direction,
        exact=False,
        stops=tuple(map(stop, range(count))),
        machines=MACHINES[:1],
        trends=tuple(trend({i: 0.9 + i / 100 + seed / 1000 for i in range(count)}, case(seed=seed)) for seed in (0, 1)),
        skipped=(),
    )


def test_the_tables_and_what_is_said_below_them():
    """Golden: rows with trend, ends, ratio, best and status; the newest runs with commits and how numbers moved."""
    parts = []
    for history in (times(), shares()):
        parts += [printed_tables(trend_tables(history, top=6), 110), "\n".join(said(history)), "\n\n"]
    text = "".join(parts)
    assert approved("history", text) == text


def test_a_console_without_blocks_gets_plain_characters():
    """The trend is ASCII where the console is; both have eight levels."""
    table, runs = trend_tables(times(), top=6, ascii_only=True)
    column = [column.header for column in table.columns].index("trend")
    assert all(row[column].text.isascii() for row in table.rows)
    assert len(set(UNICODE_LEVELS)) == len(set(ASCII_LEVELS)) == 8
    assert FAILED not in ASCII_LEVELS
    assert "x" in table.rows[2][column].text
    assert runs.rows


@pytest.mark.parametrize(("direction", "best"), [("higher", 0.92), ("lower", 0.9), ("none", None)])
def test_best_knows_the_direction(direction, best):
    """The greatest, the least, or none."""
    table, _ = trend_tables(shares(direction), top=1)
    column = [column.header for column in table.columns].index("best")
    assert table.rows[0][column].value == (best if best is None else pytest.approx(best))


def test_many_rows_are_cut_and_said():
    """Two hundred rows at most, and how to see the others."""
    many = replace(shares(), trends=tuple(trend({0: 0.9}, case(seed=seed)) for seed in range(250)))
    table, _ = trend_tables(many, top=1)
    assert len(table.rows) == 200
    assert any("the first 200 of 250 cases; --case picks others" in note for note in table.notes)


@given(
    st.dictionaries(st.integers(0, 99), st.floats(-1e300, 1e300), min_size=1),
    st.dictionaries(st.integers(0, 99), st.just("oom")),
    st.sampled_from(["s", "1"]),
)
def test_a_trend_is_as_wide_as_it_may_be(points, failures, unit):
    """One character a run, 24 at most; every run with a number has a level, whatever the numbers."""
    for levels in (UNICODE_LEVELS, ASCII_LEVELS):
        drawn = sparkline(trend(points, failures=failures), 100, unit, levels)
        assert len(drawn) == 24
        assert set(drawn) <= {*levels, FAILED, " "}
        assert all(drawn[index * 24 // 100] in levels for index in points)


def test_levels_follow_the_numbers():
    """Least and greatest are the ends; what hardly moves is drawn flat in the middle; failures have their places."""
    assert sparkline(trend({0: 1.0, 1: 2.0, 2: 3.0}), 3, "s", UNICODE_LEVELS) == "▁▅█"
    assert len(set(sparkline(trend({0: 1.0, 1: 1.001, 2: 1.002}), 3, "s", UNICODE_LEVELS))) == 1
    assert sparkline(trend({0: 5.0, 3: 5.0}, failures={1: "oom"}), 4, "s", UNICODE_LEVELS) == "▅x ▅"
    assert sparkline(trend({0: 0.0}), 1, "1", UNICODE_LEVELS) == "▅"


def test_figures_are_legible_and_the_same_every_time(tmp_path):
    """A file a network and data set, all texts apart; lines for realizations and machines, and none for seeds."""
    pytest.importorskip("matplotlib")
    from legible import assert_legible

    from capsbench.report.figures.style import style
    from capsbench.report.figures.trends import draw_history, draw_trends

    drawn = [draw_history(times(), tmp_path / name, ("png", "svg")) for name in ("one", "two")]
    assert [path.name for path in drawn[0]] == [
        f"train_step_seconds.{network}.mnist.{ending}"
        for network in ("em-seed", "cnn-seed")
        for ending in ("png", "svg")
    ]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]
    with style():
        for history in (times(), shares(count=40), shares(count=1)):
            figure = draw_trends(history, history.trends[:3], "em-seed, mnist")
            assert_legible(figure)
            names = {text.get_text() for legend in figure.legends for text in legend.get_texts()}
            apart = {"torch:eager, machine 1", "torch:eager, machine 2", "tensorflow:graph, machine 1"}
            assert names == (apart if history.unit == "s" else set())
            [panel] = figure.axes
            assert panel.get_lines()[0].get_xdata().max() == len(history.stops) - 1
            assert len(panel.get_xticks()) <= 8
