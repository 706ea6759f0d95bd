"""The cases of some suites, each as a suite of its own, so that any revision can be asked to run it alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from capsbench.errors import BadInput
from capsbench.network.text import dump
from capsbench.suite.cases import Case, expand, select
from capsbench.suite.schema import Measure, NetworkChoice, Suite
from capsbench.track.revisions import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What both revisions are asked to run.

    Attributes:
        suite: of one case.
        path: the file it is from, from which paths of networks are followed.
        case: as this capsbench understands it; a revision may understand it otherwise.
    """

    suite: Suite
    path: Path
    case: Case

    @property
    def label(self) -> str:
        """The case's id without its hash."""
        return self.case.id.rpartition("-")[0]


def without_times(cells: Sequence[Cell]) -> list[Cell]:
    """The cases without their timing rounds; those of which nothing else is measured are left out.

    Raises:
        BadInput: that leaves none.
    """
    narrowed = [
        replace(cell, suite=replace(cell.suite, measure=measure))
        for cell in cells
        if (measure := tuple(each for each in cell.suite.measure if each != "time"))
    ]
    if not narrowed:
        raise BadInput("nothing but times is measured in these suites", "--no-times")
    return narrowed


def cells(suites: Sequence[tuple[Path, Suite]], known: Mapping[str, tuple[str, ...]], only: str | None) -> list[Cell]:
    """Every case of the suites, once.

    Args:
        suites: with their files.
        known: the modes of the backends that are installed here. A revision may have others: those that suites name
            as `name:mode` are taken at their word.
        only: a glob, as `capsbench run --only` takes it.

    Raises:
        BadInput: a suite that no case can be made of, or none that is like the glob.
    """
    found: dict[str, Cell] = {}
    for path, suite in suites:
        modes = _modes(suite, known)
        for single in _singles(suite):
            case = expand(single, path, modes)[0]
            found.setdefault(case.id, Cell(suite=single, path=path, case=case))
    chosen = {case.id for case in select((cell.case for cell in found.values()), only)}
    return [cell for cell in found.values() if cell.case.id in chosen]


def text_for(cell: Cell, measure: Sequence[Measure], repository: Repository, root: Path) -> str:
    """The suite as one revision is to read it: files of networks are the revision's own where they are in git.

    Args:
        cell: the case.
        measure: what is measured of it now.
        repository: the user's.
        root: of the revision's worktree.
    """
    network = cell.suite.networks[0]
    use = network.use if isinstance(network, NetworkChoice) else network
    if "/" in use or use.endswith((".yaml", ".yml")):
        whole = cell.path.parent / use
        inside = repository.relative(whole)
        use = str(whole.resolve() if inside is None else root / inside)
    network = replace(network, use=use) if isinstance(network, NetworkChoice) else use
    return dump(replace(cell.suite, networks=(network,), measure=tuple(measure)))


def _modes(suite: Suite, known: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The known modes and, behind them, those that the suite names."""
    modes = dict(known)
    for use in suite.uses():
        name, colon, mode = use.partition(":")
        if colon and mode not in modes.get(name, ()):
            modes[name] = (*modes.get(name, ()), mode)
    return modes


def _singles(suite: Suite) -> Iterator[Suite]:
    """The suite, cut into pieces of one case each; the same case may come twice."""
    for dataset, (network, choice), iterations in product(
        suite.datasets(), zip(suite.networks, suite.choices(), strict=True), suite.routing_iterations or (None,)
    ):
        own = replace(network, batch=None, backends=None) if isinstance(network, NetworkChoice) else network
        for batch, devices, seed, (use, measure) in product(
            choice.batch, suite.device_counts(), suite.seeds, choice.realizations
        ):
            yield replace(
                suite,
                dataset=dataset,
                networks=(own,),
                backends=(use,),
                batch=(batch,),
                devices=devices,
                seeds=(seed,),
                routing_iterations=() if iterations is None else (iterations,),
                measure=measure,
                track=False,  # a key that older revisions do not know
            )
