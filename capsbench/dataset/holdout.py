"""Training images that no train step sees, chosen by the data alone."""

from dataclasses import replace
from hashlib import sha256
from math import ceil

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.chosen import choose
from capsbench.dataset.loading import Split
from capsbench.errors import BadInput


def hold_out(split: Split, share: float, *, together: int = 1) -> tuple[Split, Split]:
    """Part a split in two: the images that remain, and a share of them (rounded up) that is held out.

    So many images that follow one another are never parted: the two eyes' views of one toy show nearly the same.

    Which ones depends on the split's labels only, so that every backend and seed holds out the same. They are drawn
    without regard to classes, and both parts keep the split's order.

    Raises:
        BadInput: nothing would remain.
    """
    images = len(split.labels)
    count = ceil(images / together)
    held_out = ceil(share * count)
    if held_out >= count:
        raise BadInput(f"holding out {images:,} of {images:,} training images leaves none to train on")
    digest = sha256(split.labels.astype("<i8").tobytes()).digest()
    keys = np.random.Generator(np.random.PCG64(np.frombuffer(digest, dtype="<u4").tolist())).random(count)
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[np.argsort(keys, kind="stable")[:held_out]] = True
    chosen = chosen.repeat(together)[:images]
    return _part(split, ~chosen), _part(split, chosen)


def _part(split: Split, which: NDArray[np.bool_]) -> Split:
    """Those images, without a copy of them."""
    places = np.flatnonzero(which)
    factors = None if split.factors is None else split.factors[places]
    return replace(split, images=choose(split.images, places), labels=split.labels[places], factors=factors)
