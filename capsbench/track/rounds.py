"""The visits of a round: one after the other, or side by side, taking turns sample by sample."""

from collections.abc import Callable, Sequence

from capsbench.record.schema import Record
from capsbench.runner.turns import Work, in_turns
from capsbench.track.interleave import Turn
from capsbench.track.visit import Turns

Visit = Callable[[Turn, Turns | None], Record]
"""Makes one visit, which takes turns if it is told how."""


def take_round(turns: Sequence[Turn], visit: Visit) -> list[Record]:
    """Make the visits, those that are meant to be beside each other at the same time.

    Args:
        turns: one or two.
        visit: makes one.
    """
    if len(turns) == 2 and all(turn.beside for turn in turns):
        first, second = turns
        return list(in_turns(_work(first, visit), _work(second, visit)))
    return [visit(turn, None) for turn in turns]


def _work(turn: Turn, visit: Visit) -> Work[Record]:
    return lambda descriptor, given_up: visit(turn, Turns(descriptor, given_up))
