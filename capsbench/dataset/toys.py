"""The toys data set: smallNORB's factors on fifty toys that are made here, so that nothing need be downloaded.

Five categories of ten instances, nine elevations, eighteen azimuths, six lightings, stereo pairs of 96x96; instances
4, 6, 7, 8, 9 train and 0, 1, 2, 3, 5 test, as in LeCun, Huang and Bottou (CVPR 2004). Unlike there, a toy lies where
it happens to, larger or smaller, and the camera is not quite upright: without that, five straight cuts through the
space of pixels nearly tell the categories apart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache as remember

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.camera import Pose, Turntable, on_turntable, photograph
from capsbench.dataset.smallnorb import AZIMUTHS, CATEGORIES, ELEVATIONS, INSTANCES, LIGHTINGS
from capsbench.dataset.toybox import build
from capsbench.errors import BadInput

GENERATOR_VERSION = 3  # raise it with every change of a pixel: the cache is keyed by it

_SIZES = (0.76, 1.0)  # of a toy in the picture; what it leaves of the picture is where it may lie
_MOST_ROLL = 8.0  # degrees
_MOST_GRAIN = 4  # grey levels
_POSES, _ORDER, _GRAIN = 1, 2, 3  # the first words of the seed sequences


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
    viewpoint = Viewpoint(category, instance, elevation, azimuth)
    pictures = photograph(_toy(category, instance), elevation, azimuth, lightings, _pose(viewpoint))
    return _grainy(pictures, viewpoint, lightings)


def _pose(viewpoint: Viewpoint) -> Pose:
    """Return how a toy lies in the pictures of one viewpoint."""
    uniform = _uniform(_POSES, viewpoint, (4,))
    size = _SIZES[0] + (_SIZES[1] - _SIZES[0]) * float(uniform[0])
    right, away, roll = (2.0 * float(number) - 1.0 for number in uniform[1:])
    free = 1.0 - size
    return Pose(size, free * right, free * away, _MOST_ROLL * roll)


def _grainy(pictures: NDArray[np.uint8], viewpoint: Viewpoint, lightings: Sequence[int]) -> NDArray[np.uint8]:
    """Add the grain of a camera's sensor, so that no part of a picture is perfectly flat.

    On flat background all children of a capsule agree, and a float32 gradient is rounding more than anything else.
    """
    shape = pictures.shape[1:]
    grain = np.stack([_uniform(_GRAIN, viewpoint, shape, lighting) for lighting in lightings])
    levels = (grain * (2 * _MOST_GRAIN + 1)).astype(np.int16) - _MOST_GRAIN
    grainy: NDArray[np.uint8] = np.clip(pictures + levels, 0, 255).astype(np.uint8)
    return grainy


def _uniform(purpose: int, viewpoint: Viewpoint, shape: tuple[int, ...], lighting: int = 0) -> NDArray[np.float64]:
    """Return raw uniform numbers, alike in every NumPy, from a stream of one purpose, viewpoint and lighting alone."""
    key = [purpose, viewpoint.category, viewpoint.instance, viewpoint.elevation, viewpoint.azimuth, lighting]
    return np.random.Generator(np.random.PCG64(key)).random(shape)


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
    keys = np.random.Generator(np.random.PCG64(_ORDER)).random((10, len(CATEGORIES), len(views)))
    orders = np.argsort(keys, axis=-1, kind="stable")
    for turn in range(len(views)):
        for instance in instances:
            for category in range(len(CATEGORIES)):
                yield Viewpoint(category, instance, *views[orders[instance, category, turn]])
