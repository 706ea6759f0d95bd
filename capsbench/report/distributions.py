"""What the layers of the trained networks give out over the test split: size, spread, sparsity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from capsbench.measure.distribution import QUANTILES, SPARSE_BELOW, Distribution
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import realization_names
from capsbench.report.rows import Field, table_of_items
from capsbench.report.table import Cell, Column, Table, cell, text_cell
from capsbench.store.records import may_have

_SHOWN: Final = (0.05, 0.5, 0.95)
_NOTES: Final = (
    f"5 %, 50 %, 95 %: quantiles. below {SPARSE_BELOW}: share of values of a smaller magnitude.",
    "Hoyer: 1 where one value of an image is not zero, 0 where all are alike.",
    f"dead: capsule types (or channels) that stay below {SPARSE_BELOW} for every image at every position.",
)


def distribution_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """A table for each network, a row for each layer, quantity and case, so that data sets stand below each other."""
    networks: dict[str, list[Record]] = {}
    for record in records:
        if may_have(record, "distributions") and record.distributions:
            networks.setdefault(record.case.network, []).append(record)
    return tuple(_table(network, cases) for network, cases in networks.items())


@dataclass(frozen=True, slots=True)
class _Row:
    """What a layer gives out, in one case."""

    name: str
    record: Record
    told: Distribution


def _table(network: str, records: Sequence[Record]) -> Table:
    names = realization_names(records)
    found = [
        _Row(name, record, told) for name, record in zip(names, records, strict=True) for told in record.distributions
    ]
    place = {layer: number for number, layer in enumerate(dict.fromkeys(row.told.layer for row in found))}
    found.sort(key=lambda row: (place[row.told.layer], row.told.quantity))
    return table_of_items(f"Activations and poses: {fmt.label(network)}", _FIELDS, found, _NOTES)


def _quantile(row: _Row, *, share: float) -> Cell:
    return cell(dict(zip(QUANTILES, row.told.quantiles, strict=False)).get(share), fmt.plain_number)


_FIELDS: Final[tuple[Field[_Row], ...]] = (
    Field(Column("layer", "key", "left"), lambda row: text_cell(row.told.layer)),
    Field(Column("quantity", "key", "left"), lambda row: text_cell(row.told.quantity)),
    Field(Column("data set", "key", "left", shared="{}"), lambda row: text_cell(row.record.case.dataset)),
    Field(Column("backend:mode", "key", "left", shared="{}"), lambda row: text_cell(row.name)),
    Field(Column("batch", "key", shared="batch {}"), lambda row: cell(row.record.case.batch, fmt.count)),
    Field(
        Column("iters", "key", shared="routing iterations {}"),
        lambda row: text_cell(row.record.case.routing_iterations),
    ),
    Field(Column("seed", "key", shared="seed {}"), lambda row: cell(row.record.case.seed, fmt.count)),
    Field(Column("images", "key", shared="{} images"), lambda row: cell(row.told.images, fmt.count)),
    Field(Column("mean", group="size"), lambda row: cell(row.told.mean, fmt.plain_number)),
    Field(Column("deviation", group="size"), lambda row: cell(row.told.deviation, fmt.plain_number)),
    *(Field(Column(f"{100 * each:g} %", group="size"), partial(_quantile, share=each)) for each in _SHOWN),
    Field(Column(f"% below\n{SPARSE_BELOW}", group="sparsity"), lambda row: cell(row.told.sparse_share, fmt.percent)),
    Field(Column("Hoyer", group="sparsity"), lambda row: cell(row.told.hoyer, fmt.plain_number)),
    Field(Column("dead %", group="sparsity"), lambda row: cell(row.told.dead_share, fmt.percent)),
)
