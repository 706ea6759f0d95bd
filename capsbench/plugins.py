"""Which backends are installed, found without importing a framework, and why one of them cannot be used."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distributions, version

from capsbench.backend import ENTRY_POINT_GROUP, Backend
from capsbench.errors import BadInput, unknown_name

_ATTRIBUTES = (
    "name",
    "distributions",
    "modes",
    "compiled_modes",
    "environment",
    "probe",
    "unsupported",
    "forecast_peak",
    "realize",
)


@dataclass(frozen=True, slots=True)
class Installed:
    """A registered backend.

    Attributes:
        name: the name it is registered under.
        backend: the registered object; None where it could not be imported or is no backend.
        problem: why it cannot be used, in one sentence; None where nothing speaks against it.
    """

    name: str
    backend: Backend | None
    problem: str | None


def discover() -> dict[str, Installed]:
    """Every registered backend by name, the unusable ones with their problem; never raises for a broken one."""
    return {name: _inspect(name, points) for name, points in sorted(_registered().items())}


def load(name: str) -> Backend:
    """The backend of this name.

    Raises:
        BadInput: no such backend is registered, or it cannot be used.
    """
    registered = _registered()
    if name not in registered:
        raise unknown_name("backend", name, registered)
    found = _inspect(name, registered[name])
    if found.backend is None or found.problem is not None:
        raise BadInput(f"backend {name!r} cannot be used: {found.problem}")
    return found.backend


def _registered() -> dict[str, list[EntryPoint]]:
    """Entry points by name; of a distribution that stands on the path twice, those of the first."""
    found: dict[str, list[EntryPoint]] = defaultdict(list)
    seen: set[str] = set()
    for distribution in distributions():
        try:
            points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
            name = distribution.name if points else ""
        except Exception:  # noqa: BLE001, S112 - the broken metadata of a stranger are no reason to lose the others
            continue
        if points and name not in seen:
            seen.add(name)
            for point in points:
                found[point.name].append(point)
    return found


def _inspect(name: str, points: list[EntryPoint]) -> Installed:
    if len({point.value for point in points}) > 1:
        owners = sorted(point.dist.name if point.dist else point.value for point in points)
        return Installed(name, None, f"it is registered more than once, by {' and '.join(owners)}")
    try:
        backend = points[0].load()
    except Exception as error:  # noqa: BLE001 - a broken install of any kind is reported, not raised
        return Installed(name, None, f"importing {points[0].value} failed: {_one_line(error)}")
    missing = [attribute for attribute in _ATTRIBUTES if not hasattr(backend, attribute)]
    if missing:
        return Installed(name, None, f"{points[0].value} is no backend, it lacks {', '.join(missing)}")
    if backend.name != name:
        return Installed(name, None, f"{points[0].value} calls itself {backend.name!r}")
    return Installed(name, backend, _missing_distribution(backend))


def _missing_distribution(backend: Backend) -> str | None:
    if not backend.distributions or any(_is_installed(name) for name in backend.distributions):
        return None
    return f"{' or '.join(backend.distributions)} is not installed"


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
