"""Two runs side by side: what changed of each case. Lower is better in everything here.

Metrics are compared one after the other, each in all cases at once, so that of a hundred thousand cases no more than
one metric is held in memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from capsbench.metrics import METRICS, OP_CALLS, Direction, MetricType, comparison_of, metric_type
from capsbench.record.changes import ERROR_MARGIN, WORDS, Changes, ErrorRate, Kind, Places, Rows, Word, in_order
from capsbench.record.grouping import grouped
from capsbench.record.noise import Noise
from capsbench.record.pairs import Pair, setting_of
from capsbench.record.schema import Metric, Record
from capsbench.stats.shift import Shifts, shifts_of
from capsbench.stats.verdict import MARGIN, VERDICTS, decide, decide_shifts, difference, holm
from capsbench.store.records import MetricColumn, MetricFacts, metric_column, metric_names, op_calls

_ERROR: Final = "error_rate"
_STATUS: Final = "status"
_ORDER: Final = {name: number for number, name in enumerate((_STATUS, *METRICS))}
_PLACE_OF_WORD: Final = {word: place for place, word in enumerate(WORDS)}
_WORD_OF_VERDICT: Final = np.array([WORDS.index(verdict) for verdict in VERDICTS])

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Times:
    """Times that were tested together: places of their pairs and what is seen of them, [rows]."""

    metric: str
    kind: Literal["time", "rate"]
    pairs: Places
    seen: Shifts

    @property
    def is_testable(self) -> bool:
        """Whether a test could ever reject: single samples are shown, but are no part of the family corrected."""
        return self.seen.count > 1


@dataclass(slots=True)
class _Found:
    """What is found metric by metric: changes, and what waits for its verdict until all is known.

    Attributes:
        pairs: of cases.
        paired: whether times are compared pair by pair.
        parts: changes.
        times: what a rank test decides over.
        derived: places of the pairs, by metric and the metric whose test decides over it.
        errors: error rates in A and B by places of the pairs, of cases that both runs trained alike.
    """

    pairs: Sequence[Pair]
    paired: bool
    parts: list[Rows] = field(default_factory=list)
    times: list[_Times] = field(default_factory=list)
    derived: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    errors: dict[int, tuple[float, float]] = field(default_factory=dict)

    def add_statuses(self) -> None:
        """Compare how cases ended."""
        statuses = ((pair.base.status, pair.new.status) for pair in self.pairs)
        words: dict[int, Word] = {
            place: "worse" if before == "ok" else "better" if after == "ok" else "changed"
            for place, (before, after) in enumerate(statuses)
            if before != after
        }
        self._add(_STATUS, "status", list(words), list(words.values()))

    def add_exact(
        self, name: str, direction: Direction, places: list[int], both: Iterable[tuple[float, float]]
    ) -> None:
        """Compare numbers that repeat to the last digit, in A and in B."""
        self._add(name, "exact", places, [_exactly(base, new, direction) for base, new in both])

    def add_metric(self, name: str) -> None:
        """Compare a metric of all pairs that have it on both sides; those of different kinds or units apart."""
        base = metric_column([pair.base for pair in self.pairs], name)
        new = metric_column([pair.new for pair in self.pairs], name)
        alike = grouped((at for at in base.values if at in new.values), lambda at: (base.facts[at], new.facts[at]))
        for (in_base, in_new), places in alike.items():
            known = metric_type(name, in_base[1], in_base[2])
            how = comparison_of(known, is_exact=in_base[3] == in_new[3] == "exact")
            self._add_alike(known, how, in_base, places, (base, new))

    def _add_alike(
        self,
        known: MetricType,
        how: str,
        facts: MetricFacts,
        places: list[int],
        sides: tuple[MetricColumn, MetricColumn],
    ) -> None:
        name, (base, new) = known.name, (side.values for side in sides)
        if known.measure == "accuracy" and how in {"time", "rate", "error"}:
            places = [place for place in places if _has_one_protocol(self.pairs[place])]
        match how:
            case "exact":
                self.add_exact(name, facts[2], places, ((base[place], new[place]) for place in places))
            case "bytes":
                self._add(name, "bytes", places, [_of_bytes(base[place], new[place], known) for place in places])
            case "error":
                self.errors |= {place: (base[place], new[place]) for place in places}
            case "time" | "rate" as kind:
                alone = [place for place in places if not _has_both(self.pairs[place], known.same_test_as)]
                if len(alone) < len(places):
                    derived = self.derived.setdefault((name, known.same_test_as), [])
                    derived += sorted(set(places) - set(alone))
                self._add_times(known, kind, alone, sides)

    def _add_times(
        self,
        known: MetricType,
        kind: Literal["time", "rate"],
        places: list[int],
        sides: tuple[MetricColumn, MetricColumn],
    ) -> None:
        """Test the times of cases with equally many samples together."""
        base, new = ([_samples(side, place, known) for place in places] for side in sides)
        alike = grouped(range(len(places)), lambda row: (len(base[row]), len(new[row])))
        for rows in alike.values():
            times = [
                np.array([side[row] for row in rows], dtype=np.float64).reshape(len(rows), -1) for side in (base, new)
            ]
            if kind == "rate":  # of a rate the times that it stands for; a rate of 0 has no time, and is left out
                with np.errstate(divide="ignore"):
                    times = [1.0 / side for side in times]
            usable, seen = shifts_of(*times, paired=self.paired)
            pairs = np.array(places, dtype=np.int64)[np.array(rows, dtype=np.int64)[usable]]
            self.times.append(_Times(known.name, kind, pairs, seen))

    def _add(self, name: str, kind: Kind, places: list[int], words: list[Word]) -> None:
        found = np.array([_PLACE_OF_WORD[word] for word in words], dtype=np.int64)
        self.parts.append(Rows(name, kind, _order(name), np.array(places, dtype=np.int64), found))


def compare(
    pairs: Sequence[Pair],
    *,
    margin: float = MARGIN,
    noise: Sequence[Noise] = (),
    interleaved: bool = False,
) -> Changes:
    """Everything that can be compared, case by case, error rates last.

    Args:
        pairs: of cases.
        margin: what share of a time counts for nothing, where no noise asks for more.
        noise: of the machines that the sides were measured on, as far as it is known; the largest floor counts.
        interleaved: whether the processes of both sides took turns, round by round: times are then compared pair by
            pair, and held to a floor of their own.
    """
    found = _Found(pairs, interleaved)
    found.add_statuses()
    for name in sorted(metric_names(pair.base for pair in pairs), key=lambda name: (_order(name), name)):
        found.add_metric(name)
    calls = [(op_calls(pair.base), op_calls(pair.new)) for pair in pairs]
    profiled = [place for place, both in enumerate(calls) if None not in both]
    found.add_exact(OP_CALLS, "lower", profiled, ((a or 0, b or 0) for a, b in calls if None not in (a, b)))
    errors = list(_errors(pairs, found.errors))
    *of_times, of_errors = _corrected(found.times, [each for _, each in errors])
    margins = _Margins(margin, noise, interleaved=interleaved)
    for times, corrected in zip(found.times, of_times, strict=True):
        found.parts += _decided(times, found.derived, corrected, [margins.of(pairs[at], times) for at in times.pairs])
    found.parts.append(_of_errors(errors, of_errors))
    tested = sum(len(each.seen) for each in found.times if each.is_testable) + len(errors)
    return in_order(pairs, found.parts, tested)


def numbers(record: Record) -> Mapping[str, Metric]:
    """A record's metrics, and how many calls its profiled step made."""
    calls = op_calls(record)
    if calls is None:
        return record.metrics
    return {**record.metrics, OP_CALLS: Metric(value=calls, unit="1", direction="lower", kind="exact")}


def _order(name: str) -> int:
    """Where a metric stands among those of a case: as in the table of metrics, and after those."""
    return _ORDER.get(name, len(_ORDER))


def _samples(side: MetricColumn, place: int, known: MetricType) -> Sequence[float]:
    """One number a process; samples of a single process count as one."""
    return side.samples(place) if known.is_replicated else (float(side.values[place]),)


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


def _has_both(pair: Pair, metric: str) -> bool:
    return metric in pair.base.metrics and metric in pair.new.metrics


def _has_one_protocol(pair: Pair) -> bool:
    return pair.base.fingerprint.protocol == pair.new.fingerprint.protocol


class _Margins:
    """What share of a time counts for nothing: what was asked for, or more where the machine's noise is more."""

    def __init__(self, margin: float, noise: Sequence[Noise], *, interleaved: bool) -> None:
        self._margin = margin
        self._noise = noise
        self._interleaved = interleaved
        self._known: dict[tuple[object, ...], float] = {}

    def of(self, pair: Pair, times: _Times) -> float:
        """That of one of some times."""
        if not self._noise:
            return self._margin
        case, beside = pair.base.case, self._interleaved and pair.beside
        key = (case.backend, case.mode, case.device, times.metric, times.seen.count, beside)
        if key not in self._known:
            found = (each.floor_of(case, times.metric, times.seen.count, interleaved=beside) for each in self._noise)
            self._known[key] = max(self._margin, *found)
        return self._known[key]


def _corrected(times: Sequence[_Times], errors: Sequence[ErrorRate]) -> list[Numbers]:
    """P-values after Holm's correction over all that can be tested, of times and then of errors; 1 of the others."""
    p_values = [*(each.seen.p_values for each in times), np.array([each.seen.p_value for each in errors])]
    family = [*(each.is_testable for each in times), True]
    tested = [each for each, is_tested in zip(p_values, family, strict=True) if is_tested]
    ends = np.cumsum([len(each) for each in tested[:-1]], dtype=np.int64)
    corrected = iter(np.split(holm(np.concatenate(tested)), ends))
    pairs = zip(p_values, family, strict=True)
    return [next(corrected) if is_tested else np.ones(len(each)) for each, is_tested in pairs]


def _decided(
    times: _Times, derived: Mapping[tuple[str, str], Sequence[int]], corrected: Numbers, margins: Sequence[float]
) -> Iterator[Rows]:
    """The changes of times, and of the rates that their test decides over."""
    of_cases = np.array(margins, dtype=np.float64)
    words = _WORD_OF_VERDICT[decide_shifts(times.seen, corrected, of_cases)]
    yield Rows(times.metric, times.kind, _order(times.metric), times.pairs, words, times.seen, (), of_cases)
    for (metric, source), places in derived.items():
        if source == times.metric:
            pairs, _, rows = np.intersect1d(np.array(places), times.pairs, assume_unique=True, return_indices=True)
            yield Rows(metric, "rate", _order(metric), pairs, words[rows], times.seen.take(rows), (), of_cases[rows])


def _errors(pairs: Sequence[Pair], rates: Mapping[int, tuple[float, float]]) -> Iterator[tuple[int, ErrorRate]]:
    """Error rates of all seeds, one for all cases that differ in the seed only, at the first of them."""
    for places in grouped(rates, lambda at: setting_of(pairs[at].base)).values():
        in_a, in_b = zip(*(rates[at] for at in places), strict=True)
        seen = difference(in_a, in_b)
        if seen is not None:
            yield places[0], ErrorRate(fmean(in_a), fmean(in_b), seen)


def _of_errors(errors: Sequence[tuple[int, ErrorRate]], corrected: Numbers) -> Rows:
    told = zip(errors, corrected.tolist(), strict=True)
    words = [WORDS.index(decide(each.seen, p_value, ERROR_MARGIN)) for (_, each), p_value in told]
    places = np.array([place for place, _ in errors], dtype=np.int64)
    rates = tuple(each for _, each in errors)
    return Rows(_ERROR, "error", _order(_ERROR), places, np.array(words, dtype=np.int64), errors=rates)
