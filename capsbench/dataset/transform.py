"""What happens to an image between the file and the network.

`prepare` is the part without chance: scale to [0, 1], resize, put on a canvas. `distort` is for evaluation only, where
a protocol asks for it: one affine map an image, the same in every run. `augment` is the rest, in this order: shift,
crop, brightness, contrast, standardise. All work on one batch at a time, so that a split stays uint8 in memory
whatever its transform; resizing a batch costs a millisecond or two.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from capsbench.dataset.affine import Affine, draw_maps, warp
from capsbench.errors import BadInput

Images = NDArray[np.float32]
Shape = tuple[int, int, int]

_DEVIATION_FLOOR = 1e-6

_Pixels = Annotated[int, Field(ge=1, le=4096)]
_Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Transform:
    """How images are prepared; the default leaves them as they are, scaled to [0, 1].

    Attributes:
        resize: side of the square that images are resized to: by the mean over areas where the side divides the
            image's, else bilinearly between pixel centres.
        canvas: side of the square of zeros in whose middle the resized image is put.
        crop: side of the square cut out: anywhere in training, from the centre in test.
        standardise: bring each image to mean 0 and variance 1 over all its pixels and channels; a standard deviation
            below 1e-6 counts as 1e-6, so that a blank image becomes zeros.
        brightness: training adds to each image one number from [-brightness, brightness], in units of the full range.
        contrast: training stretches each image about the mean of each channel by a factor from
            [1 - contrast, 1 + contrast].
        shift: training moves each image by up to so many pixels along either axis and fills with zeros.
        affine: evaluation shows each image under one affine map, drawn from the image's place in its split.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    resize: _Pixels | None = None
    canvas: _Pixels | None = None
    crop: _Pixels | None = None
    standardise: bool = False
    brightness: _Unit = 0.0
    contrast: _Unit = 0.0
    shift: Annotated[int, Field(ge=0, le=4096)] = 0
    affine: Affine | None = None


def output_shape(transform: Transform, shape: Shape) -> Shape:
    """Return the shape [h, w, c] of an image of `shape` after the transform.

    Raises:
        BadInput: the canvas is smaller than the resized image, the crop larger than either, or the shift as large.
    """
    height, width, channels = shape
    if transform.resize is not None:
        height = width = transform.resize
    if transform.canvas is not None:
        _check_canvas(transform.canvas, height, width)
        height = width = transform.canvas
    smaller = min(height, width)
    if transform.shift >= smaller:
        raise BadInput(
            f"transform: a shift by {transform.shift} pixels empties an image of {height}x{width}, "
            f"legal is 0 to {smaller - 1}"
        )
    if transform.crop is None:
        return height, width, channels
    if transform.crop > smaller:
        raise BadInput(
            f"transform: crop {transform.crop} is larger than the image of {height}x{width}, legal is 1 to {smaller}"
        )
    return transform.crop, transform.crop, channels


def prepare(images: NDArray[np.uint8], transform: Transform) -> Images:
    """Scale uint8 [n, h, w, c] to float32 in [0, 1], resize, and put on the canvas.

    The area mean is exact up to one rounding: sums of whole grey levels, divided once.

    Raises:
        BadInput: the canvas is smaller than the image.
    """
    return _on_canvas(_resized(images, transform), transform.canvas)


def distort(images: Images, transform: Transform, places: NDArray[np.int64]) -> Images:
    """Prepared images [n, h, w, c], which stand at `places` [n] of their split, under their affine maps."""
    return images if transform.affine is None else warp(images, draw_maps(transform.affine, places))


def _resized(images: NDArray[np.uint8], transform: Transform) -> Images:
    side, (height, width) = transform.resize, images.shape[1:3]
    if side is None or side == height == width:
        return images.astype(np.float32) / np.float32(255.0)
    if height % side == 0 and width % side == 0:
        return _area_mean(images, height // side, width // side)
    rows, columns = _neighbours(height, side), _neighbours(width, side)
    wide = _blend(images.astype(np.float32), *rows, axis=1)
    return _blend(wide, *columns, axis=2) / np.float32(255.0)


def augment(images: Images, transform: Transform, rng: np.random.Generator, training: bool) -> Images:
    """Shift, crop, change brightness and contrast, and standardise.

    Nothing is clipped: brightness and contrast may lead out of [0, 1], as in TensorFlow's image functions. Without
    `training` there is no shift, no change of light, the crop is central, and `rng` is not touched.

    Args:
        images: float32 [n, h, w, c] from `prepare`; left as they are.
        transform: what to do.
        rng: where training draws from.
        training: whether to augment.

    Returns:
        float32 [n, h', w', c], see `output_shape`.

    Raises:
        BadInput: as `output_shape`.
    """
    shape: Shape = (images.shape[1], images.shape[2], images.shape[3])
    out_shape = output_shape(replace(transform, resize=None, canvas=None), shape)
    images = _windows(images, out_shape, transform.shift, rng if training else None)
    if training and transform.brightness:
        images = images + _draw(rng, len(images), -transform.brightness, transform.brightness)
    if training and transform.contrast:
        mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
        images = (images - mean) * _draw(rng, len(images), 1.0 - transform.contrast, 1.0 + transform.contrast) + mean
    return _standardised(images) if transform.standardise else images


def _check_canvas(side: int, height: int, width: int) -> None:
    if side < max(height, width):
        raise BadInput(
            f"transform: canvas {side} is smaller than the image of {height}x{width}, "
            f"legal is {max(height, width)} or more"
        )


def _on_canvas(images: Images, side: int | None) -> Images:
    """The images [n, h, w, c] in the middle of a square of zeros, towards the upper left where there is no middle."""
    if side is None:
        return images
    _check_canvas(side, *images.shape[1:3])
    spare = [side - size for size in images.shape[1:3]]
    return np.pad(images, ((0, 0), *((each // 2, each - each // 2) for each in spare), (0, 0)))


def _windows(images: Images, out_shape: Shape, shift: int, rng: np.random.Generator | None) -> Images:
    """Cut one window out of each image: at random and shifted with `rng`, else the central one."""
    spare = images.shape[1] - out_shape[0], images.shape[2] - out_shape[1]
    if rng is None:
        top, left = spare[0] // 2, spare[1] // 2
        return images[:, top : top + out_shape[0], left : left + out_shape[1]].copy()
    if not shift and not any(spare):
        return images.copy()
    # The corner of the shifted crop in the padded image.
    corners = _draw_corners(rng, len(images), (2 * shift, 2 * shift)) + _draw_corners(rng, len(images), spare)
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0))) if shift else images
    windows = np.empty((len(images), *out_shape), np.float32)
    for window, image, (top, left) in zip(windows, padded, corners, strict=True):
        window[:] = image[top : top + out_shape[0], left : left + out_shape[1]]
    return windows


def _draw_corners(rng: np.random.Generator, count: int, most: tuple[int, int]) -> NDArray[np.int64]:
    """Draw whole numbers from 0 to `most`, int64 [count, 2]; from uniform numbers, alike in every NumPy."""
    uniform = rng.random((count, 2))
    corners: NDArray[np.int64] = (uniform * (np.array(most) + 1)).astype(np.int64)
    return corners


def _draw(rng: np.random.Generator, count: int, low: float, high: float) -> Images:
    """Draw one number per image, float32 [count, 1, 1, 1]."""
    return (low + (high - low) * rng.random((count, 1, 1, 1))).astype(np.float32)


def _standardised(images: Images) -> Images:
    """Subtract each image's mean and divide by its standard deviation, both found in float64."""
    axes = (1, 2, 3)
    centred: Images = images - images.mean(axis=axes, keepdims=True, dtype=np.float64).astype(np.float32)
    variance = np.square(centred).mean(axis=axes, keepdims=True, dtype=np.float64)
    scale = np.maximum(np.sqrt(variance), _DEVIATION_FLOOR).astype(np.float32)
    centred /= scale
    return centred


def _area_mean(images: NDArray[np.uint8], tall: int, wide: int) -> Images:
    """Average blocks of `tall` x `wide` pixels; float32 counts grey levels exactly up to 2^24."""
    total = np.zeros((len(images), images.shape[1] // tall, images.shape[2] // wide, images.shape[3]), np.float32)
    for i in range(tall):
        for j in range(wide):
            total += images[:, i::tall, j::wide]
    return np.divide(total, np.float32(255.0 * tall * wide), out=total)


def _neighbours(size: int, side: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Images]:
    """Return for each of `side` new pixel centres the old pixels before and after it, and the weight of the latter."""
    centres = np.clip((np.arange(side) + 0.5) * (size / side) - 0.5, 0.0, size - 1.0)
    before = np.floor(centres).astype(np.int64)
    return before, np.minimum(before + 1, size - 1), (centres - before).astype(np.float32)


def _blend(images: Images, before: NDArray[np.int64], after: NDArray[np.int64], weight: Images, axis: int) -> Images:
    """Interpolate linearly along one axis."""
    weight = weight.reshape([-1 if i == axis else 1 for i in range(4)])
    first, second = images.take(before, axis), images.take(after, axis)
    return first + (second - first) * weight
