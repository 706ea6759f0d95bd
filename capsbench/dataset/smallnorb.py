"""smallNORB's three files a split: stereo pairs, categories, and the factors under which each pair was taken.

LeCun, Huang and Bottou, "Learning methods for generic object recognition with invariance to pose and lighting",
CVPR 2004. `-dat` holds the pairs [n, 2, 96, 96], `-cat` the categories [n], `-info` four numbers a pair [n, 4]:
instance 0 to 9, elevation 0 to 8 (30 to 70 degrees in steps of 5), azimuth 0 to 34 in tens of degrees, even ones only,
and lighting 0 to 5.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.norb import read_matrix, write_chunks, write_matrix
from capsbench.errors import BadInput

SIDE = 96  # pixels
LIGHTINGS = 6
ELEVATIONS = tuple(range(30, 75, 5))
AZIMUTHS = tuple(range(0, 360, 20))
CATEGORIES = ("animal", "human", "airplane", "truck", "car")
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
FULL_COUNT = len(CATEGORIES) * 5 * len(ELEVATIONS) * len(AZIMUTHS) * LIGHTINGS

_STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
FILES = {split: tuple(f"{stem}-{part}.mat" for part in ("dat", "cat", "info")) for split, stem in _STEMS.items()}
"""The names of a split's files: pairs, categories, factors."""

# What each column of an info file may hold.
_COLUMNS = (
    ("instance", range(10)),
    ("elevation", range(len(ELEVATIONS))),
    ("azimuth", range(0, 2 * len(AZIMUTHS), 2)),
    ("lighting", range(LIGHTINGS)),
)


@dataclass(frozen=True, slots=True)
class Factors:
    """Under which each image was taken, int64 [n] each.

    Attributes:
        instance: of the category, 0 to 9.
        elevation_degrees: of the camera above the table, 30 to 70.
        azimuth_degrees: of the toy, 0 to 340.
        lighting: 0 to 5.
    """

    instance: NDArray[np.int64]
    elevation_degrees: NDArray[np.int64]
    azimuth_degrees: NDArray[np.int64]
    lighting: NDArray[np.int64]

    def __getitem__(self, which: slice | NDArray[np.int64]) -> "Factors":
        """Return the factors of some of the images."""
        return Factors(
            self.instance[which], self.elevation_degrees[which], self.azimuth_degrees[which], self.lighting[which]
        )


@dataclass(frozen=True, slots=True)
class Pairs:
    """A split as its files hold it.

    Attributes:
        images: uint8 [n, 96, 96, 2], left and right eye as channels; over plain files a view of the memory map, so
            that only what is looked at is read.
        labels: int64 [n], the category: 0 animal, 1 human, 2 airplane, 3 truck, 4 car.
        factors: of each pair.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    factors: Factors

    def first(self, count: int) -> "Pairs":
        """Return the first `count` pairs, as a view."""
        return Pairs(self.images[:count], self.labels[:count], self.factors[:count])


def read_pairs(dat: Path, cat: Path, info: Path) -> Pairs:
    """Read and check the three files of a split, each plain or compressed.

    Raises:
        BadInput: a file is missing or broken, holds something of another type or shape, or a category or factor out
            of its range, or the files differ in the number of pairs.
    """
    images, labels, columns = read_matrix(dat), read_matrix(cat), read_matrix(info)
    _check_shape(dat, images, np.uint8, (2, SIDE, SIDE), f"stereo pairs are uint8 of [n, 2, {SIDE}, {SIDE}]")
    _check_shape(cat, labels, np.int32, (), "categories are int32 of [n]")
    _check_shape(info, columns, np.int32, (len(_COLUMNS),), f"factors are int32 of [n, {len(_COLUMNS)}]")
    if not len(images) == len(labels) == len(columns):
        raise BadInput(
            f"{dat} holds {len(images):,} stereo pairs but {cat.name} {len(labels):,} categories "
            f"and {info.name} factors of {len(columns):,}"
        )
    _check_range(cat, labels, "category", range(len(CATEGORIES)))
    for i, (factor, legal) in enumerate(_COLUMNS):
        _check_range(info, columns[:, i], factor, legal)
    instance, elevation, azimuth, lighting = columns.T.astype(np.int64)
    factors = Factors(instance, ELEVATIONS[0] + 5 * elevation, 10 * azimuth, lighting)
    return Pairs(np.asarray(images).transpose(0, 2, 3, 1), labels.astype(np.int64), factors)


def write_pairs(
    dat: Path, cat: Path, info: Path, labels: NDArray[np.int64], factors: Factors, chunks: Iterable[NDArray[np.uint8]]
) -> None:
    """Write the three files of a split, the pairs last.

    Args:
        dat: where the pairs go.
        cat: where the categories go.
        info: where the factors go.
        labels: int64 [n].
        factors: of each pair.
        chunks: uint8 [k, 2, 96, 96] each, all [n] pairs together; only one is in memory at a time.

    Raises:
        BadInput: a file cannot be written.
    """
    columns = (
        factors.instance, (factors.elevation_degrees - ELEVATIONS[0]) // 5, factors.azimuth_degrees // 10,
        factors.lighting,
    )  # fmt: skip
    write_matrix(cat, labels.astype(np.int32))
    write_matrix(info, np.stack(columns, axis=1).astype(np.int32))
    write_chunks(dat, np.dtype(np.uint8), (len(labels), 2, SIDE, SIDE), chunks)


def _check_shape(path: Path, array: NDArray[Any], dtype: type, shape: tuple[int, ...], legal: str) -> None:
    if array.dtype != dtype or array.shape[1:] != shape:
        raise BadInput(f"{path} holds {array.dtype} of shape {array.shape}; {legal}")


def _check_range(path: Path, values: NDArray[Any], what: str, legal: range) -> None:
    step = legal[1] - legal[0]
    wrong = np.flatnonzero((values < legal[0]) | (values > legal[-1]) | (values % step != 0))
    if len(wrong):
        steps = "" if step == 1 else f" in steps of {step}"
        raise BadInput(
            f"{path} has the {what} {values[wrong[0]]} at index {wrong[0]}, legal are {legal[0]} to {legal[-1]}{steps}"
        )
