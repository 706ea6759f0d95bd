"""The gate that a realization must pass before it is timed: parity, or errors beyond its limits that are rounding."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Backend, Setting
from capsbench.network.shapes import BoundNetwork
from capsbench.record.schema import Parity
from capsbench.worker.parity import check_parity
from capsbench.worker.rounding import explain


def judge(
    backend: Backend,
    bound: BoundNetwork,
    setting: Setting,
    *,
    parameters: Mapping[str, NDArray[np.float32]],
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    drawn: bool,
    seed: int,
) -> Parity:
    """Compare a realization with the oracle; `rounding` says so where it passes beyond its limits.

    Args:
        backend: to be checked.
        bound: the network.
        setting: of the backend.
        parameters: the network's untrained parameters.
        images: [batch, h, w, c]; `parity.batch_size` says how many.
        labels: [batch].
        drawn: whether the images are random pixels.
        seed: of dropout masks, directions of gradients, random pixels.

    Raises:
        BadInput: the oracle is not installed.
    """
    compare = partial(check_parity, backend, bound, labels=labels, seed=seed)
    found = compare(setting, parameters, images)
    return explain(found, compare, setting, parameters=parameters, images=images, drawn=drawn, seed=seed)
