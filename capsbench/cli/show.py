"""`capsbench show`: the tables of a stored run, or a metric over all of them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import TypeAdapter, ValidationError

from capsbench.cli.options import ROWS, HistoryOption, ResultsOption, RowsOption, RunArgument, rows_of
from capsbench.errors import BadInput
from capsbench.measure.environment import Machine
from capsbench.record.ceilings import DeviceCeilings, read_ceilings
from capsbench.record.claims import Ledger, ledger_path, read_ledger
from capsbench.record.history import read_history
from capsbench.record.schema import Record
from capsbench.report.claims import published_tables
from capsbench.report.console import console, print_notes, print_report, print_table
from capsbench.report.history import read_histories
from capsbench.report.sections import Sections, section_tables
from capsbench.report.seed import is_seed_study
from capsbench.report.tables import Report, report
from capsbench.report.trend import said, trend_tables
from capsbench.store.run import RunStore
from capsbench.store.runs import open_run

EXAMPLE = "capsbench show latest --case 'em-*' --ops --sort time"

Sort = Literal["share", "bytes", "time"]
Phase = Literal["forward", "backward", "optimizer"]

CaseOption = Annotated[
    str | None,
    typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.", show_default=False),
]
TopOption = Annotated[
    int, typer.Option(min=1, help="Rows of ops, layers and tensors before the rest is summed; runs in a history.")
]
SortOption = Annotated[
    Sort, typer.Option(help="Sort ops and layers by bytes, by time, or by the larger share of the two.")
]
PhaseOption = Annotated[Phase | None, typer.Option(help="Only this phase of the step.", show_default=False)]


def show(
    run: RunArgument = None,
    *,
    history: HistoryOption = None,
    ops: Annotated[bool, typer.Option("--ops", help="Most expensive ops by phase of the train step.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Cost per layer, compared with its equations.")] = False,
    iterations: Annotated[bool, typer.Option("--iterations", help="Cost per routing iteration.")] = False,
    peak: Annotated[bool, typer.Option("--peak", help="Tensors alive at peak memory.")] = False,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Distribution and sparsity of activations and poses.")
    ] = False,
    claims: Annotated[bool, typer.Option("--claims", help="Published results of the networks, with sources.")] = False,
    forward: Annotated[
        bool, typer.Option("--forward", help="Show the forward pass instead of the train step.")
    ] = False,
    phase: PhaseOption = None,
    sort: SortOption = "share",
    top: TopOption = 10,
    rows: RowsOption = str(ROWS),
    case: CaseOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Print the tables of a stored run.

    With --history METRIC, print one metric over all stored runs and their commits instead; --case selects cases there
    as well.
    """
    if history is not None:
        if run is not None or ops or layers or iterations or peak or histograms or claims or forward or phase:
            raise BadInput("it looks at all runs and goes with --case, --top and --results only", "--history")
        _print_history(results, history, case, top)
        return
    if run is None:
        raise BadInput("missing argument 'RUN'; see capsbench show --help")
    if forward and phase not in {None, "forward"}:
        raise BadInput(f"an evaluation (--forward) has no {phase} phase, legal is forward", "--phase")
    taken_apart = layers or iterations or peak
    # A phase or an evaluation that is asked for alone is asked for as ops.
    ops = ops or ((forward or phase is not None) and not taken_apart)
    asked = Sections(
        ops=("op" if forward or phase else "phase") if ops else None,
        layers=layers,
        iterations=iterations,
        peak=peak,
        histograms=histograms,
        claims=claims,
        top=top,
        sort=sort,
        phase=phase,
        which="forward" if forward else "train_step",
        most=rows_of(rows),
    )
    store = open_run(results, run)
    _print(store.stored_records(case), asked, store, results, read_ledger(ledger_path(results)))


def _print(records: Sequence[Record], asked: Sections, store: RunStore, results: Path, ledger: Ledger) -> None:
    screen, ceilings = console(), known_ceilings(store, results)
    if not records:
        print_notes([f"no case of {store.run_id} has ended yet."], screen)
    else:
        print_report(whole_report(records, asked, store, ceilings, ledger), screen, asked.most)
    for table in section_tables(records, asked, ceilings, ledger):
        print_table(table, screen, asked.most)
    if store.damaged_lines:
        numbers = ", ".join(map(str, store.damaged_lines))
        print_notes([f"damaged lines of records.jsonl were skipped: {numbers}"], screen)
    screen.print(str(store.folder), soft_wrap=True)


def _print_history(results: Path, metric: str, case: str | None, top: int) -> None:
    screen, history = console(), read_history(results, metric, case)
    for table in trend_tables(history, top=top, ascii_only=screen.options.ascii_only):
        print_table(table, screen)
    print_notes([*said(history)], screen)


def whole_report(
    records: Sequence[Record],
    asked: Sections,
    store: RunStore,
    ceilings: Sequence[DeviceCeilings],
    ledger: Ledger,
    *,
    with_ops: bool = True,
) -> Report:
    """The tables that the run ended with, from what it left on the disk; `with_ops` as in `report`."""
    header = store.header()
    return report(
        records,
        ceilings=ceilings,
        top=asked.top,
        sort=asked.sort,
        seed_study=is_seed_study(header),
        histories=read_histories(records, store.artifacts),
        published=partial(published_tables, records, ledger, header),
        most=asked.most,
        with_ops=with_ops,
    )


def known_ceilings(store: RunStore, results: Path) -> tuple[DeviceCeilings, ...]:
    """Those of the machine that the run was on: as known when it began, or else as they have been measured since."""
    header = store.header()
    try:
        known = TypeAdapter(tuple[DeviceCeilings, ...]).validate_python(header.get("ceilings", ()))
        return known or read_ceilings(results, TypeAdapter(Machine).validate_python(header["environment"]["machine"]))
    except (ValidationError, KeyError, TypeError):  # a run.json of another make
        return ()
