"""Novel viewpoints at matched familiar accuracy: how well networks carry over what they have learnt equally well.

A network that is better everywhere is better on what is new, too. Hinton, Sabour, Frosst (ICLR 2018, section 5.1)
therefore stop the better network's training where it is as good as the other on familiar viewpoints, and compare there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEYS, SETTINGS
from capsbench.report.history import EpochResult
from capsbench.report.table import Cell, Column, Table, share
from capsbench.stats.student import mean_interval

Histories = Mapping[str, Sequence[EpochResult]]
"""The epochs of each case, by its id."""

_END: Final = "familiar, novel: test images like those of training, and those that are not; at the end of training."
_MATCHED: Final = (
    "matched: each seed at its first evaluation that is as good on familiar images as the network that ends worst on "
    "them (its mean over seeds), or at its end where none is; ± half the 95 % interval over seeds."
)


@dataclass(frozen=True, slots=True)
class _Point:
    """An evaluation: after how many epochs, and the accuracies."""

    epoch: float
    familiar: float
    novel: float


@dataclass(frozen=True, slots=True)
class _Series:
    """Cases that differ in their seed only, each with all its evaluations in their order."""

    records: tuple[Record, ...]
    histories: tuple[tuple[_Point, ...], ...]

    def at_end(self) -> tuple[_Point, ...]:
        return tuple(history[-1] for history in self.histories)

    def matched(self, familiar: float) -> tuple[_Point, ...]:
        """Of each seed the first evaluation that is as good as `familiar`, or its last."""
        return tuple(
            next((point for point in history if point.familiar >= familiar), history[-1]) for history in self.histories
        )


def matched_tables(records: Sequence[Record], histories: Histories) -> tuple[Table, ...]:
    """A table for each data set whose protocol has familiar images; none where nothing was trained on one.

    Args:
        records: of a run.
        histories: of its cases.
    """
    by_dataset: dict[str, list[_Series]] = {}
    for series in _series(records, histories):
        by_dataset.setdefault(series.records[0].case.dataset, []).append(series)
    return tuple(_table(dataset, found) for dataset, found in by_dataset.items())


def _series(records: Sequence[Record], histories: Histories) -> Iterator[_Series]:
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in (each for each in records if "familiar_accuracy" in each.metrics):
        history = histories.get(record.case.id, ())
        if history and all(e.familiar_accuracy is not None for e in history):
            case = record.case
            setting = (case.batch, case.routing_iterations, case.device, case.threads, case.precision, case.allocator)
            key = (case.network, case.dataset, case.realization, *setting, record.fingerprint.network)
            groups.setdefault(key, []).append(record)
    for group in groups.values():
        yield _Series(tuple(group), tuple(tuple(_points(histories[record.case.id])) for record in group))


def _points(history: Sequence[EpochResult]) -> Iterator[_Point]:
    for epoch in history:
        for check in epoch.checks:
            if check.familiar_accuracy is not None:
                part = check.step / len(epoch.losses)
                yield _Point(epoch.epoch - 1 + part, check.familiar_accuracy, check.test_accuracy)
        assert epoch.familiar_accuracy is not None  # noqa: S101 - only such histories come here
        yield _Point(epoch.epoch, epoch.familiar_accuracy, epoch.test_accuracy)


def _table(dataset: str, found: Sequence[_Series]) -> Table:
    familiar = min(fmean(point.familiar for point in series.at_end()) for series in found)
    columns = (
        *(field.column for field in (*KEYS, *SETTINGS)),
        Column("seeds"),
        Column("familiar\n%", group="end"),
        Column("novel\n%", group="end"),
        Column("matched\nepoch", group="matched"),
        Column("familiar\nmatched %", group="matched"),
        Column("novel\nmatched %", group="matched"),
    )
    rows = tuple(tuple(_cells(series, familiar)) for series in found)
    return share(Table(f"Novel viewpoints, {dataset}", columns, rows, notes=(_END, _MATCHED)))


def _cells(series: _Series, familiar: float) -> Iterator[Cell]:
    yield from (field.cell(series.records[0]) for field in (*KEYS, *SETTINGS))
    yield Cell(str(len(series.records)), len(series.records))
    end, matched = series.at_end(), series.matched(familiar)
    yield _mean([point.familiar for point in end])
    yield _mean([point.novel for point in end])
    epochs = sorted({point.epoch for point in matched})
    texts = dict.fromkeys(f"{epoch:.3g}" for epoch in (epochs[0], epochs[-1]))
    yield Cell("–".join(texts), fmean(point.epoch for point in matched))
    yield _mean([point.familiar for point in matched])
    yield _mean([point.novel for point in matched])


def _mean(values: Sequence[float]) -> Cell:
    mean, interval = fmean(values), mean_interval(values)
    spread = "" if interval is None else f" ± {fmt.percent((interval.high - interval.low) / 2.0)}"
    return Cell(f"{fmt.percent(mean)}{spread}", mean, "share")
