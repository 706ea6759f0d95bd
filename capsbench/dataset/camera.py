"""A stereo pair of pictures of one toy on a turntable, under any of six lightings.

The eyes and the lamps stand still while the toy turns. Geometry is found once per eye and shaded once per lighting.
Only operations that IEEE 754 rounds alike everywhere touch a pixel, in a fixed order, so the bytes are the same on
every machine; hence no matrix products, and sums of two or four terms are written out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.smallnorb import SIDE
from capsbench.dataset.solids import (
    Floats,
    Solid,
    Vector,
    cross,
    dot,
    extent,
    inverse_rows,
    meet,
    minus,
    placed,
    plus,
    scaled,
    turn,
    unit,
)

_SAMPLES = 2  # rays a pixel, each way
_DISTANCE, _EYES_APART = 7.0, 0.7  # in radii of the toy
_PICTURE_HALF = 1.04 / _DISTANCE  # tangent of half the field of view; the whole unit ball is in the picture
_PAINT, _TABLE = 0.68, 1.1  # reflectance of toy and table
# Where the lamps stand, seen from the toy; the camera is at -y.
_LAMPS: tuple[Vector, ...] = ((-0.6, -0.4, 0.69), (0.6, -0.4, 0.69), (0.0, 0.75, 0.66), (0.0, -0.85, 0.53))
# One row a lighting: the ambient light, then the strength of each lamp.
_LIGHTINGS = (
    (0.30, 0.55, 0.00, 0.00, 0.20),
    (0.30, 0.00, 0.55, 0.00, 0.20),
    (0.32, 0.22, 0.22, 0.18, 0.10),
    (0.26, 0.00, 0.00, 0.35, 0.35),
    (0.20, 0.40, 0.00, 0.15, 0.00),
    (0.20, 0.00, 0.40, 0.15, 0.00),
)


@dataclass(frozen=True, slots=True)
class Turntable:
    """A toy centred on the table and scaled to fit the picture at every azimuth."""

    solids: tuple[Solid, ...]
    scale: float
    shift: Vector
    middle_height: float


@dataclass(frozen=True, slots=True)
class Pose:
    """How a toy happens to lie in the picture.

    Attributes:
        size: of the toy, 1 for one that just fits the picture from every side.
        right: where its middle is, in radii of a toy of size 1, to the right of the picture's middle.
        away: the same on the table, away from the camera.
        roll: of the camera about its line of sight, in degrees.
    """

    size: float = 1.0
    right: float = 0.0
    away: float = 0.0
    roll: float = 0.0


@dataclass(frozen=True, slots=True)
class _View:
    """What one eye sees: rays start at `eye`, along `rays[0] + u * rays[1] + v * rays[2]`."""

    eye: Vector
    rays: tuple[Vector, Vector, Vector]


def on_turntable(solids: Sequence[Solid]) -> Turntable:
    """Centre a toy, put its lowest point on the table and scale its bounding box into the unit ball."""
    reaches = [extent(solid) for solid in solids]
    low = [min(s.centre[i] - r[i] for s, r in zip(solids, reaches, strict=True)) for i in range(3)]
    high = [max(s.centre[i] + r[i] for s, r in zip(solids, reaches, strict=True)) for i in range(3)]
    half = [(b - a) / 2.0 for a, b in zip(low, high, strict=True)]
    scale = 1.0 / math.sqrt(half[0] * half[0] + half[1] * half[1] + half[2] * half[2])
    shift = (-(low[0] + high[0]) / 2.0, -(low[1] + high[1]) / 2.0, -low[2])
    return Turntable(tuple(solids), scale, shift, scale * half[2])


def photograph(
    toy: Turntable, elevation: float, azimuth: float, lightings: Sequence[int], pose: Pose
) -> NDArray[np.uint8]:
    """Take one stereo pair per lighting.

    Args:
        toy: what stands on the table.
        elevation: of the camera above the table, in degrees.
        azimuth: by which the toy is turned, in degrees.
        lightings: each 0 to 5.
        pose: how the toy lies in the picture.

    Returns:
        uint8 [len(lightings), 2, 96, 96], left eye first.
    """
    solids = [placed(solid, pose.size * toy.scale, toy.shift, azimuth) for solid in toy.solids]
    # The toy stays where the turntable is and the camera looks past it: lamps are far away, so it comes to the same.
    target = (-pose.right, -pose.away, pose.size * toy.middle_height)
    pictures = np.empty((len(lightings), 2, SIDE, SIDE), np.uint8)
    for i, side in enumerate((-0.5, 0.5)):
        view = _look_at(target, elevation, side * _EYES_APART, pose.roll)
        hit, normal, height = _trace(solids, view)
        table = _table_light(solids, view)
        cover = _pixel_mean(hit.astype(np.float64))
        for j, lighting in enumerate(lightings):
            light = np.zeros(hit.shape)
            light[hit] = _toy_light(normal, height, lighting)
            picture = _pixel_mean(light) + (1.0 - cover) * (_upright(lighting) * table)
            pictures[j, i] = np.minimum(picture * 255.0 + 0.5, 255.0).astype(np.uint8)
    return pictures


def _look_at(target: Vector, elevation: float, aside: float, roll: float) -> _View:
    """Place an eye at `elevation` degrees, `aside` of the middle, turned towards `target`, rolled by `roll` degrees."""
    cosine, sine = turn(elevation)
    eye = plus(target, (aside, -_DISTANCE * cosine, _DISTANCE * sine))
    forward = unit(minus(target, eye))
    right = unit(cross(forward, (0.0, 0.0, 1.0)))
    up = cross(right, forward)
    cosine, sine = turn(roll)
    return _View(
        eye, (forward, plus(scaled(right, cosine), scaled(up, sine)), plus(scaled(up, cosine), scaled(right, -sine)))
    )


def _grid(samples: int) -> Floats:
    """Return the tangents [96 * samples] of the rays through one row of the picture."""
    count = SIDE * samples
    centres: Floats = (np.arange(count, dtype=np.float64) + 0.5) * (2.0 / count) - 1.0
    return centres * _PICTURE_HALF


def _trace(solids: Sequence[Solid], view: _View) -> tuple[NDArray[np.bool_], Floats, Floats]:
    """Find the nearest solid along each ray.

    Returns:
        Which rays hit, bool [192, 192]; for those, the unit normals [3, n] and heights above the table [n].
    """
    u = _grid(_SAMPLES)
    v = -u
    depth, normal = np.full((len(u), len(u)), np.inf), np.zeros((3, len(u), len(u)))
    for solid in solids:
        columns, rows = _window(solid, view, u)
        hits = meet(solid, view.eye, view.rays, u[columns], v[rows])
        nearer = hits.distance < depth[rows, columns]
        depth[rows, columns][nearer] = hits.distance[nearer]
        normal[:, rows, columns][:, nearer] = hits.normal[:, nearer]
    hit = depth < np.inf
    fall = (view.rays[0][2] + u * view.rays[1][2])[None, :] + (v * view.rays[2][2])[:, None]
    return hit, normal[:, hit], view.eye[2] + depth[hit] * fall[hit]


def _window(solid: Solid, view: _View, u: Floats) -> tuple[slice, slice]:
    """Return the columns and rows of the picture outside which no ray can meet the ball around a solid."""
    a, b, c = extent(solid)
    radius = math.sqrt(a * a + b * b + c * c)
    away = minus(solid.centre, view.eye)
    depth = dot(away, view.rays[0])

    def span(offset: float) -> slice:
        low, high = offset - radius, offset + radius
        first = low / (depth + (radius if low > 0.0 else -radius))
        last = high / (depth + (radius if high < 0.0 else -radius))
        return slice(int(np.searchsorted(u, first)), int(np.searchsorted(u, last)))

    return span(dot(away, view.rays[1])), span(-dot(away, view.rays[2]))


def _table_light(solids: Sequence[Solid], view: _View) -> Floats:
    """Return the share [96, 96] of light that reaches the table: each solid takes some away from what lies near it."""
    u = _grid(1)
    v = -u
    x, y, z = ((view.rays[0][i] + u * view.rays[1][i])[None, :] + (v * view.rays[2][i])[:, None] for i in range(3))
    distance = -view.eye[2] / z
    points = view.eye[0] + distance * x, view.eye[1] + distance * y, 0.0
    light = np.ones((SIDE, SIDE))
    for solid in solids:
        # In the solid's frame its surface is near 1; the fourth power lets the shadow end soon after it.
        a, b, c = (
            row[0] * (points[0] - solid.centre[0]) + row[1] * (points[1] - solid.centre[1]) - row[2] * solid.centre[2]
            for row in inverse_rows(_thickened(solid))
        )
        squared = a * a + b * b + c * c
        light *= 1.0 - 0.55 / (1.0 + squared * squared)
    return light


def _thickened(solid: Solid, by: float = 0.09) -> Solid:
    """Return the solid with every half-axis longer, so that thin plates throw a shadow too."""

    def longer(v: Vector) -> Vector:
        return scaled(v, 1.0 + by / math.sqrt(dot(v, v)))

    a, b, c = solid.columns
    return Solid(solid.kind, solid.centre, (longer(a), longer(b), longer(c)))


def _toy_light(normal: Floats, height: Floats, lighting: int) -> Floats:
    """Shade points by Lambert's law, the ambient light coming from above and fading towards the table."""
    ambient, *strengths = _LIGHTINGS[lighting]
    open_sky = 0.55 + 0.45 * np.minimum(height * 2.5 + 0.1, 1.0)
    light: Floats = ambient * (0.75 + 0.25 * normal[2]) * open_sky
    for lamp, strength in zip(_LAMPS, strengths, strict=True):
        if strength:
            facing = normal[0] * lamp[0] + normal[1] * lamp[1] + normal[2] * lamp[2]
            light += strength * np.maximum(facing, 0.0)
    light *= _PAINT
    return light


def _upright(lighting: int) -> float:
    """Return the light that a bare table sends back."""
    light, *strengths = _LIGHTINGS[lighting]
    for lamp, strength in zip(_LAMPS, strengths, strict=True):  # not `sum`, which rounds otherwise since Python 3.12
        light += strength * lamp[2]
    return _TABLE * light


def _pixel_mean(samples: Floats) -> Floats:
    """Average the 2x2 rays of each pixel."""
    return 0.25 * ((samples[::2, ::2] + samples[1::2, ::2]) + (samples[::2, 1::2] + samples[1::2, 1::2]))
