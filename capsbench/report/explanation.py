"""Why numbers are worse, in sentences: the op that moved most, or that no op did."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from capsbench.metrics import OpQuantity, metric_type
from capsbench.record.changes import Change, Word, chosen
from capsbench.record.why import UNATTRIBUTED, Mover, explain
from capsbench.report import format as fmt

_MOST: Final = 12
_WORSE: Final[tuple[Word, ...]] = ("worse",)
_WRITE: Final[dict[OpQuantity, Callable[[float | None], str]]] = {
    "bytes": fmt.size,
    "live bytes": fmt.size,
    "calls": fmt.count,
    "seconds": fmt.seconds,
}


def explanations(changes: Sequence[Change]) -> Iterator[str]:
    """A sentence on each change that is worse, of those that an op table can have a say in."""
    worse = chosen(changes, _WORSE, lambda metric: metric_type(metric).op_quantity is not None)
    for change in worse[:_MOST]:
        found = explain(change)
        yield f"{name_of(change)} {change.metric}: {_nothing(change) if found is None else _told(found)}"
    if len(worse) > _MOST:
        yield f"{len(worse) - _MOST:,} more are worse"


def name_of(change: Change) -> str:
    """The case in a word that tells it from the others of a run, without the hash."""
    return fmt.label(change.pair.base.case.id.rpartition("-")[0] or change.pair.base.case.id)


def _told(found: Mover) -> str:
    write = _WRITE[found.quantity]
    alive = " alive at the peak" if found.quantity == "live bytes" else ""
    calls = f", {_calls(found.calls)}" if found.calls is not None and found.quantity != "calls" else ""
    unit = " calls" if found.quantity == "calls" else ""
    return f"{_place(found)}: {write(found.before)} → {write(found.after)}{unit}{alive}{calls}"


def _place(found: Mover) -> str:
    if found.op == UNATTRIBUTED:
        return "what no op is known for"
    parts = [
        f"{fmt.label(found.op)} in {fmt.label(found.layer)}" if found.layer else f"{fmt.label(found.op)} in no layer"
    ]
    parts += [found.phase] if found.phase else []
    if found.routing_iterations:
        several = "s" if len(found.routing_iterations) > 1 else ""
        parts.append(f"routing iteration{several} {', '.join(map(str, found.routing_iterations))}")
    return ", ".join(parts)


def _calls(calls: tuple[int, int]) -> str:
    before, after = calls
    if before == after:
        return f"{before:,} call{'s' if before != 1 else ''} as before"
    return f"{before:,} → {after:,} calls"


def _nothing(change: Change) -> str:
    if not (change.pair.base.ops and change.pair.new.ops):
        return "no op table says why; measure ops"
    return "nothing in the op tables explains it"
