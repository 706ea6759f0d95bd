"""The toys data set: smallNORB's factors on fifty toys that are made here, so that nothing need be downloaded.

Five categories of ten instances, nine elevations, eighteen azimuths, six lightings, stereo pairs of 96x96; instances
4, 6, 7, 8, 9 train and 0, 1, 2, 3, 5 test, as in LeCun, Huang and Bottou (CVPR 2004).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache as remember
from pathlib import Path

import numpy as np
import pooch  # type: ignore[import-untyped]
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.dataset.camera import LIGHTINGS, SIDE, Turntable, on_turntable, photograph
from capsbench.dataset.toybox import CATEGORIES, build
from capsbench.errors import BadInput, unknown_name

GENERATOR_VERSION = 1  # raise it with every change of a pixel: the cache is keyed by it
ELEVATIONS = tuple(range(30, 75, 5))
AZIMUTHS = tuple(range(0, 360, 20))
INSTANCES = {"train": (4, 6, 7, 8, 9), "test": (0, 1, 2, 3, 5)}
FULL_COUNT = len(CATEGORIES) * 5 * len(ELEVATIONS) * len(AZIMUTHS) * LIGHTINGS

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Arrays:
    """Images uint8 [n, 96, 96, 2], left and right eye as channels, and labels int64 [n]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """One toy seen from one side; degrees."""

    category: int
    instance: int
    elevation: int
    azimuth: int


def render(
    category: int, instance: int, elevation: int, azimuth: int, lightings: Sequence[int] = range(LIGHTINGS)
) -> NDArray[np.uint8]:
    """Render one viewpoint under some lightings.

    Args:
        category: 0 animal, 1 human, 2 airplane, 3 truck, 4 car.
        instance: 0 to 9.
        elevation: 30 to 70 degrees in steps of 5.
        azimuth: 0 to 340 degrees in steps of 20.
        lightings: each 0 to 5.

    Returns:
        uint8 [len(lightings), 2, 96, 96], left eye first.

    Raises:
        BadInput: a factor is not one of these.
    """
    legal: tuple[tuple[str, int, Sequence[int]], ...] = (
        ("category", category, range(len(CATEGORIES))),
        ("instance", instance, range(10)),
        ("elevation", elevation, ELEVATIONS),
        ("azimuth", azimuth, AZIMUTHS),
        *(("lighting", lighting, range(LIGHTINGS)) for lighting in lightings),
    )
    for factor, value, values in legal:
        if value not in values:
            raise BadInput(f"the toys have no {factor} {value!r}, legal are {', '.join(map(str, values))}")
    return photograph(_toy(category, instance), elevation, azimuth, lightings)


@remember
def _toy(category: int, instance: int) -> Turntable:
    return on_turntable(build(category, instance))


def viewpoints(split: str) -> Iterator[Viewpoint]:
    """List the viewpoints of a split so that every beginning of the list is balanced.

    Categories change fastest, then instances; each toy goes through its viewpoints in an order of its own.
    """
    instances = INSTANCES[split]
    views = [(elevation, azimuth) for elevation in ELEVATIONS for azimuth in AZIMUTHS]
    # Sorting raw uniform numbers shuffles alike in every NumPy; `permutation` promises no such thing.
    keys = np.random.Generator(np.random.PCG64(GENERATOR_VERSION)).random((10, len(CATEGORIES), len(views)))
    orders = np.argsort(keys, axis=-1, kind="stable")
    for turn in range(len(views)):
        for instance in instances:
            for category in range(len(CATEGORIES)):
                yield Viewpoint(category, instance, *views[orders[instance, category, turn]])


def make(
    split: str, limit: int | None = None, *, cache: Path | None = None, progress: Progress | None = None
) -> Arrays:
    """Return the toys of a split, from the cache where they are already made.

    The images are in one fixed order, of which `limit` takes the beginning: whole viewpoints under all six lightings
    (but for the last, if `limit` is no multiple of six), balanced over categories and instances to within one
    viewpoint.

    Args:
        split: `train` or `test`.
        limit: how many pairs, or None for all 24,300.
        cache: the folder to keep them in, by default the user's cache folder.
        progress: is called with the pairs made so far and their final number; not for a cached split.

    Raises:
        BadInput: there is no such split, too few toys for the limit, or the cache cannot be written.
    """
    if split not in INSTANCES:
        raise unknown_name("split", split, INSTANCES)
    if limit is not None and not 1 <= limit <= FULL_COUNT:
        raise BadInput(f"the {split} split of toys cannot be limited to {limit:,}, legal is 1 to {FULL_COUNT:,}")
    count = FULL_COUNT if limit is None else limit
    folder = Path(pooch.os_cache("capsbench")) if cache is None else cache
    path = folder / f"toys-v{GENERATOR_VERSION}-{split}-{count}.npz"
    arrays = _read_cache(path, count)
    if arrays is None:
        arrays = _generate(split, count, progress)
        _write_cache(path, arrays)
    return arrays


def _generate(split: str, count: int, progress: Progress | None) -> Arrays:
    images = np.empty((count, SIDE, SIDE, 2), np.uint8)
    labels = np.empty(count, np.int64)
    for start, view in zip(range(0, count, LIGHTINGS), viewpoints(split), strict=False):
        stop = min(start + LIGHTINGS, count)
        pairs = render(view.category, view.instance, view.elevation, view.azimuth, range(stop - start))
        images[start:stop] = pairs.transpose(0, 2, 3, 1)
        labels[start:stop] = view.category
        if progress is not None:
            progress(stop, count)
    return Arrays(images, labels)


def _read_cache(path: Path, count: int) -> Arrays | None:
    """Return what lies in the cache, or None if that is nothing or nothing sound."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = Arrays(stored["images"], stored["labels"])
    except Exception:  # noqa: BLE001 - whatever a damaged file makes NumPy raise, the cure is to make it again
        return None
    sound = (
        arrays.images.shape == (count, SIDE, SIDE, 2)
        and arrays.images.dtype == np.uint8
        and arrays.labels.shape == (count,)
        and arrays.labels.dtype == np.int64
    )
    return arrays if sound else None


def _write_cache(path: Path, arrays: Arrays) -> None:
    try:
        with whole_file(path) as file:
            np.savez(file, images=arrays.images, labels=arrays.labels)
    except OSError as error:
        raise BadInput(
            f"cannot keep the toys in {path.parent}: {error.strerror or error}; name another folder in XDG_CACHE_HOME"
        ) from error
