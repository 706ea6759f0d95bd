"""Test images must not be training images."""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.loading import Split


def identical_images(train: Split, test: Split) -> int:
    """Count the test images that are byte for byte some training image; linear in time, 16 bytes an image in memory."""
    if train.images.shape[1:] != test.images.shape[1:]:
        return 0
    seen = set(_digests(train.images))
    return sum(digest in seen for digest in _digests(test.images))


def _digests(images: NDArray[np.uint8]) -> Iterator[bytes]:
    return (blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images)
