"""How every figure looks, so that it can be pasted into a paper: widths, fonts, colours that print in grey, files.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; neighbours differ in
lightness, and bars have hatches, lines dashes and markers of their own, so that they can be told apart in grey too.
"""

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from capsbench.dataset.atomic import whole_file
from capsbench.report import format as fmt

Format = Literal["png", "svg"]
Dash = Literal["-", "--", "-.", ":"]
COLUMN_INCHES, PAGE_INCHES = 3.4, 7.0

_DPI = 300
_LINE_INCHES = 0.15
_TITLE_CHARACTER_INCHES = 0.066  # of 8 points, of a wide letter
_LEGEND_CHARACTER_INCHES = 0.058  # of 7 points
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
_HATCHES = ("", "////", "||||", "\\\\\\\\", "xxxx", "----", "++++", "")
_DASHES: Final[tuple[Dash, ...]] = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_SETTINGS: Final[dict[Any, Any]] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "0.88",
    "grid.linewidth": 0.4,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "hatch.linewidth": 0.35,
    "text.parse_math": False,  # names are text, whatever dollars they hold
    "svg.fonttype": "none",
    "svg.hashsalt": "capsbench",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What tells one series from another: colour, and hatch, dash and marker where there is no colour."""

    color: str
    hatch: str
    dash: Dash
    marker: str


@contextmanager
def style() -> Iterator[None]:
    """Make and save figures inside, and they look like this; no setting of the caller's is read or changed."""
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        # A name in a script that the font lacks is drawn in boxes; that is no reason to draw nothing.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        yield


def look(number: int) -> Look:
    """The look of a series; the colours come again after eight, with other hatches, dashes and markers."""
    turn, index = divmod(number, len(_COLORS))
    return Look(
        _COLORS[index],
        _HATCHES[(index + 3 * turn) % len(_HATCHES)],
        _DASHES[(number + turn) % len(_DASHES)],
        _MARKERS[(index + 3 * turn) % len(_MARKERS)],
    )


def bar_handle(name: str, color: str | tuple[float, float, float], hatch: str) -> Patch:
    """A legend's entry for bars."""
    return Patch(facecolor=color, hatch=hatch, edgecolor="black", linewidth=0.3, label=short(name))


def line_handle(name: str, line: Look) -> Line2D:
    """A legend's entry for lines with markers."""
    return Line2D([], [], color=line.color, linestyle=line.dash, marker=line.marker, label=short(name))


def sheet(
    title: str,
    shape: tuple[int, int],
    size: tuple[float, float],
    handles: Sequence[Artist] = (),
    *,
    same_x: bool = False,
    same_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """An empty figure.

    Args:
        title: what all panels share.
        shape: rows and columns of panels.
        size: width and height in inches; title and legend come on top of the height.
        handles: of the legend below the panels; without any there is none.
        same_x: whether the panels of a column share their x axis, which only the lowest labels.
        same_y: whether the panels of a row share their y axis, which only the leftmost labels.

    Returns:
        The figure and its panels, row by row.
    """
    lines = textwrap.wrap(fmt.label(title), int(size[0] / _TITLE_CHARACTER_INCHES), break_on_hyphens=False) or [""]
    columns, rows = _legend_shape(handles, size[0])
    height = size[1] + _LINE_INCHES * (len(lines) + rows)
    figure = Figure(figsize=(size[0], height), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    panels = figure.subplots(
        *shape, squeeze=False, sharex="col" if same_x else False, sharey="row" if same_y else False
    )
    figure.suptitle("\n".join(lines))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure, list(panels.flat)


def short(text: str, characters: int = 44) -> str:
    """The text on one line; of a long one the middle is left out."""
    line = fmt.label(text)
    if len(line) <= characters:
        return line
    kept = characters - 1
    return f"{line[: kept - kept // 2]}…{line[len(line) - kept // 2 :]}"


def save(figure: Figure, stem: Path, formats: Sequence[Format]) -> tuple[Path, ...]:
    """Write a figure, the same bytes whenever the figure is the same; files appear whole.

    Args:
        figure: made inside `style`.
        stem: path without the ending.
        formats: endings.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    paths = []
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)  # once for all formats: it takes as long as drawing
    figure.set_layout_engine("none")
    for ending in formats:
        path = stem.with_name(f"{stem.name}.{ending}")
        metadata = {"Software": None} if ending == "png" else {"Date": None, "Creator": "capsbench"}
        with whole_file(path) as file:
            figure.savefig(file, format=ending, dpi=_DPI, metadata=metadata)
        paths.append(path)
    return tuple(paths)


def _legend_shape(handles: Sequence[Artist], width: float) -> tuple[int, int]:
    """Columns and rows of the legend: as many columns as the longest name leaves room for."""
    if not handles:
        return 0, 0
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = min(len(handles), max(1, int(width / (longest * _LEGEND_CHARACTER_INCHES + 0.45))))
    rows = math.ceil(len(handles) / columns)
    return math.ceil(len(handles) / rows), rows
