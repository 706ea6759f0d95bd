"""A metric over the stored runs as tables: a row a case with its trend drawn in characters, and a row a run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Any, Final

from capsbench.record.history import History, Stop, Trend
from capsbench.record.schema import CaseKey
from capsbench.report import format as fmt
from capsbench.report.table import SETTING_COLUMNS, Cell, Column, Table, cell, share, text_cell

UNICODE_LEVELS: Final = "▁▂▃▄▅▆▇█"
ASCII_LEVELS: Final = "_.-~=+*#"  # from low to high, for a console without blocks
FAILED: Final = "x"
_WIDTH: Final = 24
_MOST_ROWS: Final = 200
_MOST_CHANGES: Final = 8
# A row whose numbers lie closer together than this share of their middle is drawn as nearly flat.
_LEAST_SPREAD: Final = {"s": 0.05, "images/s": 0.05}

_KEYS: Final[Sequence[tuple[Column, Callable[[CaseKey], Cell]]]] = (
    (Column("network", "key", "left"), lambda case: text_cell(case.network)),
    (Column("backend:mode", "key", "left"), lambda case: text_cell(case.realization)),
    (Column("batch", "key", shared="batch {}"), lambda case: cell(case.batch, fmt.count)),
    (Column("iters", "key", shared="routing iterations {}"), lambda case: text_cell(case.routing_iterations)),
    (Column("seed", "key", shared="seed {}"), lambda case: cell(case.seed, fmt.count)),
    *zip(
        SETTING_COLUMNS,
        (
            lambda case: text_cell(case.dataset),
            lambda case: text_cell(case.device),
            lambda case: cell(case.threads, fmt.count),
            lambda case: text_cell(case.precision),
            lambda case: text_cell(case.allocator),
        ),
        strict=True,
    ),
)


def trend_tables(history: History, *, top: int, ascii_only: bool = False) -> tuple[Table, ...]:
    """A table of cases and one of the newest runs.

    Args:
        history: of a metric.
        top: how many runs.
        ascii_only: whether the trend is drawn without block characters.
    """
    return _cases(history, ASCII_LEVELS if ascii_only else UNICODE_LEVELS), _runs(history, top)


def said(history: History) -> Iterator[str]:
    """In sentences: which machines, which other versions along the way, and what could not be read."""
    for number, machine in enumerate(history.machines, 1):
        count = sum(stop.machine == number for stop in history.stops)
        yield f"machine {number} ({count:,} run{'s' * (count != 1)}): {_machine(machine)}"
    changes = [text for _, text in version_changes(history.stops)]
    if len(changes) > _MOST_CHANGES:
        yield f"versions changed {len(changes):,} times along the way, the newest of them are told"
    yield from changes[-_MOST_CHANGES:]
    yield from map(fmt.label, history.skipped)


def writer(history: History) -> Callable[[float | None], str]:
    """How a number of the metric is written, with its unit."""
    known = {"s": fmt.seconds, "B": fmt.size, "FLOP": fmt.flops}.get(history.unit)
    if known is not None:
        return known
    if is_share(history):
        return lambda value: f"{fmt.percent(value)} %"
    return fmt.count if history.exact else fmt.plain_number


def is_share(history: History) -> bool:
    """Whether the metric is a share of images, which people write in per cent."""
    return history.unit == "1" and history.metric.endswith(("accuracy", "error_rate"))


def best(history: History, trend: Trend) -> float | None:
    """The best number of a row; None where neither direction is."""
    if history.direction == "none":
        return None
    return (min if history.direction == "lower" else max)(trend.points.values())


def sparkline(trend: Trend, count: int, unit: str, levels: str) -> str:
    """A trend along all runs in at most 24 characters.

    Args:
        trend: the row.
        count: of runs; where they are more than characters, a character stands for the mean of several.
        unit: of the numbers.
        levels: characters from low to high.

    Returns:
        As many characters as there are places: a level, `x` where the case failed, or a blank where it did not run.
    """
    width = min(_WIDTH, count)
    places: list[list[float]] = [[] for _ in range(width)]
    failed = {index * width // count for index in trend.failures}
    for index, value in trend.points.items():
        places[index * width // count].append(value)
    means = [fmean(values) if values else None for values in places]
    told = [mean for mean in means if mean is not None]
    low, high = min(told), max(told)
    middle = low + (high - low) / 2.0
    spread = max(high - low, _LEAST_SPREAD.get(unit, 0.01) * abs(middle))

    def character(number: int, mean: float | None) -> str:
        if mean is None:
            return FAILED if number in failed else " "
        # From 0 to 1, and half a level up, so that the middle of a row is the middle of a level.
        height = 0.5 + ((mean - middle) / spread if spread > 0.0 else 0.0)
        return levels[min(len(levels) - 1, max(0, int(height * len(levels) + 0.5)))]

    return "".join(character(number, mean) for number, mean in enumerate(means))


def _cases(history: History, levels: str) -> Table:
    several = len(history.machines) > 1
    columns = (
        *(column for column, _ in _KEYS),
        *((Column("machine", "key", shared="machine {}"),) if several else ()),
        Column("trend", align="left"),
        Column("first", group="numbers"),
        Column("last", group="numbers"),
        Column("last/\nfirst", group="numbers"),
        Column("best", group="numbers"),
        Column("runs", group="numbers"),
        Column("status", "status", "left"),
    )
    shown = history.trends[:_MOST_ROWS]
    rows = tuple(tuple(_row(history, trend, levels, several=several)) for trend in shown)
    context = (f"{len(history.stops):,} run{'s' * (len(history.stops) != 1)}",)
    return share(Table(f"History: {history.metric}", columns, rows, context=context, notes=tuple(_notes(history))))


def _row(history: History, trend: Trend, levels: str, *, several: bool) -> Iterator[Cell]:
    yield from (of(trend.case) for _, of in _KEYS)
    if several:
        yield text_cell(", ".join(map(str, trend.machines)))
    yield Cell(sparkline(trend, len(history.stops), history.unit, levels))
    values = list(trend.points.values())
    ratio = values[-1] / values[0] if values[0] else None
    yield from (_number(history, value) for value in (values[0], values[-1]))
    yield Cell(fmt.NOTHING if ratio is None else f"{ratio:.4g}", ratio)
    yield _number(history, best(history, trend))
    yield cell(len(trend.points), fmt.count)
    newest = max((*trend.points, *trend.failures))
    yield text_cell(trend.failures.get(newest, "ok"))


def _number(history: History, value: float | None) -> Cell:
    unit = "share" if is_share(history) else history.unit
    return Cell(fmt.NOTHING) if value is None else Cell(writer(history)(value), value, unit)


def _notes(history: History) -> Iterator[str]:
    spread = fmt.percent(_LEAST_SPREAD.get(history.unit, 0.01))
    yield (
        f"trend: from a row's least number to its greatest, at least {spread} % of its middle; "
        "x where it came to none, blank where it did not run."
    )
    if history.direction != "none":
        yield f"best: the {'least' if history.direction == 'lower' else 'greatest'}."
    if len({(*(of(t.case).text for _, of in _KEYS), t.machines) for t in history.trends}) < len(history.trends):
        yield "rows that look alike differ in their network's spec, or in how they were trained or measured."
    if len(history.trends) > _MOST_ROWS:
        yield f"the first {_MOST_ROWS:,} of {len(history.trends):,} cases; --case picks others."


def _runs(history: History, top: int) -> Table:
    """The newest runs, and by what the numbers moved there."""
    columns = (
        Column("run", align="left", group="run"),
        Column("commit", align="left", group="run"),
        *((Column("machine", group="run"),) if len(history.machines) > 1 else ()),
        Column("cases", group="run"),
        Column("to the one\nbefore", group="run"),
        Column("its\nrange", group="run"),
    )
    ratios = _ratios(history)
    cases = [0] * len(history.stops)
    for trend in history.trends:
        for index in trend.points:
            cases[index] += 1
    first = max(0, len(history.stops) - top)
    rows = []
    for index, stop in enumerate(history.stops[first:], first):
        machine = (cell(stop.machine, fmt.count),) if len(history.machines) > 1 else ()
        moved = ratios[index]
        mean = exp(fmean(map(log, moved))) if moved else None
        range_ = f"{min(moved):.3f}–{max(moved):.3f}" if moved else fmt.NOTHING
        ratio = Cell(fmt.NOTHING if mean is None else f"{mean:.4g}", mean)
        counted = cell(cases[index], fmt.count)
        rows.append((text_cell(stop.run), text_cell(commit_text(stop)), *machine, counted, ratio, Cell(range_)))
    notes = ["to the one before: geometric mean over the cases, of each to its number before."]
    if first:
        notes.append(f"{first:,} earlier run{'s are' if first > 1 else ' is'} not shown; --top shows more.")
    return Table(f"Runs: {history.metric}", columns, tuple(rows), notes=tuple(notes))


def _ratios(history: History) -> list[list[float]]:
    """For each run the ratios of positive numbers to those before, case by case."""
    found: list[list[float]] = [[] for _ in history.stops]
    for trend in history.trends:
        before = None
        for index, value in trend.points.items():
            if before is not None and before > 0.0 < value:
                found[index].append(value / before)
            before = value
    return found


def commit_text(stop: Stop) -> str | None:
    """The beginning of the hash, and whether files differed from the commit."""
    return None if stop.commit is None else f"{stop.commit[:8]}{'-dirty' if stop.dirty else ''}"


def _machine(known: Mapping[str, Any]) -> str:
    if not known:
        return "not known"
    memory = known.get("memory_bytes")
    told = (
        known.get("processor"),
        f"{known.get('cores')} cores" if known.get("cores") else None,
        fmt.size(memory) if isinstance(memory, int | float) else None,
        known.get("system"),
        known.get("architecture"),
    )
    return ", ".join(fmt.label(each) for each in told if each)


def version_changes(stops: Sequence[Stop]) -> Iterator[tuple[int, str]]:
    """Which runs had other versions than the one before on the same machine, and which those are in a sentence."""
    before: dict[int, Stop] = {}
    for index, stop in enumerate(stops):
        old = before.get(stop.machine)
        if old is not None and old.packages != stop.packages:
            names = sorted({*old.packages, *stop.packages})
            moved = [(name, old.packages.get(name, "none"), stop.packages.get(name, "none")) for name in names]
            told = ", ".join(f"{name} {one} → {other}" for name, one, other in moved if one != other)
            yield index, fmt.label(f"from {stop.run} on: {told}")
        before[stop.machine] = stop
