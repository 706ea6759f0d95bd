"""Two runs side by side: which cases are the same work, and what of it changed. Lower is better in everything here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import Final, Literal

from capsbench.record.noise import Noise
from capsbench.record.packed import in_both, samples_of, value_of
from capsbench.record.schema import CaseKey, Direction, Fingerprint, Metric, Record
from capsbench.record.skim import OP_CALLS
from capsbench.record.stored import op_calls
from capsbench.stats.verdict import (
    MARGIN,
    Difference,
    Shift,
    Verdict,
    decide,
    difference,
    holm,
    samples_needed,
    shifts,
)

Kind = Literal["exact", "time", "bytes", "error", "status"]
Word = Verdict | Literal["changed"]
"""A verdict, or that an exact number of no direction is another one."""

ERROR_MARGIN: Final = 0.002
"""Error rates this close, as shares of the images, are called the same."""
# By how much two runs of the same work were seen to differ, where a framework's executor reuses buffers as it likes.
_BYTES_MARGIN: Final = {"peak_bytes": 0.2, "allocated_bytes": 0.005}
_TIMES: Final = ("train_step_seconds", "forward_seconds", "compile_seconds")
_ERROR: Final = "error_rate"
_TOGETHER: Final = 4_096  # numbers whose shifts are reckoned with at a time
# What training came to; of those only error rates are compared, over seeds.
OUTCOMES: Final = {"accuracy", _ERROR, "validation_accuracy", "familiar_accuracy", "train_loss", "epochs"}
APART: Final = "rounds of its times were taken one after the other, not side by side"
"""A note on a case whose sides were not there at the same time, though they took turns."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A case of A and the same case of B."""

    base: Record
    new: Record

    @property
    def beside(self) -> bool:
        """Whether both were there at the same time, if they took turns."""
        return APART not in self.base.notes and APART not in self.new.notes


@dataclass(frozen=True, slots=True)
class Pairing:
    """The cases that both runs have, and those that one has alone."""

    pairs: tuple[Pair, ...]
    only_base: tuple[Record, ...]
    only_new: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One number of one case, in A and in B.

    Attributes:
        pair: the case; of an error rate the first seed's.
        metric: its name, which carries the unit.
        kind: how it was compared.
        base: in A; the mean over seeds of an error rate. None where it is a status.
        new: likewise in B.
        seen: what the verdict was reached from; None where numbers were compared exactly.
        verdict: the outcome.
        text: of a status, both words.
        margin: of a time, what share of it counted for nothing.
        rows: how many were tested together.
    """

    pair: Pair
    metric: str
    kind: Kind
    base: float | None
    new: float | None
    seen: Shift | Difference | None
    verdict: Word
    text: str = ""
    margin: float | None = None
    rows: int = 0

    @property
    def needed(self) -> int | None:
        """Samples a side, or seeds, that would decide what is undecided; None where that cannot be said."""
        if self.verdict != "undecided" or self.seen is None or not self.rows:
            return None
        return samples_needed(self.seen, ERROR_MARGIN if self.margin is None else self.margin, self.rows)

    @property
    def ratio(self) -> float | None:
        """B over A: of times the estimate over all pairs of samples, else of the two numbers; None where A is 0."""
        if isinstance(self.seen, Shift):
            return self.seen.ratio
        return self.new / self.base if self.base and self.new is not None else None


@dataclass(slots=True)
class Unchanged:
    """Exact numbers that are the same in A and in B, of which there are too many in large runs to keep each.

    Attributes:
        count: how many there are.
        seeds: of their cases.
    """

    count: int = 0
    seeds: set[int] = field(default_factory=set)


def pair_cases(base: Iterable[Record], new: Iterable[Record]) -> Pairing:
    """Match cases by what they do: network, data set, realization and setting, and the hash of the network's spec.

    Cases that do the same by all of those, as those of two suites may, are told apart by their ids.
    """
    of_base, of_new = _by_work(base), _by_work(new)
    pairs = []
    for work, records in of_base.items():
        others = of_new.get(work, [])
        if len(records) == len(others) == 1:
            pairs.append(Pair(records[0], others[0]))
            continue
        by_id = {record.case.id: record for record in others}
        pairs += [Pair(record, by_id[record.case.id]) for record in records if record.case.id in by_id]
    paired = {id(record) for pair in pairs for record in (pair.base, pair.new)}
    alone = (
        tuple(r for records in side.values() for r in records if id(r) not in paired) for side in (of_base, of_new)
    )
    return Pairing(tuple(pairs), *alone)


def setting(case: CaseKey, fingerprint: Fingerprint) -> tuple[object, ...]:
    """What makes cases the same work, all but the seed."""
    what = (case.network, fingerprint.network, case.dataset, case.batch, case.routing_iterations)
    return (*what, case.backend, case.mode, case.device, case.threads, case.devices, case.precision, case.allocator)


def compare(
    pairs: Sequence[Pair],
    *,
    margin: float = MARGIN,
    noise: Sequence[Noise] = (),
    interleaved: bool = False,
    unchanged: Unchanged | None = None,
) -> tuple[Change, ...]:
    """Everything that can be compared, case by case.

    Args:
        pairs: of cases.
        margin: what share of a time counts for nothing, where no noise asks for more.
        noise: of the machines that the sides were measured on, as far as it is known; the largest floor counts.
        interleaved: whether the processes of both sides took turns, round by round: times are then compared pair by
            pair, and held to a floor of their own.
        unchanged: where exact numbers that are the same are counted and left out; None to have them among the changes.
    """
    compared = (each for pair in pairs for each in _of_pair(pair, unchanged))
    found = [*_shifted(compared, paired=interleaved), *_errors(pairs)]
    p_values = [each.seen.p_value for each in found if isinstance(each, _Tested) and each.seen is not None]
    corrected = iter(holm(p_values))

    def decided(tested: _Tested) -> Change:
        allowed = _margin(tested, margin, noise, interleaved=interleaved)
        return _decided(tested, next(corrected), allowed, len(p_values))

    return tuple(each if isinstance(each, Change) else decided(each) for each in found)


@dataclass(slots=True)
class _Tested:
    """A time or an error rate, which is decided on together with all others; see `Change`."""

    pair: Pair
    metric: str
    kind: Kind
    base: float
    new: float
    seen: Shift | Difference | None = None


def _by_work(records: Iterable[Record]) -> dict[tuple[object, ...], list[Record]]:
    found: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        found.setdefault((*_setting(record), record.case.seed), []).append(record)
    return found


def _setting(record: Record) -> tuple[object, ...]:
    return setting(record.case, record.fingerprint)


def _of_pair(pair: Pair, unchanged: Unchanged | None) -> Iterator[Change | _Tested]:
    ended = pair.base.status, pair.new.status
    if ended[0] != ended[1]:
        verdict: Word = "worse" if ended[0] == "ok" else "better" if ended[1] == "ok" else "changed"
        yield Change(pair, "status", "status", None, None, None, verdict, text=" → ".join(ended))
    same = 0
    for name, kind, base, new, direction in _common(pair):
        if kind == "exact":
            if base == new and unchanged is not None:
                same += 1
            else:
                yield _exact(pair, name, base, new, direction)
        elif name in _BYTES_MARGIN:
            yield _bytes(pair, name, base, new)
        elif name in _TIMES:
            yield _Tested(pair, name, "time", base, new)
    if unchanged is not None and same:
        unchanged.count += same
        unchanged.seeds.add(pair.base.case.seed)


def _common(pair: Pair) -> Iterator[tuple[str, str, float, float, Direction]]:
    """The numbers that both have and that are compared case by case, as `in_both` tells them."""
    yield from (told for told in in_both(pair.base.metrics, pair.new.metrics) if told[0] not in OUTCOMES)
    before, after = op_calls(pair.base), op_calls(pair.new)
    if before is not None and after is not None:
        yield OP_CALLS, "exact", before, after, "lower"


def _shifted(found: Iterator[Change | _Tested], *, paired: bool) -> Iterator[Change | _Tested]:
    """The same, times with what is seen of them; those that cannot be compared are left out."""
    while some := list(islice(found, _TOGETHER)):
        seen = iter(shifts([_samples(each) for each in some if isinstance(each, _Tested)], paired=paired))
        for each in some:
            if isinstance(each, _Tested):
                each.seen = next(seen)
            if isinstance(each, Change) or each.seen is not None:
                yield each


def _samples(time: _Tested) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return samples_of(time.pair.base.metrics, time.metric), samples_of(time.pair.new.metrics, time.metric)


def numbers(record: Record) -> Mapping[str, Metric]:
    """A record's metrics, and how many calls its profiled step made."""
    calls = op_calls(record)
    if calls is None:
        return record.metrics
    return {**record.metrics, OP_CALLS: Metric(value=calls, unit="1", direction="lower", kind="exact")}


def _exact(pair: Pair, name: str, base: float, new: float, direction: Direction) -> Change:
    verdict: Word = "same"
    if base != new:
        lower = (new < base) == (direction == "lower")
        verdict = "changed" if direction == "none" else "better" if lower else "worse"
    return Change(pair, name, "exact", base, new, None, verdict)


def _bytes(pair: Pair, name: str, base: float, new: float) -> Change:
    """Bytes that do not repeat exactly: beyond what was ever seen without a change they are another number."""
    verdict: Word = "same"
    if max(base, new) > min(base, new) * (1.0 + _BYTES_MARGIN[name]):
        verdict = "better" if new < base else "worse"
    return Change(pair, name, "bytes", base, new, None, verdict)


def _errors(pairs: Sequence[Pair]) -> Iterator[_Tested]:
    """Error rates of all seeds that both runs trained alike, one for all that differ in the seed only."""
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        alike = pair.base.fingerprint.protocol == pair.new.fingerprint.protocol
        if alike and _ERROR in pair.base.metrics and _ERROR in pair.new.metrics:
            groups.setdefault(_setting(pair.base), []).append(pair)
    for group in groups.values():
        base, new = [_error(pair.base) for pair in group], [_error(pair.new) for pair in group]
        yield _Tested(group[0], _ERROR, "error", fmean(base), fmean(new), difference(base, new))


def _error(record: Record) -> float:
    found = value_of(record.metrics, _ERROR)
    assert found is not None  # noqa: S101 - only such pairs are grouped
    return found


def _margin(tested: _Tested, margin: float, noise: Sequence[Noise], *, interleaved: bool) -> float:
    """What of it counts for nothing: a difference of error rates, or a share of a time."""
    if tested.kind == "error":
        return ERROR_MARGIN
    assert tested.seen is not None  # noqa: S101 - others are left out
    case, count = tested.pair.base.case, tested.seen.count
    beside = interleaved and tested.pair.beside
    return max(margin, *(each.floor_of(case, tested.metric, count, interleaved=beside) for each in noise), 0.0)


def _decided(tested: _Tested, corrected: float, margin: float, rows: int) -> Change:
    assert tested.seen is not None  # noqa: S101 - others are left out
    verdict = decide(tested.seen, corrected, margin)
    known = margin if tested.kind == "time" else None
    values = (tested.pair, tested.metric, tested.kind, tested.base, tested.new, tested.seen, verdict)
    return Change(*values, margin=known, rows=rows)
