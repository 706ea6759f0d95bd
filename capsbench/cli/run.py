"""`capsbench run`: every case of some suites, and the tables at the end."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from capsbench import plugins
from capsbench.backend import Backend
from capsbench.cli.executors import (
    ClusterOption,
    Executor,
    ExecutorOption,
    check_executor,
    executing,
    is_elsewhere,
)
from capsbench.cli.figures import draw, missing_plots
from capsbench.cli.forecast import forecast_table
from capsbench.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    ROWS,
    AnonymousOption,
    BackendOption,
    DataOption,
    ResultsOption,
    SuitesArgument,
    modes,
    read_suites,
)
from capsbench.cli.show import known_ceilings
from capsbench.dataset import catalog
from capsbench.errors import EXIT_UNAVAILABLE, EXIT_UNWRITTEN, BadInput, Unavailable, Unwritten
from capsbench.measure.environment import describe_environment, describe_machine, machine_class, without_identity
from capsbench.network.text import plain
from capsbench.record.ceilings import read_ceilings
from capsbench.record.claims import Ledger, ledger_path, read_ledger
from capsbench.record.noise import for_header, kept_noise
from capsbench.record.schema import Record
from capsbench.report.claims import published_tables
from capsbench.report.console import console, print_notes, print_report, print_table
from capsbench.report.format import label
from capsbench.report.history import read_histories
from capsbench.report.seed import is_seed_study
from capsbench.report.tables import report
from capsbench.runner.progress import ConsoleProgress
from capsbench.runner.resolve import probe, resolve_device
from capsbench.store.run import RunStore
from capsbench.store.runs import create, open_run
from capsbench.suite.cases import Case, expand, select
from capsbench.suite.schema import Suite

EXAMPLE = "capsbench run suites/mnist.yaml --backend torch:eager"


def run(
    suites: SuitesArgument,
    *,
    backend: BackendOption = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="auto, cpu, cuda or cuda:N; overrides the suite.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Only cases whose id, network or backend:mode matches.")
    ] = None,
    data: DataOption = Path("data"),
    results: ResultsOption = Path("results"),
    rounds: Annotated[int | None, typer.Option(min=1, help="Number of timing rounds; overrides the suite.")] = None,
    executor: ExecutorOption = Executor.PROCESSES,
    cluster: ClusterOption = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Continue an interrupted run; finished cases are skipped.")
    ] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw figures at the end.")] = True,
    anonymous: AnonymousOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cases and their estimated cost, and stop.")
    ] = False,
) -> None:
    """Run every case of one or more suites and print the results.

    Prints accuracy, cost and op tables at the end. The exit code is 2 if a case failed. Optional extras: `plots` draws
    figures and TensorBoard files, `dask` runs cases on a cluster.
    """
    where = check_executor(executor, cluster)
    installed = plugins.discover()
    chosen = read_suites(suites, installed, backends=backend or (), device=device)
    cases = select(_expand(chosen, modes(installed), elsewhere=is_elsewhere(where)), only)
    if not is_elsewhere(where):
        check_data(cases, data)
    if dry_run:
        _list(cases, {name: found.backend for name, found in installed.items() if found.backend is not None})
        return
    ledger = read_ledger(ledger_path(results))  # a mistake in it is said before hours are spent
    with executing(where, cases) as run_cases:
        if resume is None:
            start = _header(chosen, results, anonymous=anonymous)
            store = create(results, start)
        else:
            store = open_run(results, resume)
            check_anonymous(store, asked=anonymous)
            start = _header(chosen, results, anonymous=bool(store.header().get("anonymous")))
        run_all = partial(run_cases, cases, data_root=data, cache=None, rounds=rounds)
        _run(run_all, store, start, is_new=resume is None)
    records = store.stored_records()
    _print(records, store, results, ledger, _draw(records, store) if figures else "")
    fine = {record.case.id for record in records if record.status == "ok"}
    if any(case.id not in fine for case in cases):
        raise typer.Exit(EXIT_SOME_FAILED)


def _expand(suites: Sequence[tuple[Path, Suite]], known: dict[str, tuple[str, ...]], *, elsewhere: bool) -> list[Case]:
    """The cases of all suites with their devices resolved, each once; elsewhere, a named device may be there."""
    for path, suite in suites:
        expand(suite, path, known)  # what a suite has wrong is said before frameworks are imported to be probed
    probed = probe(use.partition(":")[0] for _, suite in suites for use in suite.uses())
    cases: dict[str, Case] = {}
    for path, suite in suites:
        named = {use.partition(":")[0] for use in suite.uses()}
        here = {name: probed[name] for name in named}
        known_there = elsewhere and suite.device != "auto"
        devices = dict.fromkeys(named, suite.device) if known_there else resolve_device(suite.device, here)
        cases |= {case.id: case for case in expand(suite, path, known, devices)}
    return list(cases.values())


def check_data(cases: Iterable[Case], data: Path) -> None:
    """Refuse to begin where a data set is not there.

    Raises:
        BadInput: names the first missing file, and where it is to be.
    """
    for name in dict.fromkeys(case.dataset.protocol.data for case in cases):
        missing = [path for path, here in catalog.locate(name, data) if not here]
        if missing:
            raise BadInput(
                f"data set {name} is not there: no file {missing[0]} (or .gz); put its files into {data / name}, "
                f"or name the folder that holds {name}/ with --data DIR"
            )


def check_anonymous(store: RunStore, *, asked: bool) -> None:
    """Refuse to go on anonymously with a run that says what it is on; one that does not goes on so by itself.

    Raises:
        BadInput: its run.json has told already.
    """
    if asked and not store.header().get("anonymous"):
        raise BadInput(f"{store.run_id} was begun without it: its run.json says what it is on", "--anonymous")


def _header(suites: Sequence[tuple[Path, Suite]], results: Path, *, anonymous: bool) -> dict[str, object]:
    """What run.json says, with what `capsbench doctor` has found out about this machine."""
    environment = describe_environment()
    noise = kept_noise(results, environment.machine)
    if anonymous and noise is not None:
        noise = replace(noise, machine=machine_class(noise.machine))
    told = without_identity(environment) if anonymous else environment
    return {
        **({"anonymous": True} if anonymous else {}),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suites": [{"file": path.name, "suite": plain(suite, defaults=True)} for path, suite in suites],
        "environment": plain(told, defaults=True),
        "ceilings": plain(read_ceilings(results, environment.machine), defaults=True),
        "noise": for_header(noise),
    }


def _run(run_cases: Callable[..., object], store: RunStore, start: dict[str, object], *, is_new: bool) -> None:
    """Run the cases; a run that ends before they do says how it is taken up again."""
    here = describe_machine()
    machine = machine_class(here) if store.header().get("anonymous") else here
    try:
        with store.writing(start), ConsoleProgress(Console(stderr=True)) as progress:
            run_cases(store=store, listener=progress, machine=machine)
    except BadInput:
        if is_new:  # an older one may hold checkpoints, or be another process's
            store.discard_empty()
        raise
    except Unwritten as error:
        _say_how_to_go_on(str(error), store)
        raise typer.Exit(EXIT_UNWRITTEN) from None
    except Unavailable as error:
        _say_how_to_go_on(str(error), store)
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    except KeyboardInterrupt:
        _say_how_to_go_on("interrupted", store)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except SystemExit as end:
        _say_how_to_go_on("asked to end", store)
        raise typer.Exit(end.code if isinstance(end.code, int) else 1) from None


def _say_how_to_go_on(why: str, store: RunStore) -> None:
    message = label(f"{why}; what has ended is in {store.folder}, go on with --resume {store.run_id}")
    sys.stderr.write(f"capsbench: {message}\n")


def _draw(records: Sequence[Record], store: RunStore) -> str:
    """Draw the figures; what kept them from being drawn, in a sentence. Never the end of a run that was measured."""
    missing = missing_plots()
    if missing is not None:
        return missing
    try:
        with Console(stderr=True).status("drawing figures"):
            draw(store, list(records), ["png", "svg"])
    except BadInput as error:
        return f"no figures: {error}"
    return ""


def _print(records: Sequence[Record], store: RunStore, results: Path, ledger: Ledger, problem: str) -> None:
    screen = console()
    ceilings, header = known_ceilings(store, results), store.header()
    tables = report(
        records,
        ceilings=ceilings,
        seed_study=is_seed_study(header),
        histories=read_histories(records, store.artifacts),
        published=partial(published_tables, records, ledger, header),
        most=ROWS,
    )
    print_report(tables, screen, ROWS)
    print_notes([problem] if problem else [], screen)
    screen.print(str(store.folder), soft_wrap=True)


def _list(cases: Sequence[Case], backends: dict[str, Backend]) -> None:
    screen = console()
    for case in cases:
        screen.print(case.id, soft_wrap=True)
    screen.print()
    print_table(forecast_table(cases, backends, describe_machine().memory_bytes), screen)
