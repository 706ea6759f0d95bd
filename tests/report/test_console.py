"""The tables as printed, against stored text."""

import re
from dataclasses import replace

import pytest
from printing import approved, printed, printed_tables
from rich.cells import cell_len
from sample_records import case, failed, iteration_run, record, run
from sample_seed import seed_run

from capsbench.measure.ceilings import Ceilings
from capsbench.record.ceilings import DeviceCeilings
from capsbench.report.compiled import compiled_tables
from capsbench.report.console import print_report, print_table
from capsbench.report.sections import Sections, section_tables
from capsbench.report.seed import seed_table
from capsbench.report.table import Table
from capsbench.report.tables import report

CEILINGS = (DeviceCeilings("cpu", 2, "float32", "torch", Ceilings(1.05e11, 1.2e10)),)
SECTIONS = {
    "ops": Sections(ops="phase", top=4),
    "ops-forward-phase": Sections(ops="op", top=4, phase="forward", sort="bytes"),
    "ops-evaluation": Sections(ops="op", top=4, which="forward", sort="time"),
    "layers": Sections(layers=True, top=4),
    "iterations": Sections(iterations=True),
    "peak": Sections(peak=True, top=4),
    "histograms": Sections(histograms=True),
}


def everything():
    """Every table there is, one after another."""
    for asked in SECTIONS.values():
        yield from section_tables(run(), asked, CEILINGS)
    yield from section_tables(iteration_run(), SECTIONS["iterations"])
    yield from compiled_tables(run())
    yield seed_table(seed_run())


def full_report(screen):
    """All that can be printed of a run."""
    print_report(report(run(), top=4), screen)
    for table in everything():
        print_table(table, screen)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_report_reads_as_stored(width):
    """The tables that a run ends with print exactly as they were last approved."""
    text = printed(width, lambda screen: print_report(report(run(), top=4), screen))
    assert text == approved(f"report-{width}", text)


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_reads_as_stored(name):
    """What a flag of `show` adds prints exactly as it was last approved."""
    text = printed_tables(section_tables(run(), SECTIONS[name], CEILINGS))
    assert text == approved(name, text)


def test_the_slope_reads_as_stored():
    """Several iteration counts print exactly as last approved, slopes included."""
    text = printed_tables(section_tables(iteration_run(), SECTIONS["iterations"]))
    assert text == approved("slope", text)


def test_the_claims_read_as_stored():
    """The 2018 study's claims print exactly as last approved."""
    text = printed_tables([seed_table(seed_run())])
    assert text == approved("seed", text)


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_line_is_wider_than_the_screen(width):
    """Tables are cut into blocks and notes are wrapped, so that nothing sticks out."""
    assert max(map(cell_len, printed(width, full_report).splitlines())) <= width


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_numbers_are_whole_at_any_width(width):
    """No number is cut, wrapped or shortened, however narrow the screen."""
    text = printed(width, full_report)
    assert "…" not in text
    for number in ("1,650.3", "319,568", "163.1 MB", "12.3 G", "209.8–218.8 ms", "97.31", "1.2e-06", "131.3"):
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,])", text), number


def test_a_pipe_gets_no_colours():
    """Escape sequences belong to terminals only."""
    assert "\x1b" not in printed(80, full_report)


def test_an_encoding_without_lines_and_dashes_is_no_obstacle():
    """On an ASCII stream the tables print, with other characters for those it lacks."""
    assert "BatchMatMul" in printed(80, full_report, "ascii")


HOSTILE = "[red]x[/red]\n[/]\x1b[31m\\[bold] :boom: ─│"


def test_hostile_names_are_printed_as_they_are_written():
    """Markup, line breaks, escapes and box art in names and reasons neither style nor break a table."""
    key = replace(case(), network=HOSTILE, backend=HOSTILE, mode="[b]m", device=HOSTILE)
    other = replace(key, id="other", device="cpu")
    records = [record(key, notes=(HOSTILE,)), failed(other, "crash", HOSTILE)]
    text = printed(400, lambda screen: print_report(report(records), screen))
    assert "\x1b" not in text
    assert text.count("[red]x[/red]\\n[/]\\x1b[31m\\[bold] :boom: ─│") >= 6
    rows = [line for line in text.splitlines() if line.rstrip().endswith(("  ok", "  crash (1)"))]
    assert len(rows) == 4
    assert all(line.startswith("[red]x[/red]") for line in rows)


def test_long_names_fold_and_numbers_beside_them_stay():
    """A name that is wider than a quarter of the screen goes on in the next line."""
    long = "a" * 60
    text = printed(80, lambda screen: print_report(report([record(replace(case(), network=long))]), screen))
    assert "a" * 21 not in text.replace("Most expensive ops: " + long, "")
    assert "97.31" in text


def test_an_empty_table_prints_its_header():
    """A table without rows is no error."""
    empty = Table("Nothing", report(run()).tables[0].columns, ())
    assert "network" in printed(80, lambda screen: print_table(empty, screen))
