"""Lines: what a train step takes as the batch grows, and as routing goes through more iterations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from capsbench.record.schema import Metric, Record
from capsbench.report import format as fmt
from capsbench.report.figures.style import COLUMN_INCHES, PAGE_INCHES, line_handle, look, sheet
from capsbench.report.groups import realization_names

Along = Literal["batch", "routing_iterations"]

_PANEL_INCHES = 1.7
_DECADES_FROM = 300.0  # an axis that reaches further has ticks at powers of ten only
_ALONG: Final[dict[Along, str]] = {"batch": "Batch", "routing_iterations": "Routing iterations"}
_FIXED: Final[dict[Along, str]] = {"batch": "batch {}", "routing_iterations": "{} routing iterations"}
_QUANTITIES: Final = {
    "train_step_seconds": ("Train step", fmt.SECONDS),
    "peak_bytes": ("Peak memory", fmt.BYTES),
}


def draw_scaling(records: Sequence[Record], title: str) -> Figure | None:
    """Time and peak memory of a train step along each axis that has several values, a line a realization.

    Along one axis the other stands still, where most cases were measured; of several seeds the first is drawn. Times
    have the interval of their median as a bar.

    Args:
        records: of one network and data set.
        title: what they share.

    Returns:
        The figure; None where no axis has several values, or nothing was measured along it.
    """
    measured = [record for record in records if set(_QUANTITIES) & set(record.metrics)]
    fixed = {along: _standing(measured, along) for along in _ALONG}
    alongs = [along for along in _ALONG if len({_at(record, along) for record in _slice(measured, fixed, along)}) > 1]
    if not alongs:
        return None
    names = list(dict.fromkeys(realization_names(measured)))
    handles = [line_handle(name, look(i)) for i, name in enumerate(names)]
    width = COLUMN_INCHES if len(alongs) == 1 else PAGE_INCHES
    shape = (len(_QUANTITIES), len(alongs))
    size = width, shape[0] * _PANEL_INCHES
    figure, panels = sheet(title, shape, size, handles, same_x=True, same_y=True)
    places = [(quantity, along) for quantity in _QUANTITIES for along in alongs]
    for panel, (quantity, along) in zip(panels, places, strict=True):
        chosen = _slice(measured, fixed, along)
        by_name = _by_name(chosen, realization_names(chosen))
        for number, name in enumerate(names):
            _draw(panel, number, by_name.get(name, ()), quantity, along)
        _scale(panel, sorted({_at(record, along) for record in chosen}), _QUANTITIES[quantity][1])
        if along == alongs[0]:
            panel.set_ylabel(_QUANTITIES[quantity][0])
        if quantity == next(iter(_QUANTITIES)):
            panel.set_title(_others(fixed, along))
    for panel, along in zip(panels[-shape[1] :], alongs, strict=True):
        panel.set_xlabel(_ALONG[along])
    return figure


def _at(record: Record, along: Along) -> int:
    value = getattr(record.case, along)
    return 0 if value is None else int(value)


def _standing(records: Sequence[Record], along: Along) -> int:
    """Where an axis stands still: at the value that most cases have, the larger one of several."""
    counts = Counter(_at(record, along) for record in records)
    return max(counts, key=lambda value: (counts[value], value), default=0)


def _slice(records: Sequence[Record], fixed: Mapping[Along, int], along: Along) -> list[Record]:
    """The cases that differ along one axis only."""
    return [record for record in records if all(_at(record, o) == fixed[o] for o in _ALONG if o != along)]


def _others(fixed: Mapping[Along, int], along: Along) -> str:
    """What stands still, in words."""
    return ", ".join(_FIXED[other].format(fixed[other]) for other in _ALONG if other != along and fixed[other])


def _by_name(records: Sequence[Record], names: Sequence[str]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for name, record in zip(names, records, strict=True):
        found.setdefault(name, []).append(record)
    return found


def _draw(panel: Axes, number: int, records: Sequence[Record], quantity: str, along: Along) -> None:
    points: dict[int, Metric] = {}
    for record in records:
        if quantity in record.metrics:
            points.setdefault(_at(record, along), record.metrics[quantity])
    if not points:
        return
    line, at = look(number), sorted(points)
    values = [points[x].value for x in at]
    ends = [points[x].interval or (points[x].value, points[x].value) for x in at]
    bars = [
        [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
        [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
    ]
    panel.errorbar(
        at, values, yerr=bars, color=line.color, linestyle=line.dash, marker=line.marker, elinewidth=0.7, capsize=1.5
    )


def _scale(panel: Axes, at: Sequence[int], units: Sequence[fmt.Unit]) -> None:
    """Both axes by powers, so that what grows as the batch does has a slope of one; every measured place has a tick."""
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(list(at), [fmt.count(value) for value in at])
    panel.xaxis.set_minor_locator(NullLocator())
    low, high = panel.get_ylim()
    parts = (1.0,) if high > _DECADES_FROM * low else (1.0, 2.0, 5.0)
    panel.yaxis.set_major_locator(LogLocator(subs=parts, numticks=15))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _round_number(value, units)))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="y")


def _round_number(value: float, units: Sequence[fmt.Unit]) -> str:
    """A power of ten with its unit: 100 ms."""
    unit = next((unit for unit in reversed(units) if value >= 0.999 * unit.size), units[0])
    return f"{value / unit.size:g} {unit.name}"
