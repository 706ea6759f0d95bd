"""Two revisions in turns: who is visited when, what is compared, and what is looked at again before it is worse.

Every visit is a fresh process of that revision. First everything is measured once on each side; then come rounds of
times only. The two visits of a round are made at the same time and take turns, sample by sample, where the machine has
room for both; so they are a pair. Rounds go A B, B A, A B, …
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from capsbench.measure.memory import available_bytes
from capsbench.metrics import metric_type
from capsbench.record.changes import TESTED, Change
from capsbench.record.pairs import Pair
from capsbench.record.schema import Record
from capsbench.stats.verdict import least_pairs
from capsbench.suite.schema import Measure
from capsbench.track.cells import Cell
from capsbench.track.pooling import pooled, with_fresh_times, with_times

SideName = Literal["base", "head"]
Purpose = Literal["first", "times", "again"]
SIDES: Final[tuple[SideName, SideName]] = ("base", "head")

_SHARE_OF_MEMORY: Final = 0.8
LEAST_FRESH_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A visit: whose, for which case, what for, in which of how many rounds (from 0), whether beside the other's."""

    side: SideName
    cell: Cell
    purpose: Purpose
    number: int
    rounds: int
    beside: bool = False

    @property
    def measure(self) -> tuple[Measure, ...]:
        """What is measured now."""
        whole = self.cell.suite.measure
        if self.purpose == "first":
            return whole
        # Times that look worse are explained by op tables, which scatter too: they are taken as often.
        return ("time", "ops") if self.purpose == "again" and "ops" in whole else ("time",)


Take = Callable[[Sequence[Turn]], Sequence[Record]]
"""Makes the visits of a round: one, or two of either side."""
Judge = Callable[[Sequence[Pair]], Sequence[Change]]
"""How pairs are compared: `record.compare.compare` with its margin."""


@dataclass(slots=True)
class Series:
    """One case's records of both sides so far.

    Attributes:
        cell: the case.
        first: where everything was measured.
        rounds: of times, a record a round.
    """

    cell: Cell
    first: dict[SideName, Record] = field(default_factory=dict)
    rounds: Mapping[SideName, list[Record]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def timed(self) -> bool:
        """Whether further rounds say more: both sides work, and times are asked for."""
        ended = all(record.status == "ok" for side in SIDES for record in self._of(side))
        return ended and "time" in self.cell.suite.measure

    @property
    def test_count(self) -> int:
        """Number of rank tests over its times and rates: one for each metric of both first records that has a test."""
        base, head = (self.first[side].metrics for side in SIDES)
        return sum(
            base[name].kind == "sampled" and metric_type(name).has_own_test for name in base.keys() & head.keys()
        )

    @property
    def fits_beside(self) -> bool:
        """Whether both sides can be there at the same time: on processors, and in the memory that is free.

        Two processes share a GPU only as its driver likes.
        """
        known = [self._of(side) for side in SIDES]
        if not all(known) or any(record.case.device != "cpu" for records in known for record in records):
            return False
        held = (records[-1].metrics.get("peak_rss_bytes") for records in known)
        return sum(metric.value for metric in held if metric) < _SHARE_OF_MEMORY * available_bytes()

    def pair(self) -> Pair:
        """What there is of both sides: times of the rounds, where there are any, and the rest as it was first."""
        base, head = (self._pooled(side) for side in SIDES)
        return Pair(base, head)

    def _of(self, side: SideName) -> list[Record]:
        return [*([self.first[side]] if side in self.first else []), *self.rounds[side]]

    def _pooled(self, side: SideName) -> Record:
        first, rounds = self.first.get(side), self.rounds[side]
        if first is None or not rounds:
            return pooled(rounds) if first is None else first
        return with_times(first, pooled(rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What came out.

    Attributes:
        pairs: of all cases, in their order.
        changes: with the last word on each.
        suspected: times that looked worse before fresh rounds were taken.
        confirmed: those of them that the fresh rounds alone called worse.
    """

    pairs: tuple[Pair, ...]
    changes: tuple[Change, ...]
    suspected: int = 0
    confirmed: int = 0


def first_round(cells: Iterable[Cell], take: Take) -> tuple[Series, ...]:
    """Measure everything once on each side; a side that fails does not keep the other from being measured."""
    made = tuple(Series(cell) for cell in cells)
    for series in made:
        for side in SIDES:
            turn = Turn(side=side, cell=series.cell, purpose="first", number=0, rounds=1)
            [series.first[side]] = take([turn])
    return made


def usual_rounds(series: Sequence[Series]) -> int:
    """Return the fewest rounds with which a time can be called worse, corrected for all times and error rates."""
    errors = sum("accuracy" in each.cell.suite.measure for each in series)
    return least_pairs(max(1, sum(each.test_count for each in series if each.timed) + errors))


def later_rounds(series: Sequence[Series], rounds: int, take: Take, purpose: Purpose = "times") -> None:
    """Take so many rounds of times of each series; once a side of one has failed, it takes no more."""
    for number in range(rounds):
        for each in (each for each in series if each.timed):
            sides, beside = (SIDES if number % 2 == 0 else SIDES[::-1]), each.fits_beside
            turns = [
                Turn(side=side, cell=each.cell, purpose=purpose, number=number, rounds=rounds, beside=beside)
                for side in sides
            ]
            for side, record in zip(sides, take(turns), strict=True):
                each.rounds[side].append(record)


def findings_of(series: Sequence[Series], judge: Judge) -> Findings:
    """Compare what there is."""
    pairs = tuple(each.pair() for each in series)
    return Findings(pairs=pairs, changes=tuple(judge(pairs)))


def suspects(findings: Findings) -> list[Change]:
    """Return the times and rates whose own test says worse, which fresh rounds must confirm."""
    return [change for change in findings.changes if _looks_worse(change) and not _follows(change)]


def _looks_worse(change: Change) -> bool:
    return change.kind in TESTED and change.verdict == "worse"


def _follows(change: Change) -> bool:
    """Whether the test of another metric of the same case decides, as that of the train step does of images/s."""
    return metric_type(change.metric).same_test_as in change.pair.base.metrics


def confirm(series: Sequence[Series], findings: Findings, rounds: int, take: Take, judge: Judge) -> Findings:
    """Take fresh rounds of the cases whose times look worse, and let those alone decide on these times.

    Samples that raised the suspicion are the worst of many and would confirm it too often.
    """
    doubtful = {id(change): change for change in findings.changes if _looks_worse(change)}
    place = {id(pair): number for number, pair in enumerate(findings.pairs)}
    metrics: defaultdict[int, set[str]] = defaultdict(set)
    for change in doubtful.values():
        metrics[place[id(change.pair)]].add(change.metric)
    again = {number: Series(series[number].cell, first=series[number].first) for number in metrics}
    later_rounds(list(again.values()), rounds, take, "again")
    pairs = list(findings.pairs)
    for number, each in again.items():
        pairs[number] = _freshened(pairs[number], each.pair(), rounds)
    fresh = _fresh_changes({number: _only(again[number].pair(), names) for number, names in metrics.items()}, judge)
    changes = []
    for change in findings.changes:
        number = place[id(change.pair)]
        if id(change) in doubtful:  # undecided where fresh rounds were to decide and could not be taken
            change = fresh.pop((number, change.metric), replace(change, verdict="undecided"))  # noqa: PLW2901
        changes.append(replace(change, pair=pairs[number]))
    changes += [replace(change, pair=pairs[number]) for (number, _), change in fresh.items()]
    found = Findings(pairs=tuple(pairs), changes=tuple(changes), suspected=len(suspects(findings)))
    return replace(found, confirmed=len(suspects(found)))


def _freshened(old: Pair, new: Pair, rounds: int) -> Pair:
    return Pair(with_fresh_times(old.base, new.base, rounds), with_fresh_times(old.new, new.new, rounds))


def _fresh_changes(pairs: Mapping[int, Pair], judge: Judge) -> dict[tuple[int, str], Change]:
    """What changed in some pairs alone, by their numbers and metrics."""
    numbers = {id(pair): number for number, pair in pairs.items()}
    return {(numbers[id(change.pair)], change.metric): change for change in judge(list(pairs.values()))}


def _only(pair: Pair, metrics: set[str]) -> Pair:
    """A pair that has nothing but some metrics."""
    base, new = (
        replace(side, ops=(), metrics={name: metric for name, metric in side.metrics.items() if name in metrics})
        for side in (pair.base, pair.new)
    )
    return Pair(base, new)
