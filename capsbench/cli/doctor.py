"""`capsbench doctor`: the state of this machine, and what it can do at best."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, get_args

import psutil
import typer
from rich.console import Console

from capsbench import plugins
from capsbench.backend import FullPrecision
from capsbench.cli import noise
from capsbench.cli.noise import PAIRS, check_pairs
from capsbench.cli.options import BackendOption, ResultsOption, check_device
from capsbench.errors import BadInput, unknown_name
from capsbench.measure.ceilings import COPIED_BYTES, SIDE, Ceilings
from capsbench.measure.clock import read_load
from capsbench.measure.disturbance import disturbances
from capsbench.measure.environment import Machine, describe_machine
from capsbench.plugins import Installed
from capsbench.record.ceilings import DeviceCeilings, read_ceilings, write_ceilings
from capsbench.report import format as fmt
from capsbench.report.console import console, print_table
from capsbench.report.table import Cell, Column, Table, text_cell
from capsbench.runner.ceilings import Found, measure_ceilings
from capsbench.runner.resolve import Probed, probe

EXAMPLE = "capsbench doctor --device cpu --threads 2"


class _Point(NamedTuple):
    """What ceilings are measured of."""

    device: str
    threads: int
    precision: FullPrecision

    def is_of(self, known: DeviceCeilings) -> bool:
        """Whether `known` was measured of it."""
        return tuple(self) == (known.device, known.threads, known.precision)


def doctor(
    *,
    device: Annotated[str, typer.Option(metavar="D", help="auto (all devices), cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="CPU threads per operation.")] = 2,
    precision: Annotated[str, typer.Option(metavar="P", help="float32 or float64.")] = "float32",
    again: Annotated[bool, typer.Option("--again", help="Measure again even if results are stored.")] = False,
    noise: Annotated[bool, typer.Option("--noise", help="Record the noise floor instead (takes minutes).")] = False,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of processes (an even number); default: 20.", show_default=False)
    ] = None,
    backend: BackendOption = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Report what this machine can do and what makes its timings noisy.

    Measures the peak FLOP/s (large matrix products) and bandwidth (large copies) of every backend and device, which
    `show --layers` compares each layer with. With Numba, it also measures the processor's peak of multiply-adds. The
    results are stored in the results folder.

    With --noise, record the noise floor: the same work is timed in pairs of fresh processes that take turns.
    Differences between runs that are smaller than the noise floor mean nothing.
    """
    checked, wanted = _check_precision(precision), check_device(device)
    if noise:
        _record_noise(backend or [], _pairs(pairs), wanted, threads, results)
        return
    if pairs is not None or backend:
        raise BadInput("it says how noise is recorded; --noise asks for that", "--backend" if backend else "--pairs")
    machine, screen = describe_machine(), console()
    known = _read(results, machine, again=again)
    installed = plugins.discover()
    probed = probe(name for name, found in installed.items() if found.problem is None)
    points = [_Point(each, threads, checked) for each in _devices(probed, wanted)]
    print_table(_machine_table(machine), screen)
    print_table(disturbance_table(threads), screen)
    print_table(_backend_table(installed, probed), screen)
    if again:
        known = [each for each in known if not any(point.is_of(each) for point in points)]
    for point in points:
        names = [name for name, found in probed.items() if point.device in found.devices]
        print_table(_ceilings_table(point, _measure(point, names, known, results, machine)), screen)


def _record_noise(asked: list[str], blocks: int, device: str, threads: int, results: Path) -> None:
    """Say what will disturb it, record, and say what came out."""
    installed, screen = plugins.discover(), console()
    uses = noise.choose(asked, installed)
    print_table(disturbance_table(threads), screen)
    recordings = noise.record(
        uses,
        blocks,
        device=device,
        threads=threads,
        installed=installed,
        results=results,
        only_one=not asked,
    )
    for recording in recordings:
        print_table(noise.noise_table(recording), screen)


def _pairs(pairs: int | None) -> int:
    return check_pairs(PAIRS if pairs is None else pairs)


def disturbance_table(threads: int) -> Table:
    """What makes times noisy on this machine, and what to do about it."""
    rows = tuple(
        (text_cell(seen.name), text_cell(seen.found), text_cell(seen.remedy)) for seen in disturbances(threads=threads)
    )
    columns = (Column("cause", "key", "left"), Column("what it is", align="left"), Column("what to do", align="left"))
    notes = () if rows else ("nothing that this system tells of.",)
    return Table("What makes times noisy here", columns, rows, notes=notes)


def _check_precision(text: str) -> FullPrecision:
    """Mixed precision is none that a device could be measured in: only some of a network's arithmetic is."""
    legal: tuple[FullPrecision, ...] = get_args(FullPrecision)
    for precision in legal:
        if precision == text:
            return precision
    raise unknown_name("precision", text, legal, "--precision")


def _read(results: Path, machine: Machine, *, again: bool) -> list[DeviceCeilings]:
    """What is known of the machine; a broken file is nothing where it is to be measured again."""
    try:
        return list(read_ceilings(results, machine))
    except BadInput:
        if again:
            return []
        raise


def _devices(probed: Mapping[str, Probed], wanted: str) -> list[str]:
    """The devices that are meant, each once, the CPU first.

    Raises:
        BadInput: no backend has the one that is asked for.
    """
    there = list(dict.fromkeys(["cpu", *(name for found in probed.values() for name in found.devices)]))
    name = "cuda:0" if wanted == "cuda" else wanted
    if name not in {"auto", *there}:
        raise BadInput(f"no backend has the device {wanted!r} here, only {', '.join(there)}", "--device")
    return there if name == "auto" else [name]


def _measure(
    point: _Point, names: list[str], known: list[DeviceCeilings], results: Path, machine: Machine
) -> dict[str, Found]:
    """What each backend found; what is not known yet is measured, one after the other, and kept at once."""
    found = {each.backend: Found(each.ceilings, "") for each in known if point.is_of(each)}
    with Console(stderr=True).status("") as status:
        for name in names:
            if name in found:
                continue
            status.update(f"{name} on {point.device}: a matrix product and a copy")
            found[name] = measured = measure_ceilings(name, *point)
            if measured.ceilings is not None:
                known.append(DeviceCeilings(*point, name, measured.ceilings))
                write_ceilings(results, machine, known)
    return found


def _machine_table(machine: Machine) -> Table:
    free = fmt.size(psutil.virtual_memory().available)
    lines = {
        "processor": f"{machine.processor} ({machine.architecture})",
        "cores": f"{machine.cores} that capsbench may use; load {os.getloadavg()[0]:.1f} over the last minute",
        "memory": f"{fmt.size(machine.memory_bytes)}, of which {free} are free",
        "system": machine.system,
        "contention": "seen, and said beside timings" if read_load() else "this system does not tell who has the cores",
    }
    rows = tuple((text_cell(part), text_cell(what)) for part, what in lines.items())
    return Table("This machine", (Column("part", "key", "left"), Column("what it is", align="left")), rows)


def _backend_table(installed: Mapping[str, Installed], probed: Mapping[str, Probed]) -> Table:
    rows = []
    for name, found in installed.items():
        seen = probed.get(name)
        problem = found.problem or (seen.problem if seen else None)
        versions = [f"{package} {version}" for package, version in seen.versions.items()] if seen else []
        devices = seen.devices if seen else ()
        state = f"cannot be used: {problem}" if problem else f"{', '.join(versions)} on {', '.join(devices)}"
        rows.append((text_cell(name), text_cell(state)))
    columns = (Column("backend", "key", "left"), Column("what is there", align="left"))
    notes = () if rows else ("no backend is registered; install capsbench itself, or a package that brings one.",)
    return Table("Backends", columns, tuple(rows), notes=notes)


def _ceilings_table(point: _Point, found: Mapping[str, Found]) -> Table:
    def cells(rates: Iterable[float | None]) -> list[Cell]:
        return [text_cell(None) if rate is None else Cell(fmt.plain_number(rate / 1e9), rate) for rate in rates]

    def rates(known: Ceilings | None) -> tuple[float | None, ...]:
        if known is None:
            return (None, None, None)
        return known.fma_flops_per_second, known.flops_per_second, known.bytes_per_second

    rows = [
        (text_cell(name), *cells(rates(each.ceilings)), text_cell(each.problem or "measured"))
        for name, each in found.items()
    ]
    best = [each.ceilings for each in found.values() if each.ceilings is not None]
    if best:
        highest = (max(filter(None, kind), default=None) for kind in zip(*map(rates, best), strict=True))
        rows.append((text_cell("ceiling"), *cells(highest), text_cell("the best of each")))
    columns = (
        Column("backend", "key", "left"),
        Column("FMA\nGFLOP/s"),
        Column("GEMM\nGFLOP/s"),
        Column("copy\nGB/s"),
        Column("what it is", align="left"),
    )
    context = (point.device, f"threads {point.threads}", point.precision)
    alone = "FMA: multiply-adds between registers, measured where Numba is installed (the extra `fast`)."
    work = f"GEMM: a product of two {SIDE} x {SIDE} matrices; copy: of {fmt.size(COPIED_BYTES)}, read and written."
    once = "measured once, and true where nothing else ran meanwhile; --again measures anew."
    closing = 1 if best else 0
    return Table("Ceilings", columns, tuple(rows), context=context, notes=(alone, work, once), closing_rows=closing)
