"""How kernels are compiled, and where their machine code is kept."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pooch  # type: ignore[import-untyped]
from numba import config, njit

from capsbench_fused.lanes import lanes

_SOURCES = Path(__file__).parent
_LEAN = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

# A function of its own in the machine code, for what is long; and one that is part of its caller, for what is short.
compiled = njit(**_LEAN)
small = njit(**_LEAN, inline="always")


def entry(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - Numba's dispatcher
    """A kernel that Python calls, without the interpreter's lock; compiled at its first call with arrays of a kind.

    The code is kept between processes. Numba's own cache would look at one file only, and miss a change in what a
    kernel calls; so it gets a folder that is named after all sources. Where none can be written, every process compiles
    anew.
    """
    users = config.CACHE_DIR
    try:
        config.CACHE_DIR = str(_folder(users))
        return njit(error_model="numpy", nogil=True, no_cfunc_wrapper=True, cache=True)(function)
    except RuntimeError:
        return njit(error_model="numpy", nogil=True, no_cfunc_wrapper=True)(function)
    finally:
        config.CACHE_DIR = users


def _folder(users: str) -> Path:
    """Return where the machine code of these sources and lanes is kept: below NUMBA_CACHE_DIR, or our own folder."""
    digest = sha256(str(lanes()).encode())
    for path in sorted(_SOURCES.glob("*.py")):
        digest.update(path.read_bytes())
    return Path(users or pooch.os_cache("capsbench")) / "kernels" / digest.hexdigest()[:16]
