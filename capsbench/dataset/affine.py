"""Affine maps of test images, each drawn from the image's place in its split, so that every run sees the same ones."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

Images = NDArray[np.float32]

# The first word of each seed sequence; `batches` has others.
_MAP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """From where maps are drawn, each number uniformly; all zero leaves an image as it is.

    Attributes:
        rotation_degrees: the angle lies in [-rotation_degrees, rotation_degrees].
        shear: a pixel moves along its column by up to so many times its distance from the middle one, either way.
        scale: each axis is stretched by a factor in [1 - scale, 1 + scale] of its own.
        shift: whole pixels, up to so many, along each axis.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    shear: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    shift: Annotated[int, Field(ge=0, le=4096)] = 0


def draw_maps(affine: Affine, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Maps [n, 2, 3] of the images at `places` [n]: (row, column) about the centre to A (row, column) + shift.

    A turns after it has sheared, and shears after it has stretched.
    """
    # Raw uniform numbers only: their stream is the same in every NumPy.
    uniform = np.array([np.random.Generator(np.random.PCG64((_MAP, int(place)))).random(6) for place in places])
    signed = 2.0 * uniform.reshape(-1, 6) - 1.0
    angle = np.deg2rad(affine.rotation_degrees) * signed[:, 0]
    ones, zeros = np.ones(len(places)), np.zeros(len(places))
    turn = _matrices(np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle))
    slant = _matrices(ones, zeros, affine.shear * signed[:, 1], ones)
    stretch = _matrices(1.0 + affine.scale * signed[:, 2], zeros, zeros, 1.0 + affine.scale * signed[:, 3])
    shift = np.floor(uniform[:, 4:] * (2 * affine.shift + 1)) - affine.shift
    return np.concatenate([turn @ slant @ stretch, shift[:, :, None]], axis=2)


def warp(images: Images, maps: NDArray[np.float64]) -> Images:
    """Images float32 [n, h, w, c] under maps [n, 2, 3], bilinear between pixel centres, zero beyond the edges."""
    count, height, width, channels = images.shape
    centre = np.array([(height - 1) / 2.0, (width - 1) / 2.0])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2) - centre
    back = np.linalg.inv(maps[:, :, :2])
    places = np.einsum("nij,npj->npi", back, grid[None] - maps[:, None, :, 2]) + centre
    # A frame of zeros, and whatever lies further out is as far out as the frame.
    places = np.clip(places, -1.0, (height, width)) + 1.0
    framed = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(count, -1, channels)
    corner = np.floor(places).astype(np.int64)
    part = (places - corner).astype(np.float32)
    index = corner[..., 0] * (width + 3) + corner[..., 1]
    result = np.zeros((count, height * width, channels), np.float32)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - down - part[..., 0]) * np.abs(1 - right - part[..., 1])
        values = np.take_along_axis(framed, (index + down * (width + 3) + right)[..., None], axis=1)
        result += weight[..., None] * values
    return result.reshape(images.shape)


def _matrices(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[[a, b], [c, d]] for each entry, [n, 2, 2]."""
    return np.stack([a, b, c, d], axis=1).reshape(-1, 2, 2)
