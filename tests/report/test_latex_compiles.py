"""What is exported for LaTeX compiles and fits a page; skipped where there is no pdflatex."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from sample_records import case, exact, metrics, record
from test_export import HOSTILE

from capsbench.record.compare import compare
from capsbench.record.pairs import pair_cases
from capsbench.report.comparison import comparison_tables
from capsbench.report.export import latex
from capsbench.report.sections import Sections, section_tables
from capsbench.report.table import Cell, Column, Table
from capsbench.report.tables import report

PDFLATEX = shutil.which("pdflatex")
DOCUMENT = "\\documentclass{article}\n%s\\begin{document}\n%s\\end{document}\n"

pytestmark = pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex with booktabs")


def compiled(folder, tables):
    """What pdflatex says of a document of the tables, with the packages that their head asks for."""
    text = latex.write(tables)
    packages = "".join(f"{line}\n" for line in re.findall(r"^% (\\usepackage.*)$", text, re.MULTILINE))
    (folder / "tables.tex").write_text(DOCUMENT % (packages, text), encoding="ascii")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=600, check=False)
    said = done.stdout.decode("latin-1")
    assert done.returncode == 0, said[-2000:]
    assert (folder / "tables.pdf").stat().st_size > 1000
    return said


def test_all_tables_of_a_run_compile_and_fit(tmp_path):
    """Every table, one with many rows and long names among them, is no wider and no longer than a page."""
    broken = replace(record(case("cnn-seed", iterations=None), status="oom"), reason="asked for 3 GiB | gave up")
    many = [record(case(f"em-{'long-' * 6}{number}", seed=number)) for number in range(90)]
    records = [record(), broken, *many]
    everything = Sections(layers=True, iterations=True, peak=True, histograms=True)
    slower = record(metrics=metrics() | {"peak_bytes": exact(163_123_457, "B")})
    changes = compare(pair_cases([record()], [slower]).pairs)
    tables = [
        *report(records).tables,
        *section_tables(records[:2], everything),
        *comparison_tables(changes, everything=True, margin=0.05),
    ]
    assert len(tables) > 10
    said = compiled(tmp_path, tables)
    assert "Float too large" not in said
    too_wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([0-9.]+)pt too wide\)", said)]
    assert max(too_wide, default=0.0) < 10.0


def test_every_sign_and_any_name_compiles(tmp_path):
    """All that has a meaning to LaTeX, in title, header, cells, context and notes, and at the beginning of a row."""
    signs = "".join(map(chr, range(0x20, 0x7F))) + "–—±×·µ→≤≥λβ…é漢\n\t"
    columns = (Column(signs, "key", "left"), Column(HOSTILE))
    texts = [signs, HOSTILE, "[3pt]", "*", "]", "", *(sign * 2 for sign in signs)]
    rows = tuple((Cell(text), Cell(text[:20])) for text in texts)
    compiled(tmp_path, [Table(signs, columns, rows, context=(HOSTILE,), notes=(signs, HOSTILE), closing_rows=1)])
