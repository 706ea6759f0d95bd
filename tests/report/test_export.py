"""Tables in other formats: nothing is lost where a machine reads them, nothing becomes markup where a person does."""

import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from printing import approved
from sample_records import case, metrics, record

from capsbench.errors import BadInput
from capsbench.report.export import comma, latex, markdown, plainjson, write
from capsbench.report.table import Cell, Column, Table
from capsbench.report.tables import report

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)
HOSTILE = r"\input{x} <script>|`a`|_b_ ![c](http://d) www.e.f $g$ 100 % #1 & ~^ {--} ''h'' 'i' \"j\""


def sample():
    """Tables of a run with a failure and a hostile name."""
    slow = record(case("cnn-seed", iterations=None), metrics=metrics(2.0, 0.9912))
    broken = replace(record(case(HOSTILE), status="oom"), reason="asked for 3 GiB | gave up")
    return report([record(), slow, broken]).tables


@st.composite
def tables(draw):
    """Tables of any shape whose columns are numbers with a unit, or texts."""
    kinds = draw(st.lists(st.sampled_from(["", "s", "B", "share"]), min_size=1, max_size=5))
    number = st.floats(allow_nan=False, allow_infinity=False)

    def of(unit):
        if not unit:
            return WORDS.map(Cell)
        return st.just(Cell("—")) | st.builds(lambda value: Cell(f"{value:.3g} {unit}", value, unit), number)

    rows = draw(st.lists(st.tuples(*map(of, kinds)), max_size=4))
    heads = draw(st.lists(WORDS.map(lambda word: word.replace("[", "(")), min_size=len(kinds), max_size=len(kinds)))
    columns = tuple(map(Column, heads))
    said = st.lists(WORDS, max_size=2).map(tuple)
    return Table(draw(WORDS), columns, tuple(rows), context=draw(said), notes=draw(said))


@given(st.lists(tables(), max_size=3))
def test_json_comes_back_as_it_was(found):
    """Titles, columns, texts, exact values, units, context and notes."""
    assert plainjson.read(plainjson.write(found)) == tuple(found)


@given(st.lists(tables(), max_size=3))
def test_csv_comes_back_as_it_was(found):
    """Texts, exact values and units by title and header; alignment and what is only printing is not kept."""
    back = comma.read(comma.write(found))
    assert [table.title for table in back] == [table.title for table in found]
    for read, table in zip(back, found, strict=True):
        assert [c.header for c in read.columns] == [" ".join(c.header.split()) for c in table.columns]
        assert [[(c.text, c.value) for c in row] for row in read.rows] == [
            [(c.text, c.value) for c in row] for row in table.rows
        ]
        assert (read.context, read.notes) == (table.context, table.notes)


def test_the_tables_of_a_run_come_back():
    """Every table that a run ends with, from both formats that machines read; exact values to the last digit."""
    found = sample()
    assert len(found) > 3
    assert plainjson.read(plainjson.write(found)) == found
    back = comma.read(comma.write(found))
    for read, table in zip(back, found, strict=True):
        assert [[c.text for c in row] for row in read.rows] == [[c.text for c in row] for row in table.rows]
        for got, row in zip(read.rows, table.rows, strict=True):
            assert [c.value for c in got if c.unit] == [c.value for c in row if c.unit and c.value is not None]


def test_times_and_bytes_have_their_unit():
    """The header of the exact value names it, and the text has a unit a person reads."""
    [cost] = [table for table in sample() if table.title == "Cost"]
    header = comma.write([cost]).splitlines()[1].split(",")
    assert {"peak [B]", "time: train step [s]", "size: train FLOPs [FLOP]"} <= set(header)


@pytest.mark.parametrize("kind", ["md", "latex"])
def test_what_people_read(kind):
    """Golden: the tables of a run for GitHub and for LaTeX."""
    text = write(kind, sample()[:2])
    assert approved(f"export_{kind}", text) == text


def test_markdown_is_never_markup():
    """A hostile name is one cell: as many bars as the header has, no tag, link, emphasis or code."""
    [table, *_] = sample()
    lines = [line for line in markdown.write([table]).splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    told = markdown.escape(HOSTILE)
    assert not re.search(r"(?<!\\)[<>`*_\[\]]|://|www\.", told)


@given(st.text(max_size=30))
def test_latex_is_never_a_command(text):
    """Whatever the text, all that LaTeX takes for its own is escaped, braces are balanced and nothing leaves ASCII."""
    told = latex.escape(text)
    assert told.isascii()
    assert "\n" not in told
    commands = re.sub(r"\\[a-zA-Z]+(\{\})?|\\[{}$&#_%]|\$\\[a-z]+\$", "", told)
    assert not re.search(r"[\\$&#_%~^<>|\"]", commands)
    assert commands.replace("-{}", "").count("{") == commands.replace("-{}", "").count("}") == 0


@pytest.mark.parametrize("name", ["[3pt]", "*"])
def test_latex_takes_no_cell_for_an_argument(name):
    r"""A row that begins with a bracket or an asterisk is no argument of the `\\` or rule before it."""
    text = latex.write([Table("t", (Column("a"), Column("b")), ((Cell(name), Cell("1")),) * 2)])
    assert text.count(rf"\relax {name} & 1 \\") == 2


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tables": [1]}', "{" * 5000])
def test_other_json_is_refused(text):
    """One sentence, no traceback."""
    with pytest.raises(BadInput, match="no JSON of capsbench"):
        plainjson.read(text)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "# title\n", "# title\na,b\n1\n"])
def test_other_csv_is_refused(text):
    """Likewise."""
    with pytest.raises(BadInput, match="no CSV of capsbench"):
        comma.read(text)


def test_json_is_strict():
    """What is not finite is null beside its text."""
    table = Table("t", (Column("a"),), ((Cell("nan", math.nan, "s"),),))
    assert json.loads(plainjson.write([table]))["tables"][0]["rows"] == [[{"text": "nan", "value": None, "unit": "s"}]]
