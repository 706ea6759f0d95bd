"""`capsbench compare`: what changed from one run to another, and whether that is anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from capsbench.cli.options import EXIT_WORSE, ResultsOption
from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from capsbench.measure.environment import Machine
    from capsbench.record.noise import Noise
    from capsbench.record.store import RunStore

EXAMPLE = "capsbench compare 20261120T080000Z latest --fail-on worse"

_RUN = "Folder, run id or the beginning of one, or latest."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=_RUN)],
    b: Annotated[str, typer.Argument(metavar="B", help=_RUN)],
    *,
    case: Annotated[str | None, typer.Option(metavar="GLOB", help="Only cases like this.", show_default=False)] = None,
    margin: Annotated[
        float, typer.Option(min=0.001, max=10.0, help="What share of a time counts for nothing; or the noise floor.")
    ] = 0.05,
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same, too.")] = False,
    fail_on: Annotated[
        Literal["worse"] | None, typer.Option(help="Exit with 1 where anything is.", show_default=False)
    ] = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Set run B beside run A: every number that both have, with one word for each.

    What repeats exactly (bytes, calls, FLOPs) is compared exactly, times by
    the processes they were measured in, error rates seed by seed. A time
    must differ by more than the margin and the noise floor of its machine.
    """
    from capsbench.record.compare import compare as changes_of
    from capsbench.record.compare import pair_cases
    from capsbench.record.store import open_run
    from capsbench.report.comparison import apart, comparison_tables, noise_notes, summary
    from capsbench.report.console import console, print_notes, print_table

    stores = open_run(results, a), open_run(results, b)
    pairing = pair_cases(*(store.latest_records(case) for store in stores))
    if not pairing.pairs:
        raise BadInput(
            f"{stores[0].run_id} and {stores[1].run_id} have no case in common; a case is known by its network, "
            "data set, batch, seed, backend, mode and setting"
        )
    noise, told = _noise(stores, results)
    changes, screen = changes_of(pairing.pairs, margin=margin, noise=noise), console()
    for table in comparison_tables(changes, everything=everything, margin=margin):
        print_table(table, screen)
    notes = [*noise_notes(changes, noise, interleaved=False), *told, *summary(changes, pairing)]
    print_notes([*notes, *apart(pairing), *_surroundings(*stores)], screen)
    worse = any(change.verdict == "worse" for change in changes)
    if worse and fail_on == "worse":
        raise typer.Exit(EXIT_WORSE)


def _noise(stores: tuple[RunStore, RunStore], results: Path) -> tuple[list[Noise], list[str]]:
    """What is known of the noise of the runs' machines, of each once and as of B; and what must be said of that."""
    from capsbench.measure.environment import describe_machine

    found: dict[Machine, Noise] = {}
    told = []
    for name, store in zip("AB", stores, strict=True):
        noise = known_noise(store, results)
        if noise is None:
            told.append(f"noise floor: none is known of the machine that {name} was on")
        else:
            found[noise.machine] = noise
    here = describe_machine()
    told += [f"{machine.processor} is not the machine that you are on" for machine in found if machine != here]
    return list(found.values()), told if found else []


def known_noise(store: RunStore, results: Path) -> Noise | None:
    """The noise of the machine that a run was on: as known when it began, or else as it has been recorded since."""
    from pydantic import TypeAdapter, ValidationError

    from capsbench.measure.environment import Machine
    from capsbench.record.noise import from_header, kept_noise

    header = store.header()
    known = from_header(header)
    if known is not None:
        return known
    try:
        machine = TypeAdapter(Machine).validate_python(header["environment"]["machine"])
    except (ValidationError, KeyError, TypeError):  # a run.json of another make
        return None
    return kept_noise(results, machine)


def _surroundings(a: RunStore, b: RunStore) -> Iterator[str]:
    """What else differs between the runs and may have moved times."""
    environments = [store.header().get("environment") for store in (a, b)]
    first, second = (each if isinstance(each, dict) else {} for each in environments)
    if first.get("machine") != second.get("machine"):
        yield "the runs were on different machines: their times say nothing about the change"
    packages = [each.get("packages") or {} for each in (first, second)]
    moved = sorted(name for name in {*packages[0], *packages[1]} if packages[0].get(name) != packages[1].get(name))
    if moved:
        told = (f"{name} {packages[0].get(name, 'none')} → {packages[1].get(name, 'none')}" for name in moved)
        yield f"other versions: {', '.join(told)}"
    for name, store in (("A", a), ("B", b)):
        if store.damaged_lines:
            yield f"damaged lines of {name}'s records.jsonl were skipped: {', '.join(map(str, store.damaged_lines))}"
