"""The figures of a run: for each case its own, for the run those that set cases side by side.

Importing this imports matplotlib, which is an optional part of the installation.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from capsbench.measure.distribution import Quantity
from capsbench.measure.histogram import read_histograms
from capsbench.record.schema import CaseKey, Record
from capsbench.report.figures.bars import draw_layers, draw_ops
from capsbench.report.figures.curves import Training, draw_learning, draw_routing
from capsbench.report.figures.scaling import draw_scaling
from capsbench.report.figures.style import Format, save, style
from capsbench.report.figures.values import Histograms, Values, draw_values
from capsbench.report.groups import groups, sides
from capsbench.report.history import read_history
from capsbench.store.run import RunStore

FIGURES = "figures"
HISTOGRAMS = "histograms.npz"

_DRAWN: tuple[Quantity, ...] = ("activations", "poses")
_REALIZATION = "realization"
_WORK_AXES = ("network", "dataset", "batch", "routing_iterations")
_TITLE_AXES = (*_WORK_AXES, _REALIZATION)
_AXES = (*_TITLE_AXES, "device", "threads", "precision", "allocator")
_AXIS_TEXTS = {
    "network": "{}",
    "dataset": "{}",
    "batch": "batch {}",
    "routing_iterations": "{} routing iterations",
    "threads": "{} threads",
    "allocator": "{} allocator",
}

Named = tuple[str, Figure | None]


def draw_run(
    store: RunStore, records: Sequence[Record], formats: Sequence[Format] = ("png", "svg")
) -> tuple[Path, ...]:
    """Draw everything there is to draw, in place of what was drawn before.

    Args:
        store: of the run; figures of a case go to its artifacts' folder `figures`, the others to the run's.
        records: of the cases to draw; a case without a part (no ops, no histograms) goes without that figure.
        formats: of the files.

    Returns:
        The files, in the order written.

    Raises:
        BadInput: a history or a file of histograms is damaged.
        OSError: the disk is full, or the folder cannot be written.
    """
    paths: list[Path] = []
    with style():
        for record in records:
            for name, figure in _case_figures(store, record):
                if figure is not None:
                    paths += save(figure, store.artifacts(record.case.id) / FIGURES / name, formats)
        for name, figure in _run_figures(store, records):
            if figure is not None:
                paths += save(figure, store.folder / FIGURES / name, formats)
    return tuple(paths)


def _case_figures(store: RunStore, record: Record) -> Iterator[Named]:
    title = _title([record])
    group = groups([record])[0]
    yield "ops", draw_ops(group, title)
    yield "layers", draw_layers(group, title)
    values = [Values("", _histograms(store, record))]
    for quantity in _DRAWN:
        yield quantity, draw_values(values, quantity, title)
    yield "learning", draw_learning([Training("", (read_history(_artifacts(store, record)),))], title)
    yield "routing", draw_routing({"": record.routing}, title)


def _run_figures(store: RunStore, records: Sequence[Record]) -> Iterator[Named]:
    names = FileNames()
    for group in groups(records):
        case = group.case
        work = (case.network, case.dataset, f"b{case.batch}", *_iterations(case))
        title = _title(group.records, *_WORK_AXES)
        if len(group.train_steps) > 1:
            yield names("ops", *work), draw_ops(group, title)
            yield names("layers", *work), draw_layers(group, title)
        routed = {side.name: side.record.routing for side in sides(group, lambda record: record.routing)}
        if len(routed) > 1:
            yield names("routing", *work), draw_routing(routed, title)
    for similar in _grouped(records, lambda case: (case.network, case.dataset)):
        case = similar[0].case
        yield names("scaling", case.network, case.dataset), draw_scaling(similar, _title(similar, *_WORK_AXES[:2]))
    for similar in _grouped(records, lambda case: _but(case, "dataset")):
        yield from _by_dataset(store, similar, names)
    for similar in _grouped(records, lambda case: case.dataset):
        trained = [record for record in similar if read_history(_artifacts(store, record))]
        if len({_but(record.case) for record in trained}) > 1:
            trainings = _trainings(store, trained)
            yield names("learning", trained[0].case.dataset), draw_learning(trainings, _title(trained))


def _by_dataset(store: RunStore, records: Sequence[Record], names: "FileNames") -> Iterator[Named]:
    """Densities of one realization of one network, a line a data set; of several seeds the first is shown."""
    first: dict[str, Histograms] = {}
    for record in records:
        if record.case.dataset not in first and (histograms := _histograms(store, record)):
            first[record.case.dataset] = histograms
    if len(first) > 1:
        case = records[0].case
        work = (case.network, f"{case.backend}-{case.mode}", f"b{case.batch}", *_iterations(case))
        values = [Values(name, histograms) for name, histograms in first.items()]
        for quantity in _DRAWN:
            yield names(quantity, *work), draw_values(values, quantity, _title(records))


def _trainings(store: RunStore, records: Sequence[Record]) -> list[Training]:
    """The trainings on one data set, seeds together, called by what they differ in."""
    together = _grouped(records, _but)
    names = _names([same[0].case for same in together])
    trainings = []
    for name, same in zip(names, together, strict=True):
        ended = sorted({record.status for record in same} - {"ok"})
        text = f"{name} ({', '.join(ended)})" if ended else name
        trainings.append(Training(text, tuple(read_history(_artifacts(store, record)) for record in same)))
    return trainings


def _grouped(records: Sequence[Record], key: Callable[[CaseKey], object]) -> list[list[Record]]:
    found: dict[object, list[Record]] = {}
    for record in records:
        found.setdefault(key(record.case), []).append(record)
    return list(found.values())


def _but(case: CaseKey, *left_out: str) -> tuple[object, ...]:
    """What the case is, but for its seed and some axes."""
    return tuple(_value(case, axis) for axis in _AXES if axis not in left_out)


def _names(cases: Sequence[CaseKey]) -> list[str]:
    """For each case what tells it from the others."""
    axes = [axis for axis in _AXES if len(_told(cases, axis)) > 1]
    return [", ".join(_texts(case, axes)) or _realization(case) for case in cases]


def _title(records: Sequence[Record], *axes: str) -> str:
    """What all the cases have in common, of the axes that do not go without saying."""
    cases = [record.case for record in records]
    common = [axis for axis in axes or _TITLE_AXES if len(_told(cases, axis)) == 1]
    case = next((case for case in cases if case.routing_iterations is not None), cases[0])
    return ", ".join(_texts(case, common))


def _told(cases: Sequence[CaseKey], axis: str) -> set[object]:
    """The different values of an axis; a network without routing does not differ in its iterations."""
    return {_value(case, axis) for case in cases} - {None}


def _texts(case: CaseKey, axes: Sequence[str]) -> list[str]:
    values = {axis: _value(case, axis) for axis in axes}
    return [_AXIS_TEXTS.get(axis, "{}").format(value) for axis, value in values.items() if value is not None]


def _value(case: CaseKey, axis: str) -> object:
    return _realization(case) if axis == _REALIZATION else getattr(case, axis)


def _realization(case: CaseKey) -> str:
    return case.realization


def _iterations(case: CaseKey) -> tuple[str, ...]:
    return () if case.routing_iterations is None else (f"i{case.routing_iterations}",)


def _artifacts(store: RunStore, record: Record) -> Path:
    return store.artifacts(record.case.id)


def _histograms(store: RunStore, record: Record) -> Histograms:
    path = _artifacts(store, record) / HISTOGRAMS
    return read_histograms(path) if path.exists() else {}


class FileNames:
    """Names that are sound on any disk, each once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def __call__(self, *parts: str) -> str:
        """A name made of the parts."""
        base = ".".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", part) for part in parts)[:150]
        name, number = base, 1
        while name.lower() in self._given:
            number += 1
            name = f"{base}.{number}"
        self._given.add(name.lower())
        return name
