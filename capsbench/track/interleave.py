"""Two revisions in turns: who is visited when, what is compared, and what is looked at again before it is worse.

Every visit is a fresh process of that revision. Rounds go A B, B A, A B, …, so that a machine that drifts treats both
alike. Everything is measured in the first round; the others take times only.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from capsbench.record.compare import Change, Pair
from capsbench.record.schema import Record
from capsbench.stats.verdict import least_pairs
from capsbench.suite.schema import Measure
from capsbench.track.cells import Cell
from capsbench.track.pooling import pooled, with_fresh_times

SideName = Literal["base", "head"]
Purpose = Literal["first", "times", "again"]
SIDES: Final[tuple[SideName, SideName]] = ("base", "head")

_TIMES_A_CASE: Final = 3
LEAST_FRESH_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A visit: whose, for which case, what for, in which of how many rounds (from 0)."""

    side: SideName
    cell: Cell
    purpose: Purpose
    number: int
    rounds: int

    @property
    def measure(self) -> tuple[Measure, ...]:
        """What is measured now."""
        whole = self.cell.suite.measure
        if self.purpose == "first":
            return whole
        # Times that look worse are explained by op tables, which scatter too: they are taken as often.
        return ("time", "ops") if self.purpose == "again" and "ops" in whole else ("time",)


Take = Callable[[Turn], Record]
Judge = Callable[[Sequence[Pair]], tuple[Change, ...]]
"""How pairs are compared: `record.compare.compare` with its margin."""


@dataclass(slots=True)
class Series:
    """One case's records of both sides so far, a record a round."""

    cell: Cell
    records: Mapping[SideName, list[Record]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def timed(self) -> bool:
        """Whether further rounds say more: both sides work, and times are asked for."""
        ended = all(record.status == "ok" for records in self.records.values() for record in records)
        return ended and "time" in self.cell.suite.measure

    def pair(self) -> Pair:
        """What there is of both sides."""
        base, head = (pooled(self.records[side]) for side in SIDES)
        return Pair(base, head)


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
            series.records[side].append(take(turn))
    return made


def usual_rounds(series: Sequence[Series]) -> int:
    """The fewest rounds with which a time can be called worse at all, in a table of so many times and error rates."""
    errors = sum("accuracy" in each.cell.suite.measure for each in series)
    return least_pairs(max(1, _TIMES_A_CASE * sum(each.timed for each in series) + errors))


def later_rounds(series: Sequence[Series], rounds: int, take: Take, purpose: Purpose = "times") -> None:
    """Add rounds until each series has so many; once a side of one has failed, it takes no more."""
    for number in range(rounds):
        for each in series:
            for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                begun = bool(each.records[side])
                if len(each.records[side]) <= number and (each.timed or not begun):
                    turn = Turn(side=side, cell=each.cell, purpose=purpose, number=number, rounds=rounds)
                    each.records[side].append(take(turn))


def findings_of(series: Sequence[Series], judge: Judge) -> Findings:
    """Compare what there is."""
    pairs = tuple(each.pair() for each in series)
    return Findings(pairs=pairs, changes=judge(pairs))


def suspects(findings: Findings) -> list[Change]:
    """The times that look worse, and are not to be called so yet."""
    return [change for change in findings.changes if change.kind == "time" and change.verdict == "worse"]


def confirm(series: Sequence[Series], findings: Findings, rounds: int, take: Take, judge: Judge) -> Findings:
    """Take fresh rounds of the cases whose times look worse, and let those alone decide on these times.

    Samples that raised the suspicion are the worst of many and would confirm it too often.
    """
    doubtful = {id(change): change for change in suspects(findings)}
    place = {id(pair): number for number, pair in enumerate(findings.pairs)}
    metrics: defaultdict[int, set[str]] = defaultdict(set)
    for change in doubtful.values():
        metrics[place[id(change.pair)]].add(change.metric)
    again = {number: Series(series[number].cell) for number in metrics}
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
    confirmed = sum(change.kind == "time" and change.verdict == "worse" for change in changes)
    return Findings(pairs=tuple(pairs), changes=tuple(changes), suspected=len(doubtful), confirmed=confirmed)


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
