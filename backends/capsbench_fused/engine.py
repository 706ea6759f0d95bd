"""Which kernel realizes the fused formulation on processors: Numba's where it can be imported, plain operators else."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol, cast, get_args

from numpy.typing import NDArray

from capsbench_fused.memory import Allocate
from capsbench_fused.task import Arrays, Parents, Task

Engine = Literal["fused", "chunked"]
KERNEL_MODES: tuple[Engine, ...] = get_args(Engine)  # the modes of a backend that route by kernels


class Kernel(Protocol):
    """A realization of the formulation.

    Attributes:
        NAME: what a reader of its numbers must know: the library, its version, the width of its vectors.
    """

    NAME: str

    def saved_numbers(self, task: Task, batch: int) -> int:
        """Numbers that the forward pass keeps for the backward one."""

    def forward(
        self,
        task: Task,
        arrays: Arrays,
        parents: Parents,
        saved: NDArray[Any] | None,
        *,
        count: int,
        allocate: Allocate,
    ) -> None:
        """Route.

        Args:
            task: the layer.
            arrays: its inputs.
            parents: receives what comes out.
            saved: receives what the backward pass needs, [saved_numbers]; None where there will be none.
            count: threads, this one included.
            allocate: where all memory comes from whose size depends on the layer's.
        """

    def backward(
        self,
        task: Task,
        arrays: Arrays,
        saved: NDArray[Any],
        to_parents: Parents,
        to_arrays: Arrays,
        *,
        count: int,
        allocate: Allocate,
    ) -> None:
        """Gradients of the inputs from those of the outputs; with the same count they are the same to the bit.

        Args:
            task: the layer.
            arrays: its inputs, as they were.
            saved: of the forward pass.
            to_parents: gradients of what came out.
            to_arrays: receives those of the inputs.
            count: see `forward`.
            allocate: likewise.
        """


@cache
def kernel(engine: Engine) -> Kernel:
    """The kernel of a mode; `fused` falls back to the chunked one where Numba is not installed or does not work."""
    native = _native() if engine == "fused" else None
    return native or cast("Kernel", import_module("capsbench_fused.chunked"))


def describe(engine: Engine) -> str:
    """Which kernel a mode gets on this machine, and why, in words that stand beside its numbers."""
    told = f"{engine}: routed by {kernel(engine).NAME}"
    if engine == "fused" and _native() is None:
        return f"{told}, because Numba cannot be imported (the extra `fast` installs it)"
    return told


def library_versions() -> dict[str, str]:
    """What compiles kernels here, by distribution; nothing where they are not compiled."""
    try:
        return {"numba": version("numba")}
    except PackageNotFoundError:
        return {}


@cache
def _native() -> Kernel | None:
    try:
        return cast("Kernel", import_module("capsbench_fused.native"))
    except (ImportError, OSError):  # not there; or its native libraries are broken
        return None
