"""Two runs side by side: what changed of each case. Lower is better in everything here."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from statistics import fmean
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from capsbench.metrics import OP_CALLS, Direction, MetricType, comparison_of, metric_type
from capsbench.record.changes import ERROR_MARGIN, Change, Kind, Word
from capsbench.record.grouping import grouped
from capsbench.record.noise import Noise
from capsbench.record.pairs import Pair, setting_of
from capsbench.record.schema import Metric, Record
from capsbench.stats.shift import Shift, Shifts, shifts_of
from capsbench.stats.verdict import MARGIN, VERDICTS, Difference, decide, decide_shifts, difference, holm
from capsbench.store.records import MetricFacts, facts_of, op_calls, read_metrics_of, samples_of, value_of

Numbers = npt.NDArray[np.float64]
Place = tuple[int, int, int]
"""Where a change stands: 1 for error rates, which come last; the pair; the metric among those of the pair."""

_CHUNK: Final = 2_000
"""Pairs whose metrics are read together."""


@dataclass(slots=True)
class Unchanged:
    """Exact numbers that are the same in A and in B, of which there are too many in large runs to keep each.

    Attributes:
        count: how many there are.
        seeds: of their cases.
    """

    count: int = 0
    seeds: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Both:
    """A metric that both sides of a pair have.

    Attributes:
        name: of the metric.
        position: among the metrics that both have, from 1.
        known: what it is.
        how: it is compared.
        direction: whether lower or higher is better.
        derived_from: the metric whose test decides over it; empty where it has its own.
    """

    name: str
    position: int
    known: MetricType
    how: str
    direction: Direction
    derived_from: str


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A metric of both sides of a pair that a test decides over, together with others; `place` as in `Place`."""

    place: Place
    pair: Pair
    base: float
    new: float
    samples: tuple[Sequence[float], Sequence[float]] = ((), ())


@dataclass(slots=True)
class _Found:
    """What was found, pair by pair: changes, and numbers whose verdicts wait until all are known.

    Attributes:
        unchanged: counts exact numbers that are the same, which are then left out.
        changes: each with its place.
        times: by metric, kind and how many samples A and B have.
        derived: by metric and the metric whose test decides over it.
        errors: error rates of cases that both runs trained alike.
    """

    unchanged: Unchanged | None
    changes: list[tuple[Place, Change]] = field(default_factory=list)
    times: dict[tuple[str, Literal["time", "rate"], int, int], list[_Numbers]] = field(default_factory=dict)
    derived: dict[tuple[str, str], list[_Numbers]] = field(default_factory=dict)
    errors: list[_Numbers] = field(default_factory=list)

    def add(self, number: int, pair: Pair) -> None:
        """Compare what of a pair can be compared alone, and keep what waits."""
        base, new = pair.base, pair.new
        if base.status != new.status:
            self._add_status((0, number, 0), pair)
        both = _in_both(facts_of(base.metrics), facts_of(new.metrics))
        for each in both:
            in_a, in_b = value_of(base.metrics, each.name), value_of(new.metrics, each.name)
            assert in_a is not None and in_b is not None  # noqa: S101, PT018 - both have it
            self._add_number(each, _Numbers((0, number, each.position), pair, in_a, in_b))
        calls = op_calls(base), op_calls(new)
        if calls[0] is not None and calls[1] is not None:
            numbers = _Numbers((0, number, len(both) + 1), pair, calls[0], calls[1])
            self._add_exact(OP_CALLS, "lower", numbers)

    def _add_status(self, place: Place, pair: Pair) -> None:
        before, after = pair.base.status, pair.new.status
        word: Word = "worse" if before == "ok" else "better" if after == "ok" else "changed"
        change = Change(pair, "status", "status", None, None, None, word, text=f"{before} → {after}")
        self.changes.append((place, change))

    def _add_number(self, each: _Both, found: _Numbers) -> None:
        match each.how:
            case "exact":
                self._add_exact(each.name, each.direction, found)
            case "bytes":
                self._add(each.name, "bytes", found, _of_bytes(found.base, found.new, each.known))
            case "error" if _has_one_protocol(found.pair):
                self.errors.append(found)
            case "rate" if each.derived_from:
                self.derived.setdefault((each.name, each.derived_from), []).append(found)
            case "time" | "rate" as how if each.known.measure != "accuracy" or _has_one_protocol(found.pair):
                sides = _samples(found.pair.base, each), _samples(found.pair.new, each)
                alike = self.times.setdefault((each.name, how, *map(len, sides)), [])  # type: ignore[arg-type]
                alike.append(_Numbers(found.place, found.pair, found.base, found.new, sides))

    def _add_exact(self, name: str, direction: Direction, found: _Numbers) -> None:
        word = _exactly(found.base, found.new, direction)
        if word == "same" and self.unchanged is not None:
            self.unchanged.count += 1
            self.unchanged.seeds.add(found.pair.base.case.seed)
        else:
            self._add(name, "exact", found, word)

    def _add(self, name: str, kind: Kind, found: _Numbers, word: Word) -> None:
        self.changes.append((found.place, Change(found.pair, name, kind, found.base, found.new, None, word)))


def compare(
    pairs: Sequence[Pair],
    *,
    margin: float = MARGIN,
    noise: Sequence[Noise] = (),
    interleaved: bool = False,
    unchanged: Unchanged | None = None,
) -> tuple[Change, ...]:
    """Everything that can be compared, case by case, error rates last.

    Args:
        pairs: of cases.
        margin: what share of a time counts for nothing, where no noise asks for more.
        noise: of the machines that the sides were measured on, as far as it is known; the largest floor counts.
        interleaved: whether the processes of both sides took turns, round by round: times are then compared pair by
            pair, and held to a floor of their own.
        unchanged: where exact numbers that are the same are counted and left out; None to have them among the changes.
    """
    found = _Found(unchanged)
    for number, pair in enumerate(_with_metrics(pairs)):
        found.add(number, pair)
    times = [_Times.of(*key, alike, paired=interleaved) for key, alike in found.times.items()]
    errors = list(_errors(found.errors))
    *of_times, of_errors = _corrected(times, errors)
    tested = sum(len(each.seen) for each in times if each.is_testable) + len(errors)
    margins = _Margins(margin, noise, interleaved=interleaved)
    for each, corrected in zip(times, of_times, strict=True):
        found.changes += _decided(each, found.derived, corrected, margins, tested)
    found.changes += _of_errors(errors, of_errors, tested)
    found.changes.sort(key=itemgetter(0))
    return tuple(change for _, change in found.changes)


def numbers(record: Record) -> Mapping[str, Metric]:
    """A record's metrics, and how many calls its profiled step made."""
    calls = op_calls(record)
    if calls is None:
        return record.metrics
    return {**record.metrics, OP_CALLS: Metric(value=calls, unit="1", direction="lower", kind="exact")}


def _with_metrics(pairs: Sequence[Pair]) -> Iterator[Pair]:
    """The pairs, of which the metrics of many are read together."""
    waiting = iter(pairs)
    while some := list(islice(waiting, _CHUNK)):
        read_metrics_of(pair.base for pair in some)
        read_metrics_of(pair.new for pair in some)
        yield from some


@lru_cache(maxsize=4096)
def _in_both(base: MetricFacts, new: MetricFacts) -> tuple[_Both, ...]:
    """The metrics of both, and how each is compared."""
    kinds, names = {name: kind for name, _, _, kind in new}, {name for name, *_ in base} & {name for name, *_ in new}
    both = []
    for position, (name, unit, direction, kind) in enumerate((each for each in base if each[0] in kinds), 1):
        known = metric_type(name, unit, direction)
        how = comparison_of(known, is_exact=kind == kinds[name] == "exact")
        derived_from = known.same_test_as if known.same_test_as in names else ""
        both.append(_Both(name, position, known, how, direction, derived_from))
    return tuple(both)


def _samples(record: Record, both: _Both) -> Sequence[float]:
    """One number a process; samples of a single process count as one."""
    if both.known.is_replicated:
        return samples_of(record.metrics, both.name)
    return (float(value_of(record.metrics, both.name) or 0.0),)


def _exactly(base: float, new: float, direction: Direction) -> Word:
    """How an exact number changed; what is no number is another one."""
    if base == new:
        return "same"
    if direction == "none":
        return "changed"
    return "better" if (new < base) == (direction == "lower") else "worse"


def _of_bytes(base: float, new: float, known: MetricType) -> Word:
    """Compare bytes that do not repeat exactly: within the margin of the metric they are the same."""
    moved = max(base, new) > min(base, new) * (1.0 + known.margin)
    return _exactly(base, new, known.direction) if moved else "same"


def _has_one_protocol(pair: Pair) -> bool:
    return pair.base.fingerprint.protocol == pair.new.fingerprint.protocol


@dataclass(frozen=True, slots=True)
class _Times:
    """Times of one name with equally many samples, and the shifts seen of those that can be compared."""

    metric: str
    kind: Literal["time", "rate"]
    numbers: list[_Numbers]
    seen: Shifts

    @classmethod
    def of(
        cls,
        metric: str,
        kind: Literal["time", "rate"],
        count_a: int,
        count_b: int,
        found: list[_Numbers],
        *,
        paired: bool,
    ) -> "_Times":
        """Test them together. Of a rate the samples are the times that it stands for, so that lower is better."""
        shapes = (len(found), count_a), (len(found), count_b)
        base, new = (
            np.array([each.samples[side] for each in found], dtype=np.float64).reshape(shapes[side]) for side in (0, 1)
        )
        if kind == "rate":
            with np.errstate(divide="ignore"):  # a rate of 0 has no time, and is left out of what is compared
                base, new = 1.0 / base, 1.0 / new
        rows, seen = shifts_of(base, new, paired=paired)
        return cls(metric, kind, [found[row] for row in rows.tolist()], seen)

    @property
    def is_testable(self) -> bool:
        """Whether a test could ever reject: single samples are shown, but are no part of the family corrected."""
        return self.seen.count > 1


class _Margins:
    """What share of a time counts for nothing: what was asked for, or more where the machine's noise is more."""

    def __init__(self, margin: float, noise: Sequence[Noise], *, interleaved: bool) -> None:
        self._margin = margin
        self._noise = noise
        self._interleaved = interleaved
        self._known: dict[tuple[object, ...], float] = {}

    def of(self, pair: Pair, metric: str, count: int) -> float:
        """That of a time with so many samples a side."""
        if not self._noise:
            return self._margin
        case, beside = pair.base.case, self._interleaved and pair.beside
        key = (case.backend, case.mode, case.device, metric, count, beside)
        if key not in self._known:
            floors = (each.floor_of(case, metric, count, interleaved=beside) for each in self._noise)
            self._known[key] = max(self._margin, *floors)
        return self._known[key]


def _corrected(times: Sequence[_Times], errors: Sequence[tuple[_Numbers, Difference]]) -> list[Numbers]:
    """P-values after Holm's correction over all that can be tested, of times and then of errors; 1 of the others."""
    p_values = [*(each.seen.p_values for each in times), np.array([seen.p_value for _, seen in errors])]
    family = [*(each.is_testable for each in times), True]
    tested = [each for each, is_tested in zip(p_values, family, strict=True) if is_tested]
    ends = np.cumsum([len(each) for each in tested[:-1]], dtype=np.int64)
    corrected = iter(np.split(holm(np.concatenate(tested)), ends))
    pairs = zip(p_values, family, strict=True)
    return [next(corrected) if is_tested else np.ones(len(each)) for each, is_tested in pairs]


def _decided(
    times: _Times,
    derived: Mapping[tuple[str, str], Sequence[_Numbers]],
    corrected: Numbers,
    margins: _Margins,
    tested: int,
) -> Iterator[tuple[Place, Change]]:
    """The changes of times, and of the rates that their test decides over."""
    of_cases = np.array([margins.of(each.pair, times.metric, times.seen.count) for each in times.numbers])
    words = [VERDICTS[word] for word in decide_shifts(times.seen, corrected, of_cases).tolist()]
    by_pair: dict[int, tuple[Shift, Word, float]] = {}
    for each, shift, word, margin in zip(times.numbers, times.seen, words, of_cases.tolist(), strict=True):
        by_pair[each.place[1]] = shift, word, margin
        yield each.place, _tested(each, times.metric, times.kind, (shift, word, margin), tested)
    for (metric, source), found in derived.items():
        for each in found if source == times.metric else ():
            if each.place[1] in by_pair:
                yield each.place, _tested(each, metric, "rate", by_pair[each.place[1]], tested)


def _tested(found: _Numbers, metric: str, kind: Kind, seen: tuple[Shift, Word, float], rows: int) -> Change:
    shift, word, margin = seen
    return Change(found.pair, metric, kind, found.base, found.new, shift, word, margin=margin, rows=rows)


def _errors(found: Sequence[_Numbers]) -> Iterator[tuple[_Numbers, Difference]]:
    """Means and difference of the error rates of all seeds, one for all cases that differ in the seed only."""
    for alike in grouped(found, lambda each: setting_of(each.pair.base)).values():
        in_a, in_b = [each.base for each in alike], [each.new for each in alike]
        seen = difference(in_a, in_b)
        if seen is not None:
            _, number, position = alike[0].place
            yield _Numbers((1, number, position), alike[0].pair, fmean(in_a), fmean(in_b)), seen


def _of_errors(
    errors: Sequence[tuple[_Numbers, Difference]], corrected: Numbers, rows: int
) -> Iterator[tuple[Place, Change]]:
    for (each, seen), p_value in zip(errors, corrected.tolist(), strict=True):
        word = decide(seen, p_value, ERROR_MARGIN)
        yield each.place, Change(each.pair, "error_rate", "error", each.base, each.new, seen, word, rows=rows)
