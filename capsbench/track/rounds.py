"""The visits of a round: one after the other, or side by side, taking turns sample by sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from capsbench.record.pairs import APART
from capsbench.record.schema import Record
from capsbench.runner.turns import Work, in_turns
from capsbench.track.interleave import SideName, Turn
from capsbench.track.visit import Side, Turns

Visit = Callable[[Turn, Turns | None], Record]
"""Makes one visit, which takes turns if it is told how."""


def take_round(turns: Sequence[Turn], visit: Visit, sides: Mapping[SideName, Side]) -> list[Record]:
    """Make the visits, those that are meant to be beside each other at the same time.

    Args:
        turns: one or two.
        visit: makes one.
        sides: whom they are made to; a revision that knows of no turns is visited alone.
    """
    if len(turns) == 1:
        return [visit(turn, None) for turn in turns]
    if all(turn.beside and sides[turn.side].checkout.takes_turns for turn in turns):
        first, second = turns
        return list(in_turns(_work(first, visit), _work(second, visit)))
    return [_noted(visit(turn, None)) for turn in turns]


def _noted(record: Record) -> Record:
    """With a note that its round was not like those that the floor of a processor is recorded in."""
    return replace(record, notes=(*record.notes, APART)) if record.case.device == "cpu" else record


def _work(turn: Turn, visit: Visit) -> Work[Record]:
    return lambda descriptor, given_up: visit(turn, Turns(descriptor, given_up))
