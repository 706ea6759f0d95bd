"""Which tables of profiled steps are made."""

from collections import Counter
from dataclasses import replace

import pytest
from sample_records import case, record

from capsbench.report import iterations, ops, peak, roofline, routing
from capsbench.report.groups import groups, tables_of
from capsbench.report.sections import Sections, group_makers, section_tables
from capsbench.store import records as lazy
from capsbench.store.runs import create

EVERYTHING = Sections(ops="op", layers=True, iterations=True, peak=True, histograms=True)


def run():
    """Two networks, one of them with two counts of iterations."""
    return [record(), record(case("em-tiny")), record(case("em-tiny", iterations=3))]


def made(wanted):
    """The tables of groups in all sections."""
    makers = group_makers(run(), EVERYTHING, ())
    return [table for group in groups(run()) for table in tables_of(group, makers, wanted)]


def test_what_is_wanted_by_title_is_what_has_that_title():
    """Of whatever title, all tables that have it come, and are the same as among all others."""
    everything = made(lambda _: True)
    assert [table for table in section_tables(run(), EVERYTHING) if table in everything] == everything
    titles = {table.title for table in everything}
    assert {"Most expensive ops: em-tiny", "Layers: em-tiny", "Alive at the peak: em-tiny"} <= titles
    for title in titles:
        assert made(title.__eq__) == [table for table in everything if table.title == title]


def test_what_is_not_wanted_is_not_made(monkeypatch):
    """The step of a case is not looked at for a table that nobody wants."""

    def looked_at(*_, **__):
        raise AssertionError

    for module in (iterations, ops, peak, roofline, routing):
        monkeypatch.setattr(module, "of_group", looked_at)
    assert made("Accuracy".__eq__) == []
    with pytest.raises(AssertionError):
        made("Layers: em-tiny".__eq__)


def test_a_step_is_read_once_for_all_tables(monkeypatch, tmp_path):
    """Each record with a profiled step is read once for the tables of its group, though only the last read is kept."""
    store = create(tmp_path, {})
    for each in [*run(), record(case("em-tiny", mode="tiled"))]:
        store.append(replace(each, routing=(), distributions=()))
    read = Counter()
    monkeypatch.setattr(lazy, "_KEPT", 1)
    whole = lazy.read_records
    monkeypatch.setattr(lazy, "read_records", lambda *a: read.update(a[2]) or whole(*a))
    records = store.stored_records()
    assert len([*section_tables(records, EVERYTHING)]) > 3 * len(records)
    assert [*read.values()] == [1, 1, 1, 1]
