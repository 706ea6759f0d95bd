"""The fifty toys: ten instances of five categories, each built from a few solids.

A toy looks along +x, its left side lies along +y and it stands on or above z = 0; units are arbitrary, since the
renderer scales every toy to one size. An instance has one of three styles and proportions of its own. The third style
is among the test instances alone, so that a network has to know a dog by horses and elephants: new proportions of known
styles were too easy, and told no good network from another.
"""

from collections.abc import Callable

import numpy as np

from capsbench.dataset.solids import Solid, ball, beam, rod

# The style of each instance: of those that test (0, 1, 2, 3, 5), two have one that no training instance has.
_STYLES = (0, 1, 2, 0, 0, 2, 1, 0, 1, 0)

# Draws a proportion between two bounds.
_Between = Callable[[float, float], float]


def build(category: int, instance: int) -> tuple[Solid, ...]:
    """Return the solids of one toy: `category` 0 to 4 as in smallNORB, `instance` 0 to 9."""
    # Only raw uniform numbers are drawn: their stream is the same in every NumPy.
    uniform = np.random.Generator(np.random.PCG64([category, instance])).random

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(uniform())

    return tuple(_BUILDERS[category](_STYLES[instance], between))


def _animal(style: int, between: _Between) -> list[Solid]:
    """Style 0 a horse or giraffe, 1 an elephant, 2 a dog or cat."""
    length, girth = between(0.48, 0.6), between(0.2, 0.25) * (1.0, 1.6, 0.6)[style]
    leg = between(*((0.55, 0.75), (0.34, 0.42), (0.3, 0.4))[style])
    thick = (0.062, 0.115, 0.06)[style]
    back = leg + girth
    solids = [
        ball((0.0, 0.0, back), (length, girth * 0.85, girth)),
        *(
            rod((x, y, 0.0), (x, y, back), thick * 0.9, thick * 1.3)
            for x in (-0.62 * length, 0.66 * length)
            for y in (-0.55 * girth, 0.55 * girth)
        ),
    ]
    if style == 1:
        return solids + _elephant_head(length, back, girth, between)
    neck = between(0.35, 0.75) if style == 0 else between(0.12, 0.2)
    head_x, head_z = length * 0.85 + neck * 0.45, back + girth * 0.4 + neck
    head = (0.13, 0.17)[style == 2] * between(0.95, 1.1)
    solids += [
        rod((length * 0.7, 0.0, back), (head_x, 0.0, head_z), girth * 0.6, head * 0.62),
        ball((head_x + 0.04, 0.0, head_z), (head * 1.15, head * 0.85, head)),
        rod((head_x, 0.0, head_z), (head_x + head * 2.1, 0.0, head_z - head * 0.9), head * 0.75, head * 0.45),
    ]
    solids += [
        rod((head_x, y, head_z + head * 0.5), (head_x - 0.03, y * 1.5, head_z + head * 1.8), 0.055, 0.01)
        for y in (-0.6 * head, 0.6 * head)
    ]
    tail_z = back + girth * 0.2
    tail_end = tail_z - between(0.3, 0.45) if style == 0 else tail_z + between(0.25, 0.45)
    solids.append(rod((-length * 0.9, 0.0, tail_z), (-length - between(0.1, 0.25), 0.0, tail_end), 0.06, 0.035))
    return solids


def _elephant_head(length: float, back: float, girth: float, between: _Between) -> list[Solid]:
    """Return head, trunk, ears, tusks and tail."""
    x, z, head = length + 0.1, back + girth * 0.45, between(0.2, 0.25)
    trunk_x, trunk_z = x + head + 0.14, z - between(0.42, 0.5)
    ear = between(0.2, 0.27)
    solids = [
        ball((x, 0.0, z), (head, head * 0.9, head * 1.1)),
        rod((x + head * 0.6, 0.0, z), (trunk_x, 0.0, trunk_z), 0.11, 0.065),
        rod((trunk_x, 0.0, trunk_z), (trunk_x + 0.17, 0.0, trunk_z - 0.02), 0.065, 0.05),
        rod((-length * 0.95, 0.0, back + 0.1), (-length - 0.12, 0.0, back - 0.28), 0.04, 0.03),
    ]
    for side in (-1.0, 1.0):
        solids.append(ball((x - 0.08, side * (head + ear * 0.55), z + 0.04), (0.05, ear * 0.8, ear)))
        solids.append(rod((x + head * 0.7, side * 0.1, z - 0.12), (x + head + 0.22, side * 0.13, z - 0.2), 0.035, 0.01))
    return solids


def _human(style: int, between: _Between) -> list[Solid]:
    """Style 0 stands, 1 spreads the arms, 2 walks with a hat and a pack."""
    leg, torso, shoulder = between(0.8, 0.95), between(0.58, 0.68), between(0.25, 0.31)
    hip, depth, head = shoulder * between(0.62, 0.78), between(0.13, 0.17), between(0.16, 0.19)
    neck = leg + torso
    stride = (0.0, 0.0, between(0.26, 0.4))[style]
    stance = between(0.1, 0.14) + (0.0, 0.12, 0.0)[style]
    solids = [
        beam((0.0, 0.0, leg - 0.06), (0.0, 0.0, neck), (depth * 0.9, hip), (1.0, shoulder / hip)),
        rod((0.0, 0.0, neck), (0.0, 0.0, neck + 0.12), 0.07),
        ball((0.01, 0.0, neck + 0.08 + head), (head, head * 0.88, head * 1.12)),
    ]
    for side in (-1.0, 1.0):
        foot = (side * stride, side * stance, 0.04)
        hand = (
            (0.05, side * (shoulder + 0.14), neck - 0.62),
            (0.02, side * (shoulder + between(0.4, 0.5)), neck + between(-0.1, 0.45)),
            (-side * stride * 1.3, side * (shoulder + 0.1), neck - 0.5),
        )[style]
        solids += [
            rod((0.0, side * 0.1, leg), foot, 0.115, 0.075),
            ball((foot[0] + 0.07, foot[1], 0.05), (0.16, 0.075, 0.055)),
            rod((0.0, side * (shoulder - 0.01), neck - 0.07), hand, 0.085, 0.055),
            ball(hand, (0.075, 0.075, 0.075)),
        ]
    if style == 2:
        crown = neck + 0.08 + head * 1.6
        solids += [
            rod((0.0, 0.0, crown), (0.0, 0.0, crown + 0.035), head * 1.75),
            rod((0.0, 0.0, crown), (0.0, 0.0, crown + head * 1.2), head * 0.95, head * 0.8),
            beam((-depth - 0.12, 0.0, leg + 0.12), (-depth - 0.12, 0.0, neck - 0.04), (0.12, shoulder * 0.7)),
        ]
    return solids


def _airplane(style: int, between: _Between) -> list[Solid]:
    """Style 0 a straight-winged propeller plane, 1 a swept airliner with engines, 2 a delta-winged jet."""
    body, radius, height = between(0.95, 1.15), between(0.12, 0.15), 0.3
    tail_x = -body * 0.88
    solids = [
        rod((-body * 0.35, 0.0, height), (body * 0.7, 0.0, height), radius),
        rod((-body * 0.35, 0.0, height), (-body, 0.0, height + radius * 0.4), radius, radius * 0.35),
        ball((body * 0.7, 0.0, height), (body * (0.18, 0.26, 0.5)[style], radius, radius)),
        beam((tail_x, 0.0, height), (tail_x - 0.14, 0.0, height + between(0.38, 0.46)), (0.17, 0.025), (0.55, 0.8)),
        *_wings(style, between, radius, height, tail_x),
    ]
    if style == 0:
        nose, blade = body * 0.88, between(0.24, 0.3)
        solids += [
            beam((nose, -blade, height), (nose, blade, height), (0.02, 0.045)),
            rod((nose - 0.06, 0.0, height), (nose + 0.06, 0.0, height), 0.05, 0.02),
            ball((0.3, 0.0, height + radius * 0.8), (0.22, radius * 0.75, 0.12)),
        ]
    if style == 2:
        solids.append(ball((body * 0.4, 0.0, height + radius * 0.8), (0.26, radius * 0.6, 0.1)))
    return solids


def _wings(style: int, between: _Between, radius: float, height: float, tail_x: float) -> list[Solid]:
    """Return both wings, both tail planes and an airliner's engines."""
    span = between(*((1.0, 1.2), (1.0, 1.15), (0.66, 0.8))[style])
    chord = between(*((0.2, 0.26), (0.26, 0.32), (0.5, 0.6))[style])
    sweep = (0.0, between(0.42, 0.55), chord * 0.85)[style]
    x, z = (0.22, 0.2, -0.2)[style], height + (radius * 0.9, -radius * 0.5, -radius * 0.3)[style]
    tip = (0.75, 0.4, 0.12)[style]
    solids = []
    for side in (-1.0, 1.0):
        tail_tip = (tail_x - sweep * 0.3, side * span * 0.36, height + radius * 0.5)
        solids += [
            beam((x, 0.0, z), (x - sweep, side * span, z + 0.05), (chord, 0.04), (tip, 0.7)),
            beam((tail_x, 0.0, height + radius * 0.4), tail_tip, (0.15, 0.025), (0.6, 0.8)),
        ]
        if style == 1:
            engine_x, engine_y, engine_z = x - sweep * 0.35 + chord * 0.5, side * span * 0.38, z - 0.1
            front, back = (engine_x + 0.2, engine_y, engine_z), (engine_x - 0.2, engine_y, engine_z)
            solids.append(rod(front, back, 0.085, 0.06))
    return solids


def _wheels(places: list[float], half_width: float, radius: float, thickness: float) -> list[Solid]:
    """Return a pair of wheels at every x in `places`."""
    return [
        rod((x, side * (half_width - thickness), radius), (x, side * (half_width + 0.02), radius), radius)
        for x in places
        for side in (-1.0, 1.0)
    ]


def _truck(style: int, between: _Between) -> list[Solid]:
    """Style 0 a box truck, 1 a tanker, 2 a dump truck with an open bed."""
    length, half = between(0.95, 1.15), between(0.29, 0.33)
    wheel = between(0.14, 0.17)
    floor, cab = wheel * 1.35, between(0.24, 0.28)
    cab_top, cab_x = floor + between(0.5, 0.6), length - cab
    rear, front = -length, length - 2.0 * cab - between(0.07, 0.14)
    solids = [
        beam((rear, 0.0, floor), (length, 0.0, floor), (half * 0.8, 0.06)),
        beam((cab_x, 0.0, floor), (cab_x, 0.0, floor + 0.3), (cab, half)),
        beam((cab_x, 0.0, floor + 0.3), (cab_x - 0.05, 0.0, cab_top), (cab, half), (0.72, 0.88)),
        *_wheels([cab_x, rear + wheel * 1.3, rear + wheel * 3.5], half, wheel, 0.12),
    ]
    if style == 0:
        top = cab_top + between(0.1, 0.3)
        middle, high = (floor + top) / 2.0, (top - floor) / 2.0
        solids.append(beam((rear, 0.0, middle), (front, 0.0, middle), (half * 1.05, high)))
        return solids
    return solids + (_tank if style == 1 else _open_bed)(rear, front, floor, half, between)


def _tank(rear: float, front: float, floor: float, half: float, between: _Between) -> list[Solid]:
    """Return a round tank with a manhole."""
    radius = half * between(0.95, 1.1)
    axis, middle = floor + radius, (rear + front) / 2.0
    return [
        rod((rear + 0.08, 0.0, axis), (front - 0.08, 0.0, axis), radius),
        ball((rear + 0.08, 0.0, axis), (0.14, radius, radius)),
        ball((front - 0.08, 0.0, axis), (0.12, radius, radius)),
        rod((middle, 0.0, axis), (middle, 0.0, axis + radius + 0.1), 0.1),
    ]


def _open_bed(rear: float, front: float, floor: float, half: float, between: _Between) -> list[Solid]:
    """Return four leaning walls around a heap."""
    wall, middle, reach = floor + between(0.36, 0.46), (rear + front) / 2.0, (front - rear) / 2.0
    return [
        *(beam((middle, y, floor), (middle, y * 1.25, wall), (reach, 0.03)) for y in (-half, half)),
        beam((rear, 0.0, floor), (rear - 0.1, 0.0, wall), (0.03, half)),
        beam((front, 0.0, floor), (front, 0.0, wall), (0.03, half)),
        ball((middle - 0.05, 0.0, floor + 0.08), (reach * 0.8, half * 0.85, between(0.12, 0.3))),
    ]


def _car(style: int, between: _Between) -> list[Solid]:
    """Style 0 a saloon, 1 an estate or van, 2 a sports car with a wing."""
    length, half = between(0.88, 1.0), between(0.36, 0.41)
    wheel, low = between(0.17, 0.2), 0.12
    waist = low + between(*((0.27, 0.32), (0.28, 0.34), (0.2, 0.23))[style])
    roof = waist + between(*((0.22, 0.27), (0.27, 0.36), (0.15, 0.19))[style])
    cabin_x, cabin = ((-0.1, 0.56), (-0.25, 0.7), (-0.14, 0.46))[style]
    back = (0.0, -0.08, 0.04)[style]
    axle = length * between(0.56, 0.64)
    solids = [
        beam((0.0, 0.0, low), (0.0, 0.0, waist), (length, half), (0.95, 0.94)),
        beam((cabin_x, 0.0, waist), (cabin_x + back, 0.0, roof), (cabin, half * 0.9), (0.62, 0.8)),
        ball((length * 0.9, 0.0, (low + waist) / 2.0), (0.17, half * 0.92, (waist - low) * 0.48)),
        *_wheels([-axle, axle], half, wheel, 0.13),
    ]
    if style == 2:
        solids += [
            beam(
                (length * 0.55, 0.0, waist), (length * 0.5, 0.0, waist + 0.06), (length * 0.35, half * 0.7), (0.6, 0.8)
            ),
            beam((-length * 0.9, -half, waist + 0.16), (-length * 0.9, half, waist + 0.16), (0.1, 0.02)),
            *(rod((-length * 0.9, y, waist - 0.05), (-length * 0.9, y, waist + 0.16), 0.025) for y in (-0.2, 0.2)),
        ]
    return solids


_BUILDERS = (_animal, _human, _airplane, _truck, _car)
