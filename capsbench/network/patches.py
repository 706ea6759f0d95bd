"""Which places of the layer below a window sees, and what stands around them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Padding = Literal["valid", "same"] | int


def margins(padding: Padding, side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after a row of `side` places, for windows of `kernel` places (see `layers.Conv`)."""
    if padding == "same":
        missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        return missing // 2, missing - missing // 2
    return (0, 0) if padding == "valid" else (padding, padding)


def patch_places(height: int, width: int, kernel: int, stride: int) -> NDArray[np.int64]:
    """Indices [positions, kernel * kernel] of the places (row-major in height x width) under each window.

    Windows run over rows first, and so do the places inside a window.
    """
    rows = np.arange((height - kernel) // stride + 1)[:, None] * stride + np.arange(kernel)
    columns = np.arange((width - kernel) // stride + 1)[:, None] * stride + np.arange(kernel)
    places = rows[:, None, :, None] * width + columns[None, :, None, :]
    return places.reshape(rows.shape[0] * columns.shape[0], kernel * kernel)
