"""Which places of the layer below a capsule sees."""

import numpy as np
from numpy.typing import NDArray


def patch_places(height: int, width: int, kernel: int, stride: int) -> NDArray[np.int64]:
    """Indices [positions, kernel * kernel] of the places (row-major in height x width) under each window.

    Windows run over rows first, and so do the places inside a window.
    """
    rows = np.arange((height - kernel) // stride + 1)[:, None] * stride + np.arange(kernel)
    columns = np.arange((width - kernel) // stride + 1)[:, None] * stride + np.arange(kernel)
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    return places.reshape(rows.shape[0] * columns.shape[0], kernel * kernel)
