"""The batches that every backend sees: the same images in the same order, whatever the framework.

All chance comes from (seed, epoch, batch index), so that any batch can be made again alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.loading import Split
from capsbench.dataset.transform import Transform, augment, distort, prepare
from capsbench.errors import BadInput

# The first word of each seed sequence, so that order and augmentation never share their numbers.
_ORDER, _AUGMENTATION = 1, 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Images float32 [b, h, w, c] and labels int64 [b]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch, a permutation int64 [count], the same in every NumPy."""
    # Sorting raw uniform numbers shuffles alike everywhere; `Generator.permutation` promises no such thing.
    keys = _generator(_ORDER, seed, epoch).random(count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


def augmentation_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return what augments batch `index` of an epoch."""
    return _generator(_AUGMENTATION, seed, epoch, index)


def training_batches(split: Split, transform: Transform, *, batch: int, seed: int, epoch: int) -> Iterator[Batch]:
    """Go through a split once, shuffled and augmented; images that fill no whole batch at the end are left out.

    Raises:
        BadInput: at once, if `batch` is below 1 or above the number of images.
    """
    count = len(split.labels)
    _check_batch(batch)
    if batch > count:
        raise BadInput(f"a batch of {batch:,} is larger than the training split of {count:,} images")
    order = epoch_order(count, seed, epoch)
    return (
        _training_batch(split, transform, order[i * batch : (i + 1) * batch], augmentation_generator(seed, epoch, i))
        for i in range(count // batch)
    )


def test_batches(split: Split, transform: Transform, *, batch: int) -> Iterator[tuple[Batch, int]]:
    """Go through a split once, in its order, without augmentation.

    Yields:
        A batch and how many of its images count. The last batch is filled up with its own first image, so that
        shapes stay the same.

    Raises:
        BadInput: at once, if `batch` is below 1.
    """
    _check_batch(batch)
    return (_padded_batch(split, transform, start, batch) for start in range(0, len(split.labels), batch))


# pytest would otherwise take the name for a test wherever it is imported.
test_batches.__test__ = False  # type: ignore[attr-defined]


def fixed_batch(split: Split, transform: Transform, *, batch: int) -> Batch:
    """Return the first `batch` images without augmentation, from the beginning again where the split is smaller.

    Raises:
        BadInput: `batch` is below 1.
    """
    _check_batch(batch)
    return _plain_batch(split, transform, np.arange(batch) % len(split.labels))


def _training_batch(split: Split, transform: Transform, which: NDArray[np.int64], rng: np.random.Generator) -> Batch:
    images = augment(prepare(_taken(split, which), transform), transform, rng, training=True)
    return Batch(images, split.labels[which])


def _padded_batch(split: Split, transform: Transform, start: int, batch: int) -> tuple[Batch, int]:
    which = np.arange(start, start + batch)
    real = min(batch, len(split.labels) - start)
    which[real:] = start
    return _plain_batch(split, transform, which), real


def _plain_batch(split: Split, transform: Transform, which: NDArray[np.int64]) -> Batch:
    unused = _generator(0)
    images = distort(prepare(_taken(split, which), transform), transform, which)
    images = augment(images, transform, unused, training=False)
    return Batch(images, split.labels[which])


def _taken(split: Split, which: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Copy some images out of a split, in the memory order that sums over pixels are taken in."""
    return np.ascontiguousarray(split.images[which])


def _check_batch(batch: int) -> None:
    if batch < 1:
        raise BadInput(f"a batch of {batch} images is impossible, legal is 1 or more")


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(key))
