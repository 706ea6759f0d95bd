"""Lines: a metric over the stored runs, a figure for each network and data set."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from capsbench.record.history import History, Stop, Trend
from capsbench.record.schema import CaseKey
from capsbench.report.figures import FileNames
from capsbench.report.figures.style import PAGE_INCHES, Format, Look, line_handle, look, save, sheet, style
from capsbench.report.trend import commit_text, version_changes, writer

_PANEL_INCHES = 2.4
_MOST_TICKS: Final = 8
_MARKERS_A_LINE: Final = 12
# What tells the lines of a figure apart, and how it is said.
_AXES: Final[dict[str, Callable[[CaseKey], str | None]]] = {
    "realization": lambda case: case.realization,
    "batch": lambda case: f"batch {case.batch}",
    "iterations": lambda case: None if case.routing_iterations is None else f"{case.routing_iterations} iterations",
    "device": lambda case: case.device,
    "threads": lambda case: f"{case.threads} threads",
    "precision": lambda case: case.precision,
    "allocator": lambda case: f"{case.allocator} allocator",
}


def draw_history(history: History, folder: Path, formats: Sequence[Format]) -> tuple[Path, ...]:
    """Draw a metric, in place of what was drawn of it before.

    Args:
        history: what is drawn.
        folder: for the files, `METRIC.NETWORK.DATASET.png`.
        formats: of the files.

    Returns:
        The files, in the order written.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    names, paths = FileNames(), list[Path]()
    with style():
        for (network, dataset), trends in _figures(history.trends):
            figure = draw_trends(history, trends, f"{history.metric}: {network}, {dataset}")
            paths += save(figure, folder / names(history.metric, network, dataset), formats)
    return tuple(paths)


def draw_trends(history: History, trends: Sequence[Trend], title: str) -> Figure:
    """A line for all cases that differ in their seed only: the mean, with the range over the seeds behind it.

    Dotted lines stand where versions changed; machines have lines of their own where the metric is a time.

    Args:
        history: that the trends are from.
        trends: of one network and data set.
        title: of the figure.
    """
    lines = _lines(trends)
    handles = [line_handle(name, look(i)) for i, name in enumerate(lines)] if len(lines) > 1 else []
    figure, [panel] = sheet(title, (1, 1), (PAGE_INCHES, _PANEL_INCHES), handles)
    for number, alike in enumerate(lines.values()):
        _draw(panel, look(number), alike)
    for index, _ in version_changes(history.stops):
        panel.axvline(index - 0.5, color="0.5", linestyle=":", linewidth=0.7)
    write = writer(history)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    panel.yaxis.set_major_locator(MaxNLocator(6, integer=history.exact))
    _label_runs(panel, history.stops)
    panel.grid(axis="y")
    return figure


def _figures(trends: Sequence[Trend]) -> Iterator[tuple[tuple[str, str], list[Trend]]]:
    found: dict[tuple[str, str], list[Trend]] = {}
    for trend in trends:
        found.setdefault((trend.case.network, trend.case.dataset), []).append(trend)
    yield from found.items()


def _lines(trends: Sequence[Trend]) -> dict[str, list[Trend]]:
    """The trends by what their line is called: what they differ in, or else what they are."""
    cases = [trend.case for trend in trends]
    told = [name for name, of in _AXES.items() if len({of(case) for case in cases}) > 1] or ["realization"]
    apart = len({trend.machines for trend in trends if len(trend.machines) == 1}) > 1
    found: dict[str, list[Trend]] = {}
    for trend in trends:
        words = [word for name in told if (word := _AXES[name](trend.case)) is not None]
        if apart and len(trend.machines) == 1:
            words.append(f"machine {trend.machines[0]}")
        found.setdefault(", ".join(words), []).append(trend)
    return found


def _draw(panel: Axes, line: Look, alike: Sequence[Trend]) -> None:
    values: dict[int, list[float]] = {}
    for trend in alike:
        for index, value in trend.points.items():
            values.setdefault(index, []).append(value)
    at = sorted(values)
    if any(len(several) > 1 for several in values.values()):
        low, high = ([end(values[index]) for index in at] for end in (min, max))
        panel.fill_between(at, low, high, color=line.color, alpha=0.15, linewidth=0)
    means = [fmean(values[index]) for index in at]
    every = max(1, len(at) // _MARKERS_A_LINE)
    panel.plot(at, means, color=line.color, linestyle=line.dash, marker=line.marker, markevery=every)


def _label_runs(panel: Axes, stops: Sequence[Stop]) -> None:
    """Along x the commits of at most eight runs, the newest among them; the day where there is no commit."""
    last = len(stops) - 1
    places = sorted({last - round(i * last / (_MOST_TICKS - 1)) for i in range(_MOST_TICKS)})
    panel.set_xlim(-0.5, last + 0.5)
    panel.set_xticks(places, [_short(stops[index]) for index in places])
    panel.set_xlabel("Commit of the run")


def _short(stop: Stop) -> str:
    """A dirty commit has an asterisk: there is no room for a word."""
    return stop.run[:8] if commit_text(stop) is None else f"{(stop.commit or '')[:7]}{'*' * stop.dirty}"
