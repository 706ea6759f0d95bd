"""Bars of where a train step's bytes and time go: the heaviest ops, and the layers in the network's order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from capsbench.measure.optable import OpEvent, Phase
from capsbench.report import format as fmt
from capsbench.report.figures.style import COLUMN_INCHES, PAGE_INCHES, Look, bar_handle, look, sheet, short
from capsbench.report.groups import Group
from capsbench.report.ops import NO_LAYER, event_key
from capsbench.report.parts import BEFORE_LINE, UNATTRIBUTED_LINE, VIEWS_LINE, Key, Part, parts

TOP_OPS = 8
_BAR_INCHES, _GAP_INCHES, _AXIS_INCHES, _MOST_INCHES = 0.1, 0.06, 0.42, 8.0
_PHASES: Final[tuple[Phase, ...]] = ("forward", "backward", "optimizer")
_TINTS = (1.0, 0.55, 0.2)
_CLOSING_TINT = 0.35
_PHASE_HATCHES = ("", "////", "xxxx")
_QUANTITIES = {
    "allocated_bytes": ("Allocated", fmt.BYTES),
    "live_bytes": ("Alive at the peak", fmt.BYTES),
    "seconds": ("Self time", fmt.SECONDS),
}


@dataclass(frozen=True, slots=True)
class _Segment:
    """A piece of a bar: its length, how strong its colour is, its hatch."""

    value: float
    tint: float
    hatch: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A name, and the bar of each realization, in segments."""

    name: str
    bars: tuple[tuple[_Segment, ...], ...]


def draw_ops(group: Group, title: str) -> Figure | None:
    """The heaviest ops of a train step by bytes and by time, a bar a realization; None where none was profiled."""
    sides = parts(group, "train_step", event_key("op"))
    if not sides:
        return None
    panels = {quantity: _op_rows(sides, quantity) for quantity in ("allocated_bytes", "seconds")}
    height = _height(max(map(len, panels.values())), len(sides))
    handles = [bar_handle(side.name, look(i).color, look(i).hatch) for i, side in enumerate(sides)]
    shape, size = _shape(len(panels), len(sides), height)
    figure, axes = sheet(title, shape, size, handles if len(sides) > 1 else ())
    for panel, (quantity, rows) in zip(axes, panels.items(), strict=True):
        _draw(panel, rows, quantity)
    return figure


def draw_layers(group: Group, title: str) -> Figure | None:
    """Bytes asked for, bytes alive at the peak and time of each layer, phases stacked; None where nothing was profiled.

    The layers stand in the network's order, below them what belongs to no layer.
    """
    sides = parts(group, "train_step", _phase_and_layer)
    if not sides:
        return None
    names = _layer_names(sides)
    alive = any(part.total.live_bytes for part in sides)
    quantities = [name for name in _QUANTITIES if alive or name != "live_bytes"]
    handles = [bar_handle(part.name, look(i).color, "") for i, part in enumerate(sides)] if len(sides) > 1 else []
    plain = look(0).color if len(sides) == 1 else "0.3"
    for phase, tint, hatch in zip(_PHASES, _TINTS, _PHASE_HATCHES, strict=True):
        if any(kind == phase for part in sides for kind, _ in part.lines):
            handles.append(bar_handle(phase, _tinted(plain, tint), hatch))
    shape, size = _shape(len(quantities), len(sides), _height(len(names), len(sides)))
    figure, axes = sheet(title, shape, size, handles, same_y=True)
    for panel, quantity in zip(axes, quantities, strict=True):
        _draw(panel, _layer_rows(sides, names, quantity), quantity)
    return figure


def _phase_and_layer(event: OpEvent) -> Key:
    return event.phase, event.layer if event.layer is not None else NO_LAYER


def _op_rows(sides: Sequence[Part], quantity: str) -> list[_Row]:
    """The ops that are heaviest in any realization, then what the others come to."""
    closing = (VIEWS_LINE, UNATTRIBUTED_LINE)
    keys = {key for part in sides for key in part.lines} - {*closing, BEFORE_LINE}
    ranked = sorted(keys, key=lambda key: (-max(_value(part, [key], quantity) for part in sides), key))
    shown, others = ranked[:TOP_OPS], ranked[TOP_OPS:]
    lines = [(name, [(kind, name)]) for kind, name in shown]
    lines += [(f"{len(others)} other op{'s' if len(others) > 1 else ''}", others)]
    lines += [(line[1], [line]) for line in closing]
    rows = []
    for name, held in lines:
        values = [_value(part, held, quantity) for part in sides]
        if any(values):
            rows.append(_Row(name, tuple((_Segment(value, 1.0, look(i).hatch),) for i, value in enumerate(values))))
    return rows


def _layer_names(sides: Sequence[Part]) -> list[str]:
    """The layers that have ops, in the network's order; those that its equations do not know behind."""
    named = {name for part in sides for kind, name in part.lines if kind in _PHASES}
    known = dict.fromkeys(cost.layer for part in sides for cost in part.record.equations)
    layers = [name for name in known if name in named]
    layers += sorted(named - {*known, NO_LAYER})
    layers += [NO_LAYER] if NO_LAYER in named else []
    closing = [line for line in (BEFORE_LINE, UNATTRIBUTED_LINE) if any(_any_in(part, line) for part in sides)]
    return [*layers, *(name for _, name in closing)]


def _any_in(part: Part, line: Key) -> bool:
    return any(_value(part, [line], quantity) for quantity in _QUANTITIES)


def _layer_rows(sides: Sequence[Part], names: Sequence[str], quantity: str) -> list[_Row]:
    return [_Row(name, tuple(_stack(part, name, quantity) for part in sides)) for name in names]


def _stack(part: Part, name: str, quantity: str) -> tuple[_Segment, ...]:
    phases = zip(_PHASES, _TINTS, _PHASE_HATCHES, strict=True)
    stack = [_Segment(_value(part, [(phase, name)], quantity), tint, hatch) for phase, tint, hatch in phases]
    return (*stack, _Segment(_value(part, [("", name)], quantity), _CLOSING_TINT, ""))


def _value(part: Part, lines: Iterable[Key], quantity: str) -> float:
    return float(sum(getattr(part.lines[line], quantity) for line in lines if line in part.lines))


def _height(rows: int, sides: int) -> float:
    """Inches of a panel with so many rows of bars."""
    return min(_MOST_INCHES, rows * (sides * _BAR_INCHES + _GAP_INCHES)) + _AXIS_INCHES


def _shape(panels: int, sides: int, height: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """Rows and columns of panels and inches of them all: a column of text for one case, a page for several."""
    if sides == 1:
        return (panels, 1), (COLUMN_INCHES, panels * height)
    return (1, panels), (PAGE_INCHES, height)


def _draw(panel: Axes, rows: Sequence[_Row], quantity: str) -> None:
    what, units = _QUANTITIES[quantity]
    longest = max((abs(sum(piece.value for piece in bar)) for row in rows for bar in row.bars), default=0.0)
    unit = fmt.common_unit(longest, units)
    for number, row in enumerate(rows):
        thickness = _BAR_INCHES / (len(row.bars) * _BAR_INCHES + _GAP_INCHES)
        for side, bar in enumerate(row.bars):
            middle = number + thickness * (side - (len(row.bars) - 1) / 2)
            _draw_bar(panel, middle, thickness, bar, look(side), unit.size)
    panel.set_yticks(range(len(rows)), [short(row.name, 22) for row in rows])
    panel.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    if panel.dataLim.xmin >= 0.0:
        panel.set_xlim(left=0.0)
    panel.set_xlabel(f"{what} ({unit.name})")
    panel.tick_params(axis="y", length=0)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.grid(axis="x")


def _draw_bar(
    panel: Axes, middle: float, thickness: float, bar: Sequence[_Segment], colors: Look, scale: float
) -> None:
    left = 0.0
    for piece in bar:
        if piece.value:
            width = piece.value / scale
            panel.barh(
                middle,
                width,
                thickness,
                left,
                color=_tinted(colors.color, piece.tint),
                hatch=piece.hatch,
                edgecolor="black",
                linewidth=0.3,
            )
            left += width


def _tinted(color: str, strength: float) -> tuple[float, float, float]:
    """The colour mixed with white."""
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue
