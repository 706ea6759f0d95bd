"""Accuracy over seeds: the mean of cases that differ in their seed only, and how sure it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Final

from capsbench.record.grouping import grouped
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEY_ATTRIBUTES, SETTING_ATTRIBUTES
from capsbench.report.rows import Field, attributes, table_of_items
from capsbench.report.table import Cell, Column, Table, cell
from capsbench.stats.student import mean_interval
from capsbench.store.records import values_of

_ACCURACY: Final = "accuracy"
_MOST_SEEDS: Final = 10
"""That have a column each; of more the ends and the middle are told."""
_INTERVAL: Final = (
    "interval: holds the mean over all seeds with 95 % confidence (Student's t); the test images are the same for all "
    "seeds, so that their choice is not in it."
)
_FEW: Final = (
    "seeds without an accuracy did not come to their end; if the others were the lucky ones, the mean is too high."
)


@dataclass(frozen=True, slots=True)
class _Row:
    """Cases that differ in their seed only: the first, the seeds of all, accuracies by seed."""

    first: Record
    tried: tuple[int, ...]
    values: dict[int, float]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.tried)

    @property
    def seeds(self) -> int:
        """How many different seeds they have."""
        return len(set(self.tried))


def seeds_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """One table with a row for each group of cases that differ in their seed only; none without several seeds.

    A seed whose case failed is counted and has no accuracy. Cases that share even their seed differ in something that a
    record does not tell apart, such as the epochs of two suites: their group is left out, with a note.
    """
    groups = [row for row in _rows(records) if row.count > 1]
    whole = [row for row in groups if row.seeds == row.count]
    if not whole:
        return ()
    seeds = sorted({seed for row in whole for seed in row.tried})
    fields: tuple[Field[_Row], ...] = (
        *attributes((*KEY_ATTRIBUTES, *SETTING_ATTRIBUTES), "first"),
        Field(Column("seeds"), _trained),
        Field(Column("mean %"), lambda row: cell(fmean(row.values.values()), fmt.percent)),
        Field(Column("its 95 %\ninterval"), lambda row: _interval(list(row.values.values()), row.first)),
        *(_each_seed(seeds) if len(seeds) <= _MOST_SEEDS else _SPREAD),
    )
    some_failed = any(len(row.values) < row.count for row in whole)
    notes = (_INTERVAL, *([_FEW] if some_failed else []), *_left_out(groups))
    return (table_of_items("Accuracy over seeds", fields, whole, notes),)


def _rows(records: Sequence[Record]) -> Iterator[_Row]:
    """Records that differ in their seed only, where one of them at least has an accuracy."""
    measured = zip(records, values_of(records, _ACCURACY), strict=True)
    for group in grouped(measured, lambda each: _alike(each[0])).values():
        values = {record.case.seed: value for record, value in group if value is not None}
        if values:
            yield _Row(group[0][0], tuple(record.case.seed for record, _ in group), values)


def _alike(record: Record) -> tuple[object, ...]:
    case = record.case
    images = tuple(sorted((name, facts.sha256) for name, facts in record.data.items()))
    key = (case.network, case.dataset, case.backend, case.mode, case.batch, case.routing_iterations)
    setting = (case.device, case.threads, case.devices, case.precision, case.allocator)
    return *key, *setting, record.fingerprint.network, images


def _trained(row: _Row) -> Cell:
    count = len(row.values)
    return Cell(f"{count}" if count == row.count else f"{count} of {row.count}", count)


def _each_seed(seeds: Sequence[int]) -> Iterator[Field[_Row]]:
    return (Field(Column(f"seed\n{seed}"), partial(_of_seed, seed)) for seed in seeds)


def _of_seed(seed: int, row: _Row) -> Cell:
    return cell(row.values.get(seed), fmt.percent)


def _interval(values: Sequence[float], record: Record) -> Cell:
    """Never narrower than half an image to each side, which is how finely an accuracy is known, nor beyond 0 and 1."""
    found, test = mean_interval(values), record.data.get("test")
    if found is None:
        return Cell(fmt.NOTHING)
    least = 0.5 / test.count if test else 0.0
    low, high = min(found.low, fmean(values) - least), max(found.high, fmean(values) + least)
    text = f"{fmt.percent(max(0.0, low))}–{fmt.percent(min(1.0, high))}"
    return Cell(text, text)


def _left_out(groups: Sequence[_Row]) -> Iterator[str]:
    for row in groups:
        case = row.first.case
        if row.seeds < row.count:
            name = fmt.label(f"{case.network}, {case.realization}, batch {case.batch}")
            yield f"{name}: left out, because seeds come twice."


def _spread(row: _Row, of: Callable[[Iterable[float]], float]) -> Cell:
    return cell(of(row.values.values()), fmt.percent)


_ENDS_AND_MIDDLE: Final[tuple[tuple[str, Callable[[Iterable[float]], float]], ...]] = (
    ("lowest", min),
    ("median", median),
    ("highest", max),
)
_SPREAD: Final[tuple[Field[_Row], ...]] = tuple(
    Field(Column(f"{name}\n%", group="seeds"), partial(_spread, of=of)) for name, of in _ENDS_AND_MIDDLE
)
