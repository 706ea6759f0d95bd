"""The tables of a run: accuracy, cost, and what must be known to believe them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import lru_cache, partial

from capsbench.record.ceilings import DeviceCeilings
from capsbench.record.schema import Record, SplitFacts
from capsbench.report import format as fmt
from capsbench.report import ops
from capsbench.report.compiled import compiled_tables
from capsbench.report.fields import KEYS, SEED, SETTINGS, exact_cell, metric_field, table_of
from capsbench.report.groups import by_group
from capsbench.report.matched import Histories, matched_tables
from capsbench.report.ops import Sort, View
from capsbench.report.parallel import parallel_tables
from capsbench.report.roofline import best_ceilings
from capsbench.report.rows import Field, few
from capsbench.report.seed import seed_table
from capsbench.report.seeds import seeds_tables
from capsbench.report.table import Cell, Column, Table, cell
from capsbench.report.target import target_tables
from capsbench.store.records import ParityErrorName, interval_of, parity_error, sample_count


@dataclass(frozen=True, slots=True)
class Report:
    """The tables of a run, and the notes that the bracketed numbers in their status columns refer to.

    Attributes:
        each: makes the tables in the order printed, one at a time.
        notes: numbered from 1.
        general: notes that hold for every case that ran.
        referred: the numbers that the cells made so far refer to.
    """

    each: Callable[[], Iterator[Table]]
    notes: tuple[str, ...]
    general: tuple[str, ...]
    referred: AbstractSet[int]

    @property
    def tables(self) -> tuple[Table, ...]:
        """All of them."""
        return tuple(self.each())


def report(
    records: Sequence[Record],
    *,
    ceilings: Sequence[DeviceCeilings] = (),
    top: int = 10,
    sort: Sort = "share",
    seed_study: bool = False,
    histories: Histories | None = None,
    published: Callable[[], Sequence[Table]] = tuple,
    most: int | None = None,
    with_ops: bool = True,
) -> Report:
    """The tables that a run ends with, cases in the order of their axes.

    Args:
        records: of the run.
        ceilings: of the machine that the run was on, as far as they are known.
        top: rows of an op table before the others are summed up.
        sort: order of those rows.
        seed_study: whether the run's suites include `seed`, whose claims then have a table.
        histories: the epochs of cases with familiar images, by id.
        published: makes the tables that set published numbers beside those of the run.
        most: rows that will be shown of a table, which `few` makes op tables of; None for all.
        with_ops: whether the most expensive ops are among them.
    """
    ordered = _in_order(records)
    notes = _Notes(ordered)

    def each() -> Iterator[Table]:
        yield accuracy_table(ordered, notes.status)
        yield from seeds_tables(ordered)
        yield from matched_tables(ordered, histories or {})
        yield from target_tables(ordered, notes.status)
        yield cost_table(ordered, notes.status, ceilings)
        yield from parallel_tables(ordered)
        yield from compiled_tables(ordered)
        if with_ops:
            makers = {ops.TITLES["op"]: partial(ops.of_group, view=View("op", top, sort))}
            yield from few(by_group(ordered, makers), most)
        yield from published()
        if seed_study:
            yield seed_table(ordered)

    return Report(each, notes.numbered, notes.general, notes.referred)


def accuracy_table(records: Sequence[Record], status: Callable[[Record], Cell]) -> Table:
    """What the networks reached, a row a case."""
    more = [name for name in ("validation_accuracy", "familiar_accuracy") if _any_has(records, name)]
    fields = (
        *KEYS,
        SEED,
        *SETTINGS,
        metric_field("accuracy", fmt.percent),
        metric_field("error_rate", fmt.percent),
        *(metric_field(name, fmt.percent) for name in more),
        _samples(Column("epochs", shared="epochs {}"), "epoch_seconds"),
        _split(Column("trained on", shared="trained on {}"), "train"),
        _split(Column("tested on", shared="tested on {}"), "test"),
        Field(Column("status", "status", "left"), status),
    )
    return table_of("Accuracy", fields, records)


def cost_table(
    records: Sequence[Record], status: Callable[[Record], Cell], ceilings: Sequence[DeviceCeilings] = ()
) -> Table:
    """What the networks cost, a row a case; beside the ceilings of the machine, where they are known."""
    peak: tuple[Field[Record], ...] = (Field(Column("% of\nFMA", group="time"), lambda r: _share_of_peak(r, ceilings)),)
    has_peak = any(known.ceilings.fma_flops_per_second for known in ceilings)
    has_mixed = _any_has(records, "mixed_forward_relative_error")
    fields = (
        *KEYS,
        SEED,
        *SETTINGS,
        *_cost_fields(),
        *(_MIXED_FIELDS if has_mixed else ()),
        *(peak if has_peak else ()),
        Field(Column("status", "status", "left"), status),
    )
    more = (*([_MIXED_NOTE] if has_mixed else []), *([_PEAK_NOTE] if has_peak else []))
    return table_of("Cost", fields, records, (*_COST_NOTES, *more))


_COST_NOTES = (
    "interval: holds the true median with about 95 % confidence, or is the range of the rounds where they are too few.",
    "peak: the most bytes alive at once in a train step; allocated: all that it asked for, freed or not.",
    "parity: largest relative error of forward pass and gradient against the float64 oracle.",
)


_MIXED_NOTE = "mixed: the same errors in mixed precision itself, measured and not judged; parity is that of float32."
_PEAK_NOTE = "% of FMA: FLOPs of the equations a second, of the multiply-adds this machine can do (`capsbench doctor`)."


def _cost_fields() -> tuple[Field[Record], ...]:
    step = "train_step_seconds"
    return (
        metric_field("parameters", fmt.count, "size"),
        metric_field("train_step_flops", fmt.flops, "size"),
        metric_field("peak_bytes", fmt.size, "size"),
        metric_field("allocated_bytes", fmt.size, "size"),
        metric_field("forward_seconds", fmt.seconds, "time"),
        metric_field(step, fmt.seconds, "time"),
        Field(Column("its\ninterval", group="time"), lambda record: _interval(interval_of(record.metrics, step))),
        metric_field("images_per_second", fmt.plain_number, "time"),
        _samples(Column("rounds", group="time", shared="rounds {}"), step),
        _parity(Column("parity\nforward", group="parity"), "forward_max_relative_error"),
        _parity(Column("parity\ngradient", group="parity"), "gradient_relative_error"),
    )


_MIXED_FIELDS: tuple[Field[Record], ...] = tuple(
    metric_field(f"mixed_{way}_relative_error", fmt.error, "parity") for way in ("forward", "gradient")
)


def _in_order(records: Sequence[Record]) -> Sequence[Record]:
    """Cases that will be compared stand together, in the same order in every run."""
    return sorted(records, key=_place)


def _place(record: Record) -> tuple[object, ...]:
    case = record.case
    work = (case.network, case.dataset, case.batch, case.routing_iterations or 0, case.seed)
    return (*work, case.backend, case.mode, case.devices, case.device, case.threads, case.precision, case.allocator)


def _any_has(records: Sequence[Record], metric: str) -> bool:
    return any(metric in record.metrics for record in records)


def _interval(bounds: tuple[float, float] | None) -> Cell:
    text = fmt.interval(bounds, fmt.SECONDS)
    return Cell(text, text if bounds else None)


def _samples(column: Column, name: str) -> Field[Record]:
    """How many samples: one an epoch, or one a round."""

    def count(record: Record) -> int:
        return sample_count(record.metrics, name)

    return Field(column, lambda r: _count_cell(count(r)), key=count)


def _count_cell(count: int) -> Cell:
    return exact_cell(count) if count else Cell(fmt.NOTHING)


def _parity(column: Column, name: ParityErrorName) -> Field[Record]:
    return Field(column, lambda record: cell(parity_error(record, name), fmt.error))


def _share_of_peak(record: Record, ceilings: Sequence[DeviceCeilings]) -> Cell:
    """The equations' operations a second of a train step, over the multiply-adds that the device can do at best."""
    known, metrics = best_ceilings(ceilings, record), record.metrics
    step = metrics.get("train_step_seconds")
    several = record.case.devices > 1  # the ceilings are those of one
    if known is None or several or not known.fma_flops_per_second or step is None or "train_step_flops" not in metrics:
        return Cell(fmt.NOTHING)
    part = metrics["train_step_flops"].value / step.value / known.fma_flops_per_second
    return Cell(fmt.plain_number(100 * part), part, "share")


def _split(column: Column, name: str) -> Field[Record]:
    return Field(column, lambda r: _facts(r.data.get(name)), key=lambda r: r.data.get(name))


@lru_cache(maxsize=256)
def _facts(facts: SplitFacts | None) -> Cell:
    if facts is None:
        return Cell(fmt.NOTHING)
    used, full = fmt.count(facts.count), fmt.count(facts.full_count)
    return Cell(used if facts.count == facts.full_count else f"{used} of {full}", facts.count)


class _Notes:
    """Numbers what is to be said of single cases; what is to be said of all that ran needs no number."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._said: dict[tuple[object, ...], tuple[str, ...]] = {}
        for record in records:
            if _notable(record) not in self._said:
                self._said[_notable(record)] = tuple(dict.fromkeys(_said(record)))
        ran = [set(texts) for (status, _, _), texts in self._said.items() if status == "ok"]
        everywhere = set.intersection(*ran) if ran else set()
        texts = dict.fromkeys(text for texts in self._said.values() for text in texts)
        self.general = tuple(text for text in texts if text in everywhere)
        self.numbered = tuple(text for text in texts if text not in everywhere)
        self._number = {text: number for number, text in enumerate(self.numbered, 1)}
        self.referred: set[int] = set()

    def status(self, record: Record) -> Cell:
        """The status of a case, with the numbers of its notes."""
        numbers = [self._number[text] for text in self._said[_notable(record)] if text in self._number]
        self.referred.update(numbers)
        told = f"{record.status} ({','.join(map(str, numbers))})" if numbers else record.status
        return Cell(told, record.status)


def _notable(record: Record) -> tuple[str, str, tuple[str, ...]]:
    """What the notes of a record follow from; thousands of records have it in common."""
    return record.status, record.reason, record.notes


def _said(record: Record) -> Iterable[str]:
    if record.reason or record.status != "ok":
        yield f"{record.status}: {fmt.label(record.reason) or 'no reason was given'}"
    yield from (fmt.label(note) for note in record.notes if not note.startswith("ops:"))  # those stand under the ops
