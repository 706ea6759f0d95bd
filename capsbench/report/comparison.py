"""Two runs as a table: what changed from A to B, by how much, how sure that is, and one word for it."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from capsbench.record.changes import (
    TESTED,
    WORDS,
    Change,
    Kind,
    Word,
    cases,
    chosen,
    counts,
    places_of,
    seeds,
    tested_examples,
    worst_first,
)
from capsbench.record.noise import Noise
from capsbench.record.pairs import Pair, Pairing
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.fields import KEY_ATTRIBUTES, SETTING_ATTRIBUTES
from capsbench.report.rows import Field, attributes, table_of_items
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.stats.shift import Shift
from capsbench.stats.verdict import Difference

_KINDS: Final[Mapping[Kind, str]] = {
    "status": "how cases end",
    "exact": "repeat exactly",
    "bytes": "other bytes",
    "time": "times",
    "rate": "rates",
    "error": "error rates",
}
_MOST_NAMED: Final = 5

_RATIO: Final = (
    "ratio: B over A; of times the median over all pairs of processes, with the interval that the rank test does not "
    "reject at 95 % (with three rounds a side: all there is)."
)
_PAIRED_RATIO: Final = (
    "ratio: B over A; of times from the pairs of processes that took turns, round by round, with the interval that the "
    "signed-rank test does not reject at 95 % (with five rounds or fewer: all there is)."
)
_VERDICT: Final = (
    "verdict: of times and error rates with a chance of at most 1 % for any false alarm in the table; of numbers that "
    "repeat exactly by any difference. undecided (12): so many rounds, or seeds, would decide it."
)


def comparison_tables(
    changes: Sequence[Change],
    *,
    everything: bool,
    margin: float,
    most: int | None = None,
) -> tuple[Table, ...]:
    """One table, or none where there is nothing to show.

    Args:
        changes: of all cases.
        everything: show what is the same, too.
        margin: what share of a time counted for nothing, where no noise asked for more.
        most: rows that will be shown; of more the worse come first, and then by the other verdicts. None for all.
    """
    shown = changes if everything else chosen(changes, ("worse", "better", "changed", "undecided"))
    if not len(shown):
        return ()
    fields = (*_CASE_FIELDS, *([_SEED] if len(seeds(changes)) > 1 else []), *_FIELDS)
    if most is not None and len(shown) > most:
        shown = worst_first(shown)
    tested = tested_examples(shown)
    notes = (_PAIRED_RATIO if any(map(_is_paired, tested)) else _RATIO, _VERDICT, _margins(tested, margin))
    urgent = places_of(shown, "worse")
    return (table_of_items("A and B", fields, shown, notes, urgent=urgent, urgent_name="worse", examples=cases(shown)),)


def verdict_table(changes: Sequence[Change], runs: tuple[str, ...], said: Sequence[str]) -> Table:
    """How many numbers came out how, by how they were compared; for whoever reads no console.

    Args:
        changes: of all cases.
        runs: ids of A and B.
        said: sentences that go with it.
    """
    known = counts(changes)
    columns = (Column("verdict", "key", "left"), *(Column(name) for name in _KINDS.values()))
    rows = tuple(
        (text_cell(word), *(cell(known[word, kind], fmt.count) for kind in _KINDS))
        for word in WORDS
        if any(known[word, kind] for kind in _KINDS)
    )
    names = tuple(f"{side}: {fmt.label(run)}" for side, run in zip("AB", runs, strict=True))
    return Table("Verdicts on B", columns, rows, context=names, notes=tuple(said))


def summary(changes: Sequence[Change], pairing: Pairing) -> Iterator[str]:
    """In sentences: how many numbers came out how, and which cases stand alone."""
    known = Counter[Word]()
    for (word, _), count in counts(changes).items():
        known[word] += count
    told = ", ".join(f"{known[word]:,} {word}" for word in WORDS if known[word])
    cases = "1 case" if len(pairing.pairs) == 1 else f"{len(pairing.pairs):,} cases"
    yield f"{cases} in both runs; numbers: {told or 'none that can be compared'}"
    for name, records in (("A", pairing.only_base), ("B", pairing.only_new)):
        if records:
            named = ", ".join(fmt.label(record.case.id) for record in records[:_MOST_NAMED])
            more = f" and {len(records) - _MOST_NAMED:,} more" if len(records) > _MOST_NAMED else ""
            yield f"only in {name}: {named}{more}"


def apart(pairing: Pairing, most: int | None = None) -> Iterator[str]:
    """A sentence for each pair that had other images or another training, so that its error rates say nothing.

    Of more than `most` the others are counted.
    """
    found = [(pair, reason) for pair in pairing.pairs if (reason := _on_apart(pair))]
    yield from (f"{fmt.label(pair.base.case.id)}: {reason}" for pair, reason in found[:most])
    if most is not None and len(found) > most:
        yield f"{len(found) - most:,} more cases had other images or another training"


def _on_apart(pair: Pair) -> str:
    """What its sides do not have in common; nothing where error rates can be compared."""
    base, new = pair.base, pair.new
    splits = sorted(name for name in base.data if new.data.get(name) not in {None, base.data[name]})
    if splits:
        return f"other images in A and in B ({', '.join(splits)})"
    if base.fingerprint.protocol != new.fingerprint.protocol and "error_rate" in base.metrics:
        return "trained otherwise in A and in B, so that error rates are not compared"
    return ""


def noise_notes(changes: Sequence[Change], noise: Sequence[Noise], *, interleaved: bool) -> Iterator[str]:
    """What times were held against: the floors of the machine, or that it has none; nothing where no time is compared.

    Args:
        changes: of all cases.
        noise: what is known of it.
        interleaved: as `compare` was told.
    """
    if not any(kind in TESTED for _, kind in counts(changes)):
        return
    if not noise:
        yield (
            "noise floor: none is known of this machine, so that the margin is a guess; "
            "`capsbench doctor --noise` records one"
        )
    times = tested_examples(changes) if noise else []
    for known in noise:
        yield f"noise floor of {fmt.label(known.machine.processor)}: {_floors(times, known, interleaved=interleaved)}"


def _floors(times: Sequence[Change], known: Noise, *, interleaved: bool) -> str:
    """Which floors the times had, by metric, and where they come from."""
    found: dict[tuple[bool, str, int], list[float]] = {}
    for change in times:
        assert change.seen is not None  # noqa: S101 - of times there is always a shift
        beside, count = interleaved and change.pair.beside, change.seen.count
        floor = known.floor_of(change.pair.base.case, change.metric, count, interleaved=beside)
        if floor > 0.0:
            found.setdefault((beside, change.metric, count), []).append(floor)
    told = [
        f"{_span(floors)} of {metric} with {_processes(count)} a side, {_HOW[beside]}"
        for (beside, metric, count), floors in found.items()
    ]
    if not told:
        return "none of what is compared here was recorded; `capsbench doctor --noise --backend` records more"
    days = sorted({each.measured[:10] for each in known.recordings})
    return f"{'; '.join(told)} (recorded {', '.join(days)})"


_HOW: Final = {True: "taking turns", False: "one after the other"}


def _span(shares: Sequence[float]) -> str:
    low, high = fmt.percent(min(shares)), fmt.percent(max(shares))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _margins(tested: Sequence[Change], margin: float) -> str:
    raised = [change.margin for change in tested if change.margin is not None and change.margin > margin]
    more = f", or {_span(raised)} where the machine's noise floor is more" if raised else ""
    return f"margin: within {fmt.percent(margin)} % a time is the same{more}."


def _is_paired(change: Change) -> bool:
    return isinstance(change.seen, Shift) and change.seen.paired


def _side(change: Change, *, is_new: bool) -> Cell:
    value = change.new if is_new else change.base
    if change.kind == "status":
        return text_cell(change.text.split(" → ")[is_new])
    write = _writer(change.pair.base, change)
    return Cell(write(value), value, "share" if change.kind == "error" else fmt.UNITS.get(write, ""))


def _ratio_cell(change: Change) -> Cell:
    return Cell(fmt.NOTHING) if change.kind == "status" else Cell(_ratio(change.ratio), change.ratio)


def _verdict_cell(change: Change) -> Cell:
    needed = change.needed
    return Cell(change.verdict if needed is None else f"{change.verdict} ({needed:,})", change.verdict)


def _seed(change: Change) -> Cell:
    return text_cell("all") if change.kind == "error" else cell(change.pair.base.case.seed, fmt.count)


def _writer(record: Record, change: Change) -> Callable[[float | None], str]:
    if change.kind == "error":
        return lambda part: f"{fmt.percent(part)} %"
    metric = record.metrics.get(change.metric)
    return {"s": fmt.seconds, "B": fmt.size, "FLOP": fmt.flops}.get(metric.unit if metric else "1", fmt.count)


def _ratio(ratio: float | None) -> str:
    return fmt.NOTHING if ratio is None else f"{ratio:.4g}"


def _interval(change: Change) -> Cell:
    if change.seen is None or change.interval is None:
        return Cell(fmt.NOTHING)
    low, high = change.interval
    if isinstance(change.seen, Difference):
        return Cell(f"{100 * low:+.2f}–{100 * high:+.2f} %") if change.seen.count > 1 else Cell(fmt.NOTHING)
    return Cell(f"{low:.3f}–{high:.3f}")


_CASE_FIELDS: Final[tuple[Field[Change], ...]] = attributes((*KEY_ATTRIBUTES, *SETTING_ATTRIBUTES), "pair.base")
_SEED: Final = Field(Column("seed", "key"), _seed)
_FIELDS: Final[tuple[Field[Change], ...]] = (
    Field(Column("metric", "key", "left"), lambda change: text_cell(change.metric)),
    Field(Column("A", group="numbers"), partial(_side, is_new=False), mixed=True),
    Field(Column("B", group="numbers"), partial(_side, is_new=True), mixed=True),
    Field(Column("ratio", group="ratio"), _ratio_cell),
    Field(Column("its\ninterval", group="ratio"), _interval),
    Field(Column("verdict", "status", "left"), _verdict_cell),
)
