"""Which tables of profiled steps are made."""

import pytest
from sample_records import case, record

from capsbench.report import iterations, ops, peak, roofline, routing
from capsbench.report.sections import Sections, section_tables

EVERYTHING = Sections(ops="op", layers=True, iterations=True, peak=True, histograms=True)


def run():
    """Two networks, one of them with two counts of iterations."""
    return [record(), record(case("em-tiny")), record(case("em-tiny", iterations=3))]


def made(wanted):
    """The tables of all sections."""
    return list(section_tables(run(), EVERYTHING, wanted=wanted))


def test_what_is_wanted_by_title_is_what_has_that_title():
    """Of whatever title, all tables that have it come, and are the same as among all others."""
    everything = made(lambda _: True)
    titles = {table.title for table in everything}
    assert {"Most expensive ops: em-tiny", "Layers: em-tiny", "Alive at the peak: em-tiny"} <= titles
    for title in titles:
        mine = [table for table in made(title.__eq__) if table.title == title]
        assert mine == [table for table in everything if table.title == title]


def test_what_is_not_wanted_is_not_made(monkeypatch):
    """The step of a case is not looked at for a table that nobody wants."""

    def looked_at(*_, **__):
        raise AssertionError

    for module in (iterations, ops, peak, roofline, routing):
        monkeypatch.setattr(module, "of_group", looked_at)
    titles = [table.title for table in section_tables(run(), EVERYTHING, wanted="Accuracy".__eq__)]
    assert "One more routing iteration" in titles
    with pytest.raises(AssertionError):
        list(section_tables(run(), EVERYTHING, wanted="Layers: em-tiny".__eq__))
