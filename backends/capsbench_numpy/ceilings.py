"""What the processor can do at best: NumPy's own matrix product and copy, and where Numba is, multiply-adds alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from capsbench.backend import Setting
from capsbench.measure import ceilings


def measure_ceilings(setting: Setting) -> ceilings.Ceilings:
    """Ceilings in the setting's precision: the product on BLAS's threads, the copy on as many of our own.

    How many threads BLAS has was decided by the environment when NumPy was imported.
    """
    with ThreadPoolExecutor(setting.threads) as pool:
        found = ceilings.measure(product(setting), copy(setting, pool))
    return replace(found, fma_flops_per_second=multiply_adds(setting))


def multiply_adds(setting: Setting) -> float | None:
    """Operations a second of multiply-adds between registers; None without Numba, which alone can write them."""
    try:
        from capsbench_fused.peak import fma_flops_per_second  # noqa: PLC0415 - Numba may not be there
    except (ImportError, OSError):
        return None
    return fma_flops_per_second(setting.threads, setting.kept)


def product(setting: Setting) -> Callable[[], object]:
    """What multiplies two SIDE x SIDE matrices."""
    generator = np.random.default_rng(0)
    left, right = generator.random((2, ceilings.SIDE, ceilings.SIDE)).astype(setting.kept)
    result = np.empty_like(left)
    return lambda: np.matmul(left, right, out=result)


def copy(setting: Setting, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """What copies COPIED_BYTES, a part in each thread: `np.copyto` lets go of the interpreter's lock."""
    source = np.ones(ceilings.COPIED_BYTES // np.dtype(setting.kept).itemsize, setting.kept)
    parts = np.array_split(source, setting.threads), np.array_split(np.empty_like(source), setting.threads)
    return lambda: list(pool.map(np.copyto, parts[1], parts[0]))
