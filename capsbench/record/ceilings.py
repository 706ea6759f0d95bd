"""What a machine can do at best, kept beside the runs: one file a machine, `results/ceilings/<hash>.json`."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.environment import Machine
from capsbench.network.hashing import content_hash
from capsbench.network.text import plain

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DeviceCeilings:
    """What one backend measured of one device.

    Attributes:
        device: `cpu`, `cuda:0`, ….
        threads: CPU threads it had.
        precision: of the numbers.
        backend: whose matrix product and copy were timed.
        ceilings: what came out.
    """

    device: str
    threads: int
    precision: str
    backend: str
    ceilings: Ceilings


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """What a file of ceilings holds."""

    schema: int
    machine: Machine
    ceilings: tuple[DeviceCeilings, ...]


def ceilings_path(results: Path, machine: Machine) -> Path:
    """Where the ceilings of a machine are kept; `results` is the folder above `runs`."""
    return results / "ceilings" / f"{content_hash(machine)}.json"


def read_ceilings(results: Path, machine: Machine) -> tuple[DeviceCeilings, ...]:
    """What is known of a machine; nothing where nobody has measured it.

    Raises:
        BadInput: the file cannot be read, or does not hold the ceilings of this machine.
    """
    path = ceilings_path(results, machine)
    try:
        kept = _adapter().validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise BadInput(f"cannot read it: {error.strerror or error}", str(path)) from None
    except ValidationError:
        kept = None
    if kept is None or (kept.schema, kept.machine) != (SCHEMA, machine) or not all(map(_is_sound, kept.ceilings)):
        raise BadInput(
            "this does not hold ceilings of this machine; `capsbench doctor --again` measures anew", str(path)
        )
    return kept.ceilings


def write_ceilings(results: Path, machine: Machine, ceilings: Iterable[DeviceCeilings]) -> None:
    """Keep the ceilings of a machine, in place of what was kept of it; of several alike the last one counts.

    Raises:
        BadInput: the file cannot be written.
    """
    last = {(each.device, each.threads, each.precision, each.backend): each for each in ceilings}
    kept = _File(schema=SCHEMA, machine=machine, ceilings=tuple(last.values()))
    path = ceilings_path(results, machine)
    try:
        with whole_file(path) as file:
            file.write(json.dumps(plain(kept, defaults=True), indent=1, ensure_ascii=False).encode())
    except OSError as error:
        raise BadInput(f"cannot write results there: {error.strerror or error}", str(results)) from None


def _is_sound(known: DeviceCeilings) -> bool:
    found = known.ceilings
    rates = found.flops_per_second, found.bytes_per_second, found.fma_flops_per_second or 1.0
    return all(math.isfinite(rate) and rate > 0.0 for rate in rates)


@cache
def _adapter() -> TypeAdapter[_File]:
    return TypeAdapter(_File)
