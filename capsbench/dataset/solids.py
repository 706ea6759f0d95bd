"""Convex solids under an affine map, and where the rays of one eye meet them.

A solid is a unit ball, a unit round frustum or a unit square frustum, seen through a 3x3 matrix and a centre. Rays are
taken into the solid's own frame, which leaves the distance along the ray as it is, so three small intersections serve
every ellipsoid, cone, cylinder, box, pyramid and swept wing.

Arrays meet only + - * / and the square root, which IEEE 754 rounds alike on every machine.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = tuple[float, float, float]
Floats = NDArray[np.float64]
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Solid:
    """The image of a unit solid under p -> columns @ p + centre.

    A frustum spans z from -1 to 1 and shrinks linearly to `taper` (in x, in y) of its section at z = 1; a round one
    shrinks by `taper[0]` alone. `columns` are the images of the three unit vectors.
    """

    kind: Literal["ball", "round", "square"]
    centre: Vector
    columns: tuple[Vector, Vector, Vector]
    taper: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Hits:
    """Where the rays of a window meet one solid: `distance` [h, w], infinite on a miss, and unit `normal` [3, h, w]."""

    distance: Floats
    normal: Floats


def ball(centre: Vector, half: Vector, pitch: float = 0.0) -> Solid:
    """Return an ellipsoid of half-axes `half`, its nose raised from +x towards +z by `pitch` degrees."""
    cosine, sine = turn(pitch)
    a, b, c = half
    return Solid("ball", centre, ((a * cosine, 0.0, a * sine), (0.0, b, 0.0), (-c * sine, 0.0, c * cosine)))


def rod(start: Vector, end: Vector, start_radius: float, end_radius: float | None = None) -> Solid:
    """Return a cylinder or a blunt cone between two points."""
    last_radius = start_radius if end_radius is None else end_radius
    if last_radius > start_radius:
        return rod(end, start, last_radius, start_radius)
    axis = scaled(minus(end, start), 0.5)
    aside = (1.0, 0.0, 0.0) if abs(axis[0]) <= min(abs(axis[1]), abs(axis[2])) + _TINY else (0.0, 0.0, 1.0)
    if abs(axis[2]) > max(abs(axis[0]), abs(axis[1])):
        aside = (1.0, 0.0, 0.0)
    first = unit(cross(aside, axis))
    second = unit(cross(axis, first))
    columns = (scaled(first, start_radius), scaled(second, start_radius), axis)
    ratio = last_radius / start_radius
    return Solid("round", _middle(start, end), columns, (ratio, ratio))


def beam(start: Vector, end: Vector, half: tuple[float, float], taper: tuple[float, float] = (1.0, 1.0)) -> Solid:
    """Return a square frustum from the section around `start` to the one around `end`.

    Both sections lie across the coordinate axis along which the beam is longest, whatever its slant: a swept wing is
    cut parallel to the body and a leaning pillar parallel to the ground. `half` are the first section's half-sides
    along the two remaining axes, in the order x, y, z; the last section is `taper` times as large.
    """
    axis = scaled(minus(end, start), 0.5)
    longest = max(range(3), key=lambda i: abs(axis[i]))
    first, second = (i for i in range(3) if i != longest)
    columns = (_along(first, half[0]), _along(second, half[1]), axis)
    return Solid("square", _middle(start, end), columns, taper)


def turn(degrees: float) -> tuple[float, float]:
    """Return cosine and sine, rounded so that differing mathematics libraries agree to the last bit."""
    radians = math.radians(degrees)
    return round(math.cos(radians), 12), round(math.sin(radians), 12)


def placed(solid: Solid, scale: float, shift: Vector, azimuth: float) -> Solid:
    """Shift a solid, scale it, and turn it about the vertical by `azimuth` degrees."""
    cosine, sine = turn(azimuth)

    def spin(v: Vector) -> Vector:
        return scale * (cosine * v[0] - sine * v[1]), scale * (sine * v[0] + cosine * v[1]), scale * v[2]

    a, b, c = solid.columns
    return Solid(solid.kind, spin(plus(solid.centre, shift)), (spin(a), spin(b), spin(c)), solid.taper)


def extent(solid: Solid) -> Vector:
    """Return the half-sides of the axis-aligned box that just holds the solid, taper left aside."""

    def reach(x: float, y: float, z: float) -> float:
        if solid.kind == "square":
            return abs(x) + abs(y) + abs(z)
        if solid.kind == "round":
            return math.sqrt(x * x + y * y) + abs(z)
        return math.sqrt(x * x + y * y + z * z)

    a, b, c = solid.columns
    return reach(a[0], b[0], c[0]), reach(a[1], b[1], c[1]), reach(a[2], b[2], c[2])


def inverse_rows(solid: Solid) -> tuple[Vector, Vector, Vector]:
    """Return the rows of the inverse of `columns`, by cross products: linear-algebra libraries round as they like."""
    a, b, c = solid.columns
    rows = cross(b, c), cross(c, a), cross(a, b)
    shrink = 1.0 / dot(a, rows[0])
    return scaled(rows[0], shrink), scaled(rows[1], shrink), scaled(rows[2], shrink)


def meet(solid: Solid, eye: Vector, rays: tuple[Vector, Vector, Vector], u: Floats, v: Floats) -> Hits:
    """Intersect the rays `eye + t * (rays[0] + u * rays[1] + v * rays[2])` with a solid that the eye is outside of.

    Args:
        solid: what to meet.
        eye: where the rays start.
        rays: the direction through the middle of the picture, and its change by u and by v.
        u: [w], to the right.
        v: [h], upwards.
    """
    rows = inverse_rows(solid)
    origin = tuple(dot(row, minus(eye, solid.centre)) for row in rows)
    directions = [
        (dot(row, rays[0]) + dot(row, rays[1]) * u)[None, :] + (dot(row, rays[2]) * v)[:, None] for row in rows
    ]
    unit_solid = {"ball": _meet_ball, "round": _meet_round, "square": _meet_square}[solid.kind]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distance, local = unit_solid(origin, directions, solid.taper)
        normal = [rows[0][i] * local[0] + rows[1][i] * local[1] + rows[2][i] * local[2] for i in range(3)]
        length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
        return Hits(distance, np.stack([n / length for n in normal]))


_Local = tuple[Floats, list[Floats]]


def _meet_ball(o: tuple[float, ...], d: list[Floats], _: tuple[float, float]) -> _Local:
    """Solve |o + t d| = 1 for the nearer t."""
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
    c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1.0
    discriminant = b * b - a * c
    t = np.where(discriminant > 0.0, (-b - np.sqrt(discriminant)) / a, np.inf)
    return t, [o[i] + t * d[i] for i in range(3)]


def _meet_round(o: tuple[float, ...], d: list[Floats], taper: tuple[float, float]) -> _Local:
    """Solve x² + y² = (m + s z)² between the ends, and the two ends; the nearest of the four is where we enter."""
    m, s = (1.0 + taper[0]) / 2.0, (taper[0] - 1.0) / 2.0
    radius, slope = m + s * o[2], s * d[2]
    a = d[0] * d[0] + d[1] * d[1] - slope * slope
    a = np.where(np.abs(a) < _TINY, _TINY, a)
    b = o[0] * d[0] + o[1] * d[1] - radius * slope
    c = o[0] * o[0] + o[1] * o[1] - radius * radius
    root = np.sqrt(b * b - a * c)  # not a number on a miss, which every comparison below refuses
    t = np.full(a.shape, np.inf)
    for candidate in ((-b - root) / a, (-b + root) / a):
        good = (np.abs(o[2] + candidate * d[2]) <= 1.0) & (candidate < t)
        t[good] = candidate[good]
    side_z = o[2] + t * d[2]
    end_z = np.zeros(a.shape)
    for z in (-1.0, 1.0):
        candidate = (z - o[2]) / d[2]
        x, y = o[0] + candidate * d[0], o[1] + candidate * d[1]
        good = (x * x + y * y <= (m + s * z) * (m + s * z)) & (candidate < t)
        t[good] = candidate[good]
        end_z[good] = z
    side = end_z == 0.0
    normal_z = np.where(side, -s * (m + s * side_z), end_z)
    return t, [np.where(side, o[0] + t * d[0], 0.0), np.where(side, o[1] + t * d[1], 0.0), normal_z]


def _meet_square(o: tuple[float, ...], d: list[Floats], taper: tuple[float, float]) -> _Local:
    """Clip each ray by the six faces: it is inside between the last entry and the first exit."""
    (kx, ky), shape = taper, d[0].shape
    mx, sx, my, sy = (1.0 + kx) / 2.0, (1.0 - kx) / 2.0, (1.0 + ky) / 2.0, (1.0 - ky) / 2.0
    faces = (
        ((1.0, 0.0, sx), mx), ((-1.0, 0.0, sx), mx), ((0.0, 1.0, sy), my), ((0.0, -1.0, sy), my),
        ((0.0, 0.0, 1.0), 1.0), ((0.0, 0.0, -1.0), 1.0),
    )  # fmt: skip
    enter, leave = np.full(shape, -np.inf), np.full(shape, np.inf)
    local = [np.zeros(shape) for _ in range(3)]
    for n, offset in faces:
        # Adding zero makes minus zero plus zero, so that a ray along an inner side leaves it at +infinity.
        approach = n[0] * d[0] + n[1] * d[1] + n[2] * d[2] + 0.0
        t = (offset - (n[0] * o[0] + n[1] * o[1] + n[2] * o[2])) / approach
        inwards = approach < 0.0
        later = inwards & (t > enter)
        enter[later] = t[later]
        for i in range(3):
            local[i][later] = n[i]
        np.minimum(leave, t, out=leave, where=~inwards)
    return np.where(enter < leave, enter, np.inf), local


def dot(a: Vector, b: Vector) -> float:
    """Return the inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector, b: Vector) -> Vector:
    """Return the outer product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def plus(a: Vector, b: Vector) -> Vector:
    """Return a + b."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def minus(a: Vector, b: Vector) -> Vector:
    """Return a - b."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def scaled(a: Vector, by: float) -> Vector:
    """Return a times a number."""
    return a[0] * by, a[1] * by, a[2] * by


def _middle(a: Vector, b: Vector) -> Vector:
    return scaled(plus(a, b), 0.5)


def unit(a: Vector) -> Vector:
    """Return a vector of length one along a."""
    return scaled(a, 1.0 / math.sqrt(dot(a, a)))


def _along(axis: int, length: float) -> Vector:
    return length * (axis == 0), length * (axis == 1), length * (axis == 2)
