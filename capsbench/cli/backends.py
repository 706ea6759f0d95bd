"""`capsbench backends`: what is installed, with modes and devices, and why one is missing."""

from capsbench import plugins
from capsbench.plugins import Installed
from capsbench.report.console import console, print_notes, print_table
from capsbench.report.format import label
from capsbench.report.table import Column, Table, text_cell
from capsbench.runner.resolve import Probed, probe

EXAMPLE = "capsbench backends"


def backends() -> None:
    """List the installed backends, and why others cannot be used."""
    screen = console()
    installed = plugins.discover()
    if not installed:
        print_notes(["no backend is registered; install capsbench itself, or a package that brings one."], screen)
        return
    probed = probe(name for name, found in installed.items() if found.problem is None)
    for name, found in installed.items():
        print_table(_table(found, probed.get(name)), screen)


def _table(found: Installed, probed: Probed | None) -> Table:
    problem = found.problem or (probed.problem if probed else None)
    modes = {} if found.backend is None else found.backend.modes
    rows = tuple((text_cell(f"{found.name}:{mode}"), text_cell(line)) for mode, line in modes.items())
    context = [] if probed is None else [f"{package} {version}" for package, version in probed.versions.items()]
    if probed is not None and probed.devices:
        context.append(f"devices {', '.join(probed.devices)}")
    if problem:
        context.append(f"cannot be used: {problem}")
    columns = (Column("mode", "key", "left"), Column("what it is", align="left"))
    return Table(label(found.name), columns, rows, context=tuple(map(label, context)))
