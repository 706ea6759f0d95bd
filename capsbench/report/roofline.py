"""What each layer must cost by the network's equations, what it did cost, and how near that is to what the machine can.

A layer is bound by arithmetic or memory, whichever needs longer at the machine's ceiling, or by overhead where neither
explains a quarter of the time that was measured (Williams, Waterman, Patterson, "Roofline", CACM 2009).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from capsbench.measure.ceilings import Ceilings
from capsbench.network.cost import LayerCost
from capsbench.record.ceilings import DeviceCeilings
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import STEP_NAMES, Group, Which, context, groups, seed_notes, title
from capsbench.report.ops import event_key
from capsbench.report.parts import TOTAL, UNATTRIBUTED_LINE, Key, Part, Spent, each, parts, side_columns, summed
from capsbench.report.table import Cell, Column, Table, cell, text_cell

Bound = Literal["arithmetic", "memory", "overhead"]

TITLE: Final = "Layers against their equations"
_EXPLAINED: Final = 0.25
_LEAST: Final = (
    "what the equations ask for: FLOPs, and bytes with each layer's input, parameters and output moved once."
)
_TRAFFIC: Final = (
    "GB/s: of twice the allocated bytes, which are each written once and read at least once, or of the least bytes of "
    "the equations where those are more."
)
_OPTIMIZER: Final = "the equations count each layer's share of the optimizer; its ops have no layer."


@dataclass(frozen=True, slots=True)
class Need:
    """FLOPs and least bytes of a layer, or of all, by the equations."""

    flops: int
    least_bytes: int

    def traffic_bytes(self, spent: Spent) -> int:
        """Bytes that went to or came from memory, at the least."""
        return max(2 * spent.allocated_bytes, self.least_bytes)

    def bound(self, spent: Spent, ceilings: Ceilings) -> Bound:
        """What bounds a layer that took `spent`, on a machine with these ceilings."""
        arithmetic = self.flops / ceilings.flops_per_second
        memory = self.traffic_bytes(spent) / ceilings.bytes_per_second
        if max(arithmetic, memory) < _EXPLAINED * spent.seconds:
            return "overhead"
        return "arithmetic" if arithmetic > memory else "memory"


@dataclass(frozen=True, slots=True)
class _Side:
    """One realization: its step by layers, what the equations ask of it, and its device's ceilings where known."""

    part: Part
    needs: dict[Key, Need]
    ceilings: Ceilings | None


def roofline_tables(
    records: Sequence[Record], ceilings: Sequence[DeviceCeilings] = (), *, which: Which = "train_step"
) -> tuple[Table, ...]:
    """Equations beside measurements, layer by layer, for each group of cases that has both.

    Args:
        records: of a run; of several seeds the first is shown.
        ceilings: of the machine that the run was on; without those of a case's device its shares are left out.
        which: step.
    """
    return tuple(table for group in groups(records) for table in of_group(group, ceilings, which=which))


def best_ceilings(ceilings: Sequence[DeviceCeilings], record: Record) -> Ceilings | None:
    """What the device of a case can do at best, whichever backend came nearest to it; None where nobody has looked."""
    case = record.case
    device = "cuda:0" if case.device == "cuda" else case.device
    fitting = [
        known.ceilings
        for known in ceilings
        if (known.device, known.threads, known.precision) == (device, case.threads, case.precision)
        and min(known.ceilings.flops_per_second, known.ceilings.bytes_per_second) > 0
    ]
    if not fitting:
        return None
    return Ceilings(
        max(known.flops_per_second for known in fitting),
        max(known.bytes_per_second for known in fitting),
        max((known.fma_flops_per_second for known in fitting if known.fma_flops_per_second), default=None),
    )


def of_group(group: Group, ceilings: Sequence[DeviceCeilings] = (), *, which: Which = "train_step") -> Iterator[Table]:
    """The table of one group, or none; as in `roofline_tables`."""
    found = [
        _Side(part, _needs(part.record.equations, which), best_ceilings(ceilings, part.record))
        for part in parts(group, which, event_key("layer"))
        if part.record.equations
    ]
    if not found:
        return
    keys = _keys(found)
    first = found[0].needs
    asked = [first.get(key) for key in keys] + [_all(first)]
    made = [_columns(side, found, keys) for side in found]
    names = [*(name for _, name in keys), TOTAL]
    yield Table(
        title(TITLE, group),
        (
            Column("layer", "key", "left"),
            Column("least\nFLOPs", group="equations"),
            Column("least\nbytes", group="equations"),
            *(head for heads, _ in made for head in heads),
        ),
        tuple(
            (text_cell(name), *_need_cells(need), *(cell for _, cells in made for cell in cells[i]))
            for i, (name, need) in enumerate(zip(names, asked, strict=True))
        ),
        context=context(group, STEP_NAMES[which]),
        notes=(*_notes(found, which), *seed_notes(group)),
        closing_rows=1,
    )


def _needs(equations: Sequence[LayerCost], which: Which) -> dict[Key, Need]:
    if which == "forward":
        return {("layer", cost.layer): Need(cost.forward_flops, cost.forward_least_bytes) for cost in equations}
    return {("layer", cost.layer): Need(cost.train_step_flops, cost.train_step_least_bytes) for cost in equations}


def _all(needs: dict[Key, Need]) -> Need:
    return Need(sum(need.flops for need in needs.values()), sum(need.least_bytes for need in needs.values()))


def _keys(found: Sequence[_Side]) -> list[Key]:
    """The layers in the network's order, what else was measured, the unattributed rest."""
    keys = dict.fromkeys(key for side in found for key in side.needs)
    keys |= dict.fromkeys(sorted(key for side in found for key in side.part.lines if key != UNATTRIBUTED_LINE))
    used = (key for key in keys if any(_matters(side, key) for side in found))
    return [*used, UNATTRIBUTED_LINE]


def _matters(side: _Side, key: Key) -> bool:
    """What was there before the step is alive and costs nothing."""
    spent, need = side.part.lines.get(key, Spent()), side.needs.get(key, Need(0, 0))
    return bool(spent.seconds or spent.allocated_bytes or spent.calls or need.flops or need.least_bytes)


def _need_cells(need: Need | None) -> tuple[Cell, ...]:
    if need is None:
        return (Cell(fmt.NOTHING),) * 2
    return cell(need.flops, fmt.flops), cell(need.least_bytes, fmt.size)


def _columns(
    side: _Side, found: Sequence[_Side], keys: Sequence[Key]
) -> tuple[tuple[Column, ...], list[tuple[Cell, ...]]]:
    """What one realization spent on each layer, at which rates, and what bounds it."""
    part = side.part
    time_unit = fmt.common_unit(max([other.part.total.seconds for other in found]), fmt.SECONDS)
    size_unit = fmt.common_unit(max([other.part.total.allocated_bytes for other in found]), fmt.BYTES)
    spent = [part.lines.get(key) for key in keys]
    times = summed(each(spent, "seconds"), part.total.seconds, time_unit)
    sizes = summed(each(spent, "allocated_bytes"), part.total.allocated_bytes, size_unit)
    rates = [_rates(side.needs.get(key), line, side.ceilings) for key, line in zip(keys, spent, strict=True)]
    rates.append(_rates(_all(side.needs), part.total, side.ceilings))
    shares = () if side.ceilings is None else ("% of\nGEMM", "% of\ncopy")
    columns = side_columns(part.name, (time_unit.name, size_unit.name, "GFLOP\n/s", "GB/s", *shares))
    if side.ceilings is not None:
        columns.append(Column("bound by", "value", "left", group=part.name))
    return tuple(columns), [(time, size, *rest) for time, size, rest in zip(times, sizes, rates, strict=True)]


def _rates(need: Need | None, spent: Spent | None, ceilings: Ceilings | None) -> tuple[Cell, ...]:
    """Achieved rates, their shares of the ceilings, and what bounds; nothing where no time was measured."""
    if need is None or spent is None or spent.seconds <= 0:
        return (Cell(fmt.NOTHING),) * (2 if ceilings is None else 5)
    flops, moved = need.flops / spent.seconds, need.traffic_bytes(spent) / spent.seconds
    rates = (flops, "FLOP/s"), (moved, "B/s")
    cells = tuple(Cell(fmt.plain_number(rate / 1e9), rate, unit) for rate, unit in rates)
    if ceilings is None:
        return cells
    shares = (flops / ceilings.flops_per_second, moved / ceilings.bytes_per_second)
    bound = need.bound(spent, ceilings)
    return (*cells, *(Cell(fmt.plain_number(100 * share), share, "share") for share in shares), Cell(bound, bound))


def _notes(found: Sequence[_Side], which: Which) -> Iterator[str]:
    yield from (_LEAST, _TRAFFIC)
    if which == "train_step":
        yield _OPTIMIZER
    for setting, known in {_setting(side.part.record): side.ceilings for side in found}.items():
        if known is None and setting.endswith("mixed_bfloat16"):
            yield f"{setting}: mixed precision has no ceilings, for only some of the arithmetic is done in bfloat16."
        elif known is None:
            yield f"no ceilings are known for {setting}: `capsbench doctor` measures them."
        else:
            rates = f"{fmt.plain_number(known.flops_per_second / 1e9)} GFLOP/s in a large matrix product (GEMM)"
            copy = f"{fmt.plain_number(known.bytes_per_second / 1e9)} GB/s in a large copy"
            yield f"ceilings of {setting}: {rates}, {copy}."
    if any(side.ceilings is not None for side in found):
        yield "more than 100 %: bytes that stay in a cache, and scratch that is not filled, never go to memory."
        yield "bound by overhead: neither arithmetic nor memory explains a quarter of the time."


def _setting(record: Record) -> str:
    case = record.case
    return fmt.label(f"{case.device}, threads {case.threads}, {case.precision}")
