"""What is alive when a step's memory is at its peak: tensors by the layer and op that made them, the votes by name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from capsbench.measure.optable import LiveTensor
from capsbench.measure.steptrace import VOTES
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import STEP_NAMES, Group, Which, context, groups, seed_notes, title
from capsbench.report.parts import TOTAL, UNATTRIBUTED, is_resident, side_columns, summed
from capsbench.report.table import Cell, Column, Table, text_cell

TITLE: Final = "Alive at the peak"
_BEFORE: Final = "before the step"
_NAMES: Final = "a tensor without a name of its own is called after the op that made it."


@dataclass(frozen=True, slots=True, order=True)
class _Row:
    """What a row is of; all that is alive and alike in this is summed."""

    tensor: str
    layer: str
    when: str


@dataclass(frozen=True, slots=True)
class _Peak:
    """The peak of one realization: bytes and blocks by row."""

    name: str
    record: Record
    bytes: int
    rows: dict[_Row, tuple[int, int]]


_UNATTRIBUTED: Final = _Row(UNATTRIBUTED, "", "")


def peak_tables(records: Sequence[Record], *, top: int = 10, which: Which = "train_step") -> tuple[Table, ...]:
    """What is alive at the peak, a table for each group of cases.

    Args:
        records: of a run; of several seeds the first is shown.
        top: rows before the others are summed up.
        which: step.
    """
    return tuple(table for group in groups(records) for table in of_group(group, top=top, which=which))


def of_group(group: Group, *, top: int = 10, which: Which = "train_step") -> Iterator[Table]:
    """The table of one group, or none; as in `peak_tables`."""
    peaks = list(_peaks(group, which))
    if not peaks:
        return
    ranked = _ranked(peaks)
    shown, others = ranked[:top], ranked[top:]
    lines = [*([row] for row in shown), *([others] if others else []), [_UNATTRIBUTED]]
    closing = [f"{fmt.count(len(others))} other{'s' if len(others) > 1 else ''}"] if others else []
    names = [tuple(map(text_cell, (row.tensor, row.layer, row.when))) for row in shown]
    names += [tuple(map(text_cell, (text, "", ""))) for text in (*closing, UNATTRIBUTED, TOTAL)]
    unit = fmt.common_unit(max([peak.bytes for peak in peaks]), fmt.BYTES)
    columns = [column for peak in peaks for column in side_columns(peak.name, (unit.name, "%", "blocks"))]
    cells = zip(*(column for peak in peaks for column in _cells(peak, unit, lines)), strict=True)
    heads = tuple(Column(head, "key", "left") for head in ("tensor", "layer", "made in"))
    yield Table(
        title(TITLE, group),
        (*heads, *columns),
        tuple((*name, *row) for name, row in zip(names, cells, strict=True)),
        context=context(group, STEP_NAMES[which]),
        notes=(_NAMES, *(note for peak in peaks for note in _notes(peak, which)), *seed_notes(group)),
        closing_rows=1,
    )


def _peaks(group: Group, which: Which) -> Iterator[_Peak]:
    for step in group.steps(which):
        tensors = step.profile.alive_at_peak
        if not tensors:
            continue
        rows: dict[_Row, tuple[int, int]] = {_UNATTRIBUTED: (0, 0)}
        for tensor in tensors:
            row = _row(tensor)
            size, blocks = rows.get(row, (0, 0))
            rows[row] = size + tensor.bytes, blocks + tensor.count
        yield _Peak(step.name, step.record, sum([tensor.bytes for tensor in tensors]), rows)


def _row(tensor: LiveTensor) -> _Row:
    if is_resident(tensor):
        return _Row(tensor.name or "", "", _BEFORE)
    if tensor.op is None:
        return _UNATTRIBUTED
    made_by = f"{VOTES} of {tensor.layer}" if tensor.name == VOTES else tensor.name or tensor.op
    return _Row(made_by, tensor.layer or "", tensor.phase or "")


def _ranked(peaks: Sequence[_Peak]) -> list[_Row]:
    """All rows but the unattributed rest, by the largest share of any peak."""
    weight: dict[_Row, float] = {}
    for peak in peaks:
        for row, (size, _) in peak.rows.items():
            weight[row] = max(weight.get(row, 0.0), size / (peak.bytes or 1))
    del weight[_UNATTRIBUTED]
    return sorted(weight, key=lambda row: (-weight[row], row))


def _cells(peak: _Peak, unit: fmt.Unit, lines: Sequence[Sequence[_Row]]) -> tuple[list[Cell], ...]:
    """Bytes, share and blocks of one realization, each of which adds up."""
    held = [[peak.rows[row] for row in line if row in peak.rows] for line in lines]
    sizes = [sum(size for size, _ in line) if line else None for line in held]
    shares = [None if size is None else 100 * size / (peak.bytes or 1) for size in sizes]
    blocks = [sum(number for _, number in line) if line else None for line in held]
    blocks.append(sum(number or 0 for number in blocks))
    numbers = [Cell(fmt.count(number or None), number) for number in blocks]
    whole = 100.0 if peak.bytes else 0.0
    return summed(sizes, peak.bytes, unit), summed(shares, whole, fmt.PERCENT), numbers


def _notes(peak: _Peak, which: Which) -> Iterator[str]:
    """What the memory pass, in which only the allocator is watched, says of the same peak."""
    metric = peak.record.metrics.get("peak_bytes")
    if metric is None or which != "train_step":
        return
    difference = metric.value - peak.bytes
    if not difference:
        yield f"{peak.name}: equal to the memory pass's peak."
    else:
        how = "more" if difference > 0 else "less"
        yield f"{peak.name}: the memory pass, without the profiler, counted {fmt.size(abs(difference))} {how}."
