"""What the layers of the trained networks give out over the test split: size, spread, sparsity."""

from collections.abc import Iterator, Sequence
from typing import Final

from capsbench.measure.distribution import QUANTILES, SPARSE_BELOW, Distribution
from capsbench.record.schema import Record
from capsbench.report import format as fmt
from capsbench.report.groups import realization_names
from capsbench.report.table import Cell, Column, Table, cell, share, text_cell

_SHOWN: Final = (0.05, 0.5, 0.95)
_COLUMNS: Final = (
    Column("layer", "key", "left"),
    Column("quantity", "key", "left"),
    Column("data set", "key", "left", shared="{}"),
    Column("backend:mode", "key", "left", shared="{}"),
    Column("batch", "key", shared="batch {}"),
    Column("iters", "key", shared="routing iterations {}"),
    Column("seed", "key", shared="seed {}"),
    Column("images", "key", shared="{} images"),
    Column("mean", group="size"),
    Column("deviation", group="size"),
    *(Column(f"{100 * quantile:g} %", group="size") for quantile in _SHOWN),
    Column(f"% below\n{SPARSE_BELOW}", group="sparsity"),
    Column("Hoyer", group="sparsity"),
    Column("dead %", group="sparsity"),
)
_NOTES: Final = (
    f"5 %, 50 %, 95 %: quantiles. below {SPARSE_BELOW}: share of values of a smaller magnitude.",
    "Hoyer: 1 where one value of an image is not zero, 0 where all are alike.",
    f"dead: capsule types (or channels) that stay below {SPARSE_BELOW} for every image at every position.",
)


def distribution_tables(records: Sequence[Record]) -> tuple[Table, ...]:
    """A table for each network, a row for each layer, quantity and case, so that data sets stand below each other."""
    networks: dict[str, list[Record]] = {}
    for record in records:
        if record.distributions:
            networks.setdefault(record.case.network, []).append(record)
    return tuple(_table(network, cases) for network, cases in networks.items())


def _table(network: str, records: Sequence[Record]) -> Table:
    names = realization_names(records)
    found = [(name, record, told) for name, record in zip(names, records, strict=True) for told in record.distributions]
    layers = list(dict.fromkeys(told.layer for _, _, told in found))
    place = {layer: number for number, layer in enumerate(layers)}
    found.sort(key=lambda row: (place[row[2].layer], row[2].quantity))
    rows = tuple(tuple(_cells(name, record, told)) for name, record, told in found)
    return share(Table(f"Activations and poses: {fmt.label(network)}", _COLUMNS, rows, notes=_NOTES))


def _cells(name: str, record: Record, told: Distribution) -> Iterator[Cell]:
    case = record.case
    yield from map(text_cell, (told.layer, told.quantity, case.dataset, name))
    yield cell(case.batch, fmt.count)
    yield text_cell(case.routing_iterations)
    yield cell(case.seed, fmt.count)
    yield cell(told.images, fmt.count)
    quantiles = dict(zip(QUANTILES, told.quantiles, strict=False))
    for value in (told.mean, told.deviation, *map(quantiles.get, _SHOWN)):
        yield cell(value, fmt.plain_number)
    yield cell(told.sparse_share, fmt.percent)
    yield cell(told.hoyer, fmt.plain_number)
    yield cell(told.dead_share, fmt.percent)
