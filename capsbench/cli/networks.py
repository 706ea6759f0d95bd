"""`capsbench networks`: the zoo with parameters, FLOPs and votes, or one network layer by layer."""

from typing import Annotated

import typer

from capsbench.dataset import catalog
from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.cost import cost, layer_costs
from capsbench.network.network import Network, routing_iterations
from capsbench.network.parameters import capsule_parameter_count, parameter_count
from capsbench.network.shapes import BoundNetwork, bind
from capsbench.report import format as fmt
from capsbench.report.console import console, print_table
from capsbench.report.table import Cell, Column, Table, cell, text_cell

EXAMPLE = "capsbench networks em-paper --dataset toys"


def networks(
    name: Annotated[
        str | None,
        typer.Argument(help="Network of the zoo, or a YAML file, to show layer by layer.", show_default=False),
    ] = None,
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Data set that defines image shape and classes.")
    ] = "mnist",
    batch: Annotated[int, typer.Option(min=1, help="Batch size for FLOPs and bytes.")] = 1,
) -> None:
    """List the networks of the zoo, or one's layers."""
    about = catalog.info(dataset)
    if name is not None:
        network = zoo.load(name)
        table = _layers(bind(network, about.image_shape, about.classes), dataset, batch)
    else:
        rows, notes = [], []
        for known in map(zoo.load, zoo.names()):
            try:
                rows.append(_row(known, bind(known, about.image_shape, about.classes), batch))
            except BadInput as error:
                notes.append(str(error))
        table = _zoo(rows, notes, dataset, batch)
    print_table(table, console())


def _row(network: Network, bound: BoundNetwork, batch: int) -> tuple[Cell, ...]:
    spent = cost(bound, batch)
    sizes = capsule_parameter_count(bound), parameter_count(bound)
    return (
        text_cell(network.name),
        text_cell(routing_iterations(network)),
        *(cell(size, fmt.count) for size in sizes),
        cell(spent.forward_flops, fmt.flops),
        cell(spent.train_step_flops, fmt.flops),
        cell(spent.vote_bytes, fmt.size) if network.routing else text_cell(None),
    )


def _zoo(rows: list[tuple[Cell, ...]], notes: list[str], dataset: str, batch: int) -> Table:
    columns = (
        Column("network", "key", "left"),
        Column("iters"),
        Column("parameters"),
        Column("with\ndecoder"),
        Column("forward\nFLOPs"),
        Column("train step\nFLOPs"),
        Column("votes"),
    )
    return Table("Networks", columns, tuple(rows), context=(dataset, f"batch {batch:,}"), notes=tuple(notes))


def _layers(bound: BoundNetwork, dataset: str, batch: int) -> Table:
    costs = layer_costs(bound, batch)
    rows = [
        (
            text_cell(layer.layer),
            text_cell(str(layer.output)),
            cell(layer.parameters, fmt.count),
            cell(layer.forward_flops, fmt.flops),
            cell(layer.train_step_flops, fmt.flops),
            cell(layer.vote_bytes, fmt.size) if layer.vote_bytes else text_cell(None),
        )
        for layer in costs
    ]
    whole, parameters = cost(bound, batch), sum(layer.parameters for layer in costs)
    rows.append(
        (
            text_cell("total"),
            text_cell(""),
            cell(parameters, fmt.count),
            cell(whole.forward_flops, fmt.flops),
            cell(whole.train_step_flops, fmt.flops),
            cell(whole.vote_bytes, fmt.size) if whole.vote_bytes else text_cell(None),
        )
    )
    columns = (
        Column("layer", "key", "left"),
        Column("output", "key", "left"),
        Column("parameters"),
        Column("forward\nFLOPs"),
        Column("train step\nFLOPs"),
        Column("votes"),
    )
    network = bound.network
    notes = tuple(text for text in (network.description, network.citation) if text)
    context = (dataset, str(bound.image), f"{bound.classes} classes", f"batch {batch:,}")
    return Table(network.name, columns, tuple(rows), context=context, notes=notes, closing_rows=1)
