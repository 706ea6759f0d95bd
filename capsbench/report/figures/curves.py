"""Lines: what training came to epoch by epoch, and routing iteration by iteration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from capsbench.measure.distribution import RoutingIteration
from capsbench.report.figures.style import COLUMN_INCHES, PAGE_INCHES, line_handle, look, sheet, short
from capsbench.report.history import EpochResult

_PANEL_INCHES = 1.5
_MARKERS_A_LINE = 12
_LOGARITHMIC_FROM = 30.0
_METRICS: Final = {
    "coupling_entropy": "Coupling entropy",
    "agreement_gain": "Agreement gain",
    "starved_share": "Starved share (%)",
}


@dataclass(frozen=True, slots=True)
class Training:
    """Trainings that differ in their seed only, and what they are called."""

    name: str
    histories: tuple[tuple[EpochResult, ...], ...]


def draw_learning(trainings: Sequence[Training], title: str) -> Figure | None:
    """Test accuracy and train loss by epoch, the mean over the seeds with their range; None without an epoch."""
    trainings = [training for training in trainings if any(training.histories)]
    if not trainings:
        return None
    handles = [line_handle(t.name, look(i)) for i, t in enumerate(trainings)] if len(trainings) > 1 else []
    figure, (above, below) = sheet(title, (2, 1), (COLUMN_INCHES, 2 * _PANEL_INCHES), handles, same_x=True)
    losses: list[float] = []
    for number, training in enumerate(trainings):
        _draw_range(above, number, _by_epoch(training, "test_accuracy", 100.0))
        loss = _by_epoch(training, "train_loss", 1.0)
        _draw_range(below, number, loss)
        losses += [value for values in loss.values() for value in values]
    if min(losses) > 0.0 and max(losses) / min(losses) > _LOGARITHMIC_FROM:
        below.set_yscale("log")
        below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        below.yaxis.set_minor_formatter(NullFormatter())
    above.set_ylabel("Test accuracy (%)")
    below.set_ylabel("Train loss")
    below.set_xlabel("Epoch")
    epochs = [epoch.epoch for training in trainings for history in training.histories for epoch in history]
    for panel in (above, below):
        _count_along(panel, min(epochs), max(epochs))
        panel.grid(axis="y")
    return figure


def draw_routing(sides: Mapping[str, Sequence[RoutingIteration]], title: str) -> Figure | None:
    """The routing metrics by iteration; None where nothing routes.

    One case has its layers as lines, several have a row of panels a layer and a line a case.
    """
    sides = {name: metrics for name, metrics in sides.items() if metrics}
    if not sides:
        return None
    layers = list(dict.fromkeys(metric.layer for metrics in sides.values() for metric in metrics))
    alone = len(sides) == 1
    every = [metric for metrics in sides.values() for metric in metrics]
    grid = {"": _by_layer(every, layers)} if alone else {layer: _of_layer(sides, layer) for layer in layers}
    names = layers if alone else list(sides)
    handles = [line_handle(name, look(i)) for i, name in enumerate(names)]
    shape = (len(_METRICS), 1) if alone else (len(grid), len(_METRICS))
    size = COLUMN_INCHES if alone else PAGE_INCHES, shape[0] * _PANEL_INCHES
    figure, panels = sheet(title, shape, size, handles, same_x=True)
    places = [(row, metric) for row in grid for metric in _METRICS]
    for panel, (row, metric) in zip(panels, places, strict=True):
        for number, iterations in enumerate(grid[row]):
            _draw_metric(panel, number, iterations, metric)
        _fit(panel)
        panel.set_title(short(row, 26))
        panel.set_ylabel(_METRICS[metric])
        _count_along(panel, 1, 1 + max(metric.iteration for metric in every))
        panel.grid(axis="y")
    for panel in panels[-shape[1] :]:
        panel.set_xlabel("Routing iteration")
    return figure


def _count_along(panel: Axes, first: int, last: int) -> None:
    """Whole numbers along x, with a little room at the ends: half a step where there is but one."""
    margin = max(0.5 if first == last else 0.15, 0.03 * (last - first))
    panel.set_xlim(first - margin, last + margin)
    panel.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _by_layer(metrics: Sequence[RoutingIteration], layers: Sequence[str]) -> list[list[RoutingIteration]]:
    return [[metric for metric in metrics if metric.layer == layer] for layer in layers]


def _of_layer(sides: Mapping[str, Sequence[RoutingIteration]], layer: str) -> list[list[RoutingIteration]]:
    return [[metric for metric in metrics if metric.layer == layer] for metrics in sides.values()]


def _draw_metric(panel: Axes, number: int, iterations: Sequence[RoutingIteration], metric: str) -> None:
    scale = 100.0 if metric == "starved_share" else 1.0
    values = {state.iteration + 1: [scale * getattr(state, metric)] for state in iterations}
    _draw_range(panel, number, values)


def _fit(panel: Axes) -> None:
    """From 0 to 1 at least, whatever the metric: so that a small change looks small and none is no picture of noise."""
    low, high = min(0.0, float(panel.dataLim.ymin)), max(1.0, float(panel.dataLim.ymax))
    margin = 0.05 * (high - low)
    panel.set_ylim(low - margin, high + margin)


def _by_epoch(training: Training, what: str, scale: float) -> dict[int, list[float]]:
    """The values of all seeds, epoch by epoch."""
    found: dict[int, list[float]] = {}
    for history in training.histories:
        for epoch in history:
            found.setdefault(epoch.epoch, []).append(scale * getattr(epoch, what))
    return dict(sorted(found.items()))


def _draw_range(panel: Axes, number: int, values: Mapping[int, Sequence[float]]) -> None:
    """A line through the means, with the range from least to greatest behind it."""
    if not values:
        return
    line = look(number)
    at = list(values)
    if any(len(several) > 1 for several in values.values()):
        low, high = ([end(several) for several in values.values()] for end in (min, max))
        panel.fill_between(at, low, high, color=line.color, alpha=0.15, linewidth=0)
    panel.plot(
        at,
        [fmean(several) for several in values.values()],
        color=line.color,
        linestyle=line.dash,
        marker=line.marker,
        markevery=max(1, len(at) // _MARKERS_A_LINE),
    )
