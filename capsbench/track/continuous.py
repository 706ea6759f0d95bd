"""From two revisions and some cases to findings: first round, timing rounds, confirmation; everything is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from capsbench.record.compare import compare
from capsbench.record.noise import Noise
from capsbench.record.schema import Record
from capsbench.stats.verdict import least_pairs
from capsbench.track.cells import Cell
from capsbench.track.interleave import (
    LEAST_FRESH_ROUNDS,
    SIDES,
    Findings,
    Series,
    SideName,
    Turn,
    confirm,
    findings_of,
    first_round,
    later_rounds,
    suspects,
    usual_rounds,
)
from capsbench.track.keep import Kept
from capsbench.track.progress import VisitProgress
from capsbench.track.revisions import Repository, Revision
from capsbench.track.rounds import take_round
from capsbench.track.sides import ready_sides
from capsbench.track.visit import Side, Surroundings, Turns, visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        repository: the user's.
        revisions: by side.
        cells: the cases.
        rounds: timing rounds; None for the fewest that can decide.
        margin: what share of a time counts for nothing, where the noise asks for no more.
        noise: of this machine; None where it is not known.
        data: folder of the data sets.
    """

    repository: Repository
    revisions: Mapping[SideName, Revision]
    cells: Sequence[Cell]
    rounds: int | None
    margin: float
    noise: Noise | None
    data: Path

    @property
    def known_noise(self) -> tuple[Noise, ...]:
        """As comparisons take it."""
        return () if self.noise is None else (self.noise,)


@dataclass(frozen=True, slots=True)
class _Visitor:
    """Makes visits, tells of them, and keeps what the first ones find out."""

    sides: Mapping[SideName, Side]
    around: Surroundings
    progress: VisitProgress
    kept: Mapping[SideName, Kept]

    def take(self, turns: Sequence[Turn]) -> list[Record]:
        """Make the visits of a round."""
        records = take_round(turns, self._visit, self.sides)
        for turn, record in zip(turns, records, strict=True):
            if turn.purpose == "first":
                self.kept[turn.side].append(record, turn.cell)
            self.progress.ended(turn, record)
        return records

    def _visit(self, turn: Turn, turns: Turns | None) -> Record:
        side = self.sides[turn.side]
        self.progress.begins(turn, side.revision.short)
        keep = self.kept[turn.side].store.artifacts if turn.purpose == "first" else None
        return visit(side, turn.cell, turn.measure, self.around, self.progress.said, keep, turns)


def compare_revisions(plan: Plan, kept: Mapping[SideName, Kept], progress: VisitProgress) -> Findings:
    """Measure both revisions in turns and judge.

    Raises:
        BadInput: git cannot check one out.
    """
    judge = partial(compare, margin=plan.margin, noise=plan.known_noise, interleaved=True)
    with ready_sides(plan.repository, plan.revisions, plan.data) as (sides, around):
        take = _Visitor(sides, around, progress, kept).take
        number = len(plan.cells)
        cases = "1 case" if number == 1 else f"{number:,} cases"
        progress.plan("first", 2 * number, f"{cases}, everything once on each side")
        series = first_round(plan.cells, take)
        timed = [each for each in series if each.timed]
        rounds = plan.rounds or usual_rounds(series)
        if timed and rounds > 1:
            progress.plan("times", 2 * len(timed) * rounds, f"times, {rounds} rounds in turns")
            later_rounds(series, rounds, take)
        findings = findings_of(series, judge)
        _keep(findings, series, kept)
        doubtful = suspects(findings)
        if not doubtful:
            return findings
        again = len({id(change.pair) for change in doubtful})
        fresh = max(rounds, LEAST_FRESH_ROUNDS, least_pairs(len(doubtful)))
        looks = "1 time looks" if len(doubtful) == 1 else f"{len(doubtful):,} times look"
        progress.plan("again", 2 * again * fresh, f"{looks} worse: {fresh} fresh rounds decide")
        confirmed = confirm(series, findings, fresh, take, judge)
        _keep(confirmed, series, kept)
        return confirmed


def _keep(findings: Findings, series: Sequence[Series], kept: Mapping[SideName, Kept]) -> None:
    for each, pair in zip(series, findings.pairs, strict=True):
        for side, record in zip(SIDES, (pair.base, pair.new), strict=True):
            kept[side].append(record, each.cell)
