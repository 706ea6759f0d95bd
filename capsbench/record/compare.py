"""Two runs side by side: what changed of each case. Lower is better in everything here.

Cases that have the same metrics are compared together, so that of a hundred thousand no number is looked at alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Final, Literal, TypeGuard

import numpy as np
import numpy.typing as npt

from capsbench.metrics import OP_CALLS, Direction, MetricType, comparison_of, metric_type
from capsbench.record.changes import ERROR_MARGIN, WORDS, Change, ErrorRate, Kind, Rows, changes_of
from capsbench.record.classes import Classed, Places, grouped_places, taken, told
from capsbench.record.noise import Noise
from capsbench.record.pairs import Block, Pair, Side, base_seeds, blocks, setting_of, values
from capsbench.record.schema import Metric, Record
from capsbench.stats.shift import Shifts, shifts_of
from capsbench.stats.verdict import MARGIN, VERDICTS, decide, decide_shifts, difference, holm
from capsbench.store.records import in_both, op_calls

_ERROR: Final = "error_rate"

Numbers = npt.NDArray[np.float64]
_Array = npt.NDArray[Any]
_WORSE, _BETTER, _CHANGED, _SAME = (WORDS.index(word) for word in ("worse", "better", "changed", "same"))
_WORD_OF_VERDICT: Final = np.array([WORDS.index(verdict) for verdict in VERDICTS])


@dataclass(slots=True)
class Unchanged:
    """Exact numbers that are the same in A and in B, of which there are too many in large runs to keep each.

    Attributes:
        count: how many there are.
        seeds: of their cases.
    """

    count: int = 0
    seeds: set[int] = field(default_factory=set)


def compare(
    pairs: Sequence[Pair],
    *,
    margin: float = MARGIN,
    noise: Sequence[Noise] = (),
    interleaved: bool = False,
    unchanged: Unchanged | None = None,
) -> Sequence[Change]:
    """Everything that can be compared, case by case, error rates last.

    Args:
        pairs: of cases.
        margin: what share of a time counts for nothing, where no noise asks for more.
        noise: of the machines that the sides were measured on, as far as it is known; the largest floor counts.
        interleaved: whether the processes of both sides took turns, round by round: times are then compared pair by
            pair, and held to a floor of their own.
        unchanged: where exact numbers that are the same are counted and left out; None to have them among the changes.
    """
    of_blocks = [_trained_alike(each, pairs) for block in blocks(pairs) for each in _of_block(block)]
    rows = [each for each in of_blocks if isinstance(each, Rows)]
    if unchanged is not None:
        rows = [_counted(each, pairs, unchanged) for each in rows]
    times = list(_shifted([each for each in of_blocks if isinstance(each, _Times)], paired=interleaved))
    errors = list(_errors(pairs))
    *of_times, of_errors = _corrected([*(each.seen.p_values for each in times), _p_values(errors)], times)
    for number, (each, corrected) in enumerate(zip(times, of_times, strict=True)):
        margins = _margins(pairs, each, margin, noise, interleaved=interleaved)
        words = _WORD_OF_VERDICT[decide_shifts(each.seen, corrected, margins)]
        rows.append(Rows(each.metric, each.kind, each.cases, each.positions, words, number, margins))
        rows += (_same_test(each, derived, words, number, margins) for derived in of_blocks if _is_of(derived, each))
    rows.append(_of_errors(errors, of_errors))
    seen = tuple(each.seen for each in times), tuple(each for _, each in errors)
    tested = sum(len(each.seen) for each in times if _is_testable(each)) + len(errors)
    found = changes_of(pairs, rows, *seen, tested)
    return found if isinstance(pairs, Classed) else tuple(found)


@dataclass(frozen=True, slots=True)
class _Times:
    """Samples of a time in A and in B, [cases, samples]; which cases and where in each, as in `Rows`.

    Of a rate the samples are the times that it stands for, its reciprocals, so that lower is better.
    """

    metric: str
    kind: Kind
    cases: Places
    positions: Places
    base: Numbers
    new: Numbers


@dataclass(frozen=True, slots=True)
class _Derived:
    """A rate that another metric's test decides; which cases and where in each, as in `Rows`."""

    metric: str
    source: str
    cases: Places
    positions: Places


@dataclass(frozen=True, slots=True)
class _Shifted:
    """Times and what is seen of them; those that cannot be compared are left out."""

    metric: str
    kind: Kind
    cases: Places
    positions: Places
    seen: Shifts


def numbers(record: Record) -> Mapping[str, Metric]:
    """A record's metrics, and how many calls its profiled step made."""
    calls = op_calls(record)
    if calls is None:
        return record.metrics
    return {**record.metrics, OP_CALLS: Metric(value=calls, unit="1", direction="lower", kind="exact")}


def _of_block(block: Block) -> Iterator[Rows | _Times | _Derived]:
    """What can be compared case by case: how cases ended, and what the table of metrics says of each number."""
    base, new = block.example.base, block.example.new
    yield from _of_statuses(block)
    common = list(in_both(base.metrics, new.metrics))
    for position, (name, kind, _, _, direction) in enumerate(common, 1):
        positions, known = np.full(len(block.places), position), metric_type(name, base.metrics[name].unit, direction)
        match comparison_of(known, is_exact=kind == "exact"):
            case "exact":
                words = _exactly(block.base.values(name), block.new.values(name), direction)
                yield Rows(name, "exact", block.places, positions, words)
            case "bytes":
                words = _of_bytes(block.base.values(name), block.new.values(name), known)
                yield Rows(name, "bytes", block.places, positions, words)
            case "rate" if known.same_test_as in base.metrics and known.same_test_as in new.metrics:
                yield _Derived(name, known.same_test_as, block.places, positions)
            case "time" | "rate" as how:
                sides = (_samples(side, name, how) for side in (block.base, block.new))
                yield _Times(name, how, block.places, positions, *sides)
    if op_calls(base) is not None and op_calls(new) is not None:
        words = _exactly(block.base.calls, block.new.calls, "lower")
        yield Rows(OP_CALLS, "exact", block.places, np.full(len(block.places), len(common) + 1), words)


@np.errstate(divide="ignore")  # a rate of 0 has no time, and is left out of what is compared
def _samples(side: Side, name: str, kind: Literal["time", "rate"]) -> Numbers:
    """One number a process: samples of a single one count as one."""
    samples = side.samples(name) if metric_type(name).is_replicated else side.values(name)[:, None].astype(np.float64)
    return samples if kind == "time" else 1.0 / samples


def _of_statuses(block: Block) -> Iterator[Rows]:
    before, after = block.example.base.status, block.example.new.status
    if before != after:
        word = _WORSE if before == "ok" else _BETTER if after == "ok" else _CHANGED
        yield Rows("status", "status", block.places, 0 * block.places, 0 * block.places + word)


@np.errstate(invalid="ignore")  # what is no number is another one
def _exactly(base: _Array, new: _Array, direction: Direction) -> Places:
    lower = np.asarray(new < base, dtype=np.bool_)
    moved = np.where(lower == (direction == "lower"), _BETTER, _WORSE)
    differs = np.asarray(base != new, dtype=np.bool_)
    return np.where(differs, _CHANGED if direction == "none" else moved, _SAME)


@np.errstate(invalid="ignore")
def _of_bytes(base: _Array, new: _Array, known: MetricType) -> Places:
    """Compare bytes that do not repeat exactly: within the margin of the metric they are the same."""
    moved = np.asarray(np.maximum(base, new) > np.minimum(base, new) * (1.0 + known.margin), dtype=np.bool_)
    return np.where(moved, _exactly(base, new, known.direction), _SAME)


def _trained_alike(found: Rows | _Times | _Derived, pairs: Sequence[Pair]) -> Rows | _Times | _Derived:
    """Keep of times that trainings took those of cases that both runs trained alike; return all else as it is."""
    if not isinstance(found, _Times) or metric_type(found.metric).measure != "accuracy":
        return found
    alike = np.array(told(taken(pairs, found.cases), _has_one_protocol), dtype=np.bool_)
    cases, positions = found.cases[alike], found.positions[alike]
    return replace(found, cases=cases, positions=positions, base=found.base[alike], new=found.new[alike])


def _has_one_protocol(pair: Pair) -> bool:
    return pair.base.fingerprint.protocol == pair.new.fingerprint.protocol


def _counted(rows: Rows, pairs: Sequence[Pair], unchanged: Unchanged) -> Rows:
    """Without exact numbers that are the same, which are counted."""
    if rows.kind != "exact":
        return rows
    same = rows.words == _SAME
    unchanged.count += int(same.sum())
    unchanged.seeds |= set(base_seeds(pairs, rows.cases[same]))
    return replace(rows, cases=rows.cases[~same], positions=rows.positions[~same], words=rows.words[~same])


def _shifted(times: Sequence[_Times], *, paired: bool) -> Iterator[_Shifted]:
    """Times of one name with equally many samples are reckoned with together."""
    alike: dict[tuple[object, ...], list[_Times]] = {}
    for each in times:
        alike.setdefault((each.metric, each.kind, each.base.shape[1], each.new.shape[1]), []).append(each)
    for same in alike.values():
        base, new = np.concatenate([each.base for each in same]), np.concatenate([each.new for each in same])
        rows, seen = shifts_of(base, new, paired=paired)
        cases, positions = (
            np.concatenate(each)[rows] for each in ([each.cases for each in same], [each.positions for each in same])
        )
        yield _Shifted(same[0].metric, same[0].kind, cases, positions, seen)


def _is_testable(times: _Shifted) -> bool:
    """Whether a test could ever reject: single samples are shown, but are no part of the family that is corrected."""
    return times.seen.count > 1


def _corrected(p_values: Sequence[Numbers], times: Sequence[_Shifted]) -> list[Numbers]:
    """P-values after Holm's correction over all that can be tested; 1 of what cannot."""
    family = [*map(_is_testable, times), True]
    tested = [each for each, is_tested in zip(p_values, family, strict=True) if is_tested]
    ends = np.cumsum([len(each) for each in tested[:-1]], dtype=np.int64)
    corrected = iter(np.split(holm(np.concatenate(tested)), ends))
    pairs = zip(p_values, family, strict=True)
    return [next(corrected) if is_tested else np.ones(len(each)) for each, is_tested in pairs]


def _p_values(errors: Sequence[tuple[int, ErrorRate]]) -> Numbers:
    return np.array([each.seen.p_value for _, each in errors], dtype=np.float64)


def _is_of(derived: Rows | _Times | _Derived, times: _Shifted) -> TypeGuard[_Derived]:
    return isinstance(derived, _Derived) and derived.source == times.metric


def _same_test(times: _Shifted, derived: _Derived, words: Places, number: int, margins: Numbers) -> Rows:
    """The rows of a rate that the test of its time decides, of the cases that both have."""
    _, places, own = np.intersect1d(times.cases, derived.cases, assume_unique=True, return_indices=True)
    cases, positions = derived.cases[own], derived.positions[own]
    return Rows(derived.metric, "rate", cases, positions, words[places], number, margins[places], places)


def _errors(pairs: Sequence[Pair]) -> Iterator[tuple[int, ErrorRate]]:
    """Error rates of all seeds that both runs trained alike, one for all that differ in the seed only, at the first."""
    base, new = values(pairs, _ERROR)
    for setting, places in grouped_places(pairs, _setting_if_trained_alike).items():
        in_a, in_b = base[places].tolist(), new[places].tolist()
        seen = None if setting is None else difference(in_a, in_b)
        if seen is not None:
            yield int(places[0]), ErrorRate(fmean(in_a), fmean(in_b), seen)


def _setting_if_trained_alike(pair: Pair) -> tuple[object, ...] | None:
    both = _ERROR in pair.base.metrics and _ERROR in pair.new.metrics
    return setting_of(pair.base) if both and _has_one_protocol(pair) else None


def _of_errors(errors: Sequence[tuple[int, ErrorRate]], corrected: Numbers) -> Rows:
    told = zip(errors, corrected.tolist(), strict=True)
    words = [WORDS.index(decide(each.seen, p_value, ERROR_MARGIN)) for (_, each), p_value in told]
    cases = np.array([place for place, _ in errors], dtype=np.int64)
    return Rows(_ERROR, "error", cases, 0 * cases, np.array(words, dtype=np.int64))


def _margins(
    pairs: Sequence[Pair], times: _Shifted, margin: float, noise: Sequence[Noise], *, interleaved: bool
) -> Numbers:
    """What share of times counts for nothing, [cases]."""

    def margin_of(pair: Pair) -> float:
        beside, count = interleaved and pair.beside, times.seen.count
        floors = (n.floor_of(pair.base.case, times.metric, count, interleaved=beside) for n in noise)
        return max(margin, *floors, 0.0)

    return np.array(told(taken(pairs, times.cases), margin_of))
