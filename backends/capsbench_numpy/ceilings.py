"""What the processor can do at best, with NumPy's own matrix product and copy."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from capsbench.backend import Setting
from capsbench.measure import ceilings


def measure_ceilings(setting: Setting) -> ceilings.Ceilings:
    """Ceilings in the setting's precision: the product on BLAS's threads, the copy on as many of our own.

    How many threads BLAS has was decided by the environment when NumPy was imported.
    """
    with ThreadPoolExecutor(setting.threads) as pool:
        return ceilings.measure(product(setting), copy(setting, pool))


def product(setting: Setting) -> Callable[[], object]:
    """What multiplies two SIDE x SIDE matrices."""
    generator = np.random.default_rng(0)
    left, right = generator.random((2, ceilings.SIDE, ceilings.SIDE)).astype(setting.precision)
    result = np.empty_like(left)
    return lambda: np.matmul(left, right, out=result)


def copy(setting: Setting, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """What copies COPIED_BYTES, a part in each thread: `np.copyto` lets go of the interpreter's lock."""
    source = np.ones(ceilings.COPIED_BYTES // np.dtype(setting.precision).itemsize, setting.precision)
    parts = np.array_split(source, setting.threads), np.array_split(np.empty_like(source), setting.threads)
    return lambda: list(pool.map(np.copyto, parts[1], parts[0]))
