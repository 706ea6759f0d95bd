"""What layers give out, as densities: a panel a layer, a line a data set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from capsbench.measure.distribution import Quantity
from capsbench.measure.histogram import Histogram
from capsbench.report.figures.style import COLUMN_INCHES, PAGE_INCHES, line_handle, look, sheet, short

Histograms = Mapping[tuple[str, Quantity], Histogram]

_BINS = 60
_TAILS = (0.001, 0.999)
_PANEL_INCHES = 1.45
_TITLE_CHARACTERS_AN_INCH = 11
_PEAKED = 20.0
_OPACITY, _MOST_FILLED = 0.4, 3
_LABELS: Final[dict[Quantity, str]] = {"activations": "Activation", "poses": "Pose element", "votes": "Vote element"}


@dataclass(frozen=True, slots=True)
class Values:
    """The histograms of one case, and what it is called in the legend."""

    name: str
    histograms: Histograms


def draw_values(sides: Sequence[Values], quantity: Quantity, title: str) -> Figure | None:
    """Densities of one quantity in every layer; None where no case has it.

    An axis is logarithmic where a peak would hide the rest. Activations of capsules span 0 to 1; other values what lies
    between their quantiles 0.001 and 0.999, in all cases drawn; areas are shares of all values, those outside included.
    """
    layers, capsules = _layers(sides, quantity), _capsules(sides)
    if not layers:
        return None
    columns = min(len(layers), 2 if len(sides) == 1 else 4)
    width = COLUMN_INCHES if columns <= 2 else PAGE_INCHES
    rows = math.ceil(len(layers) / columns)
    handles = [line_handle(side.name, look(i)) for i, side in enumerate(sides)] if len(sides) > 1 else []
    for handle in handles:
        handle.set_marker("")
    figure, panels = sheet(title, (rows, columns), (width, rows * _PANEL_INCHES), handles)
    for panel, layer in zip(panels, layers, strict=False):
        key = (layer, quantity)
        found = {number: side.histograms[key] for number, side in enumerate(sides) if key in _filled(side)}
        edges = _edges(list(found.values()), shares=quantity == "activations" and layer in capsules)
        _draw(panel, {i: _density(histogram, edges) for i, histogram in found.items()}, edges)
        panel.set_xlabel(_LABELS[quantity])
        panel.set_title(short(layer, int(_TITLE_CHARACTERS_AN_INCH * width / columns)))
    for panel in panels[: len(layers) : columns]:
        panel.set_ylabel("Density")
    for spare in panels[len(layers) :]:
        spare.remove()
    return figure


def _layers(sides: Sequence[Values], quantity: Quantity) -> list[str]:
    """The layers to show, in the network's order: those of capsules, or all where no layer has capsules."""
    held = dict.fromkeys(layer for side in sides for layer, what in _filled(side) if what == quantity)
    capsules = _capsules(sides)
    return [layer for layer in held if layer in capsules] or list(held)


def _capsules(sides: Sequence[Values]) -> set[str]:
    return {layer for side in sides for layer, what in _filled(side) if what == "poses"}


def _filled(side: Values) -> dict[tuple[str, Quantity], Histogram]:
    return {key: histogram for key, histogram in side.histograms.items() if len(histogram.counts)}


def _draw(panel: Axes, densities: Mapping[int, NDArray[np.float64]], edges: NDArray[np.float64]) -> None:
    highest = max(float(density.max()) for density in densities.values())
    least = min((float(d[d > 0].min()) for d in densities.values() if (d > 0).any()), default=1.0)
    logarithmic = highest * float(edges[-1] - edges[0]) > _PEAKED
    floor = 10.0 ** math.floor(math.log10(least)) if logarithmic else 0.0
    opacity = _OPACITY / len(densities) if len(densities) <= _MOST_FILLED else 0.0
    for i, density in densities.items():
        shown = np.maximum(density, floor)
        panel.stairs(shown, edges, baseline=floor, fill=True, color=look(i).color, alpha=opacity)
        panel.stairs(shown, edges, baseline=None, color=look(i).color, linestyle=look(i).dash, linewidth=1.0)
    if logarithmic:
        panel.set_yscale("log")
        panel.set_ylim(floor, highest * 2)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        panel.set_ylim(0.0, (highest or 1.0) * 1.05)
    panel.set_xlim(float(edges[0]), float(edges[-1]))
    panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def _edges(histograms: Sequence[Histogram], *, shares: bool) -> NDArray[np.float64]:
    """Even bins over what is to be seen of all histograms; values that are shares are seen from 0 to 1."""
    if shares and all(histogram.low[0] >= 0.0 and histogram.high[-1] <= 1.0 for histogram in histograms):
        return np.linspace(0.0, 1.0, _BINS + 1)
    low = min(histogram.quantile(_TAILS[0]) for histogram in histograms)
    high = max(histogram.quantile(_TAILS[1]) for histogram in histograms)
    if high <= low:  # one value only
        low, high = low - max(0.5, abs(low) / 2), high + max(0.5, abs(high) / 2)
    return np.linspace(low, high, _BINS + 1)


def _density(histogram: Histogram, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    density: NDArray[np.float64] = histogram.over(edges) / (int(histogram.counts.sum()) * np.diff(edges))
    return density
