"""What every kernel needs at one position of one image: its inputs, its buffers, its children block by block."""

from typing import Any, NamedTuple

from capsbench_fused.compiling import compiled, small
from capsbench_fused.parents import activate, expect
from capsbench_fused.vec import LANES, exp, load, offset, splat_at, start, store
from capsbench_fused.votes import BLOCK, look, share_out

# A load waits for an earlier store to an address with the same last twelve bits. Each buffer therefore begins at a
# place in a page of its own, those that are stored to a little behind those that are loaded next.
_PAGE_BYTES = 4096


class Sizes(NamedTuple):
    """Sizes of a layer; row and column are the elements of a vote that coordinates are added to, -1 without any."""

    below: int
    types: int
    positions: int
    looks: int
    transforms: int
    parents: int
    groups: int
    elements: int
    row: int
    column: int


class Variant(NamedTuple):
    """The variant of routing, as in `task.Task`."""

    iterations: int
    cost_factor: float
    floor: float
    epsilon: float
    softmax: bool
    by_mass: bool
    everywhere: bool


class Inputs(NamedTuple):
    """Arrays that a kernel reads, flat; numbers of parents [groups, LANES] with `padding` 1 where there is no parent.

    Attributes:
        poses: [images, below, types, 16].
        activations: [images, below, types].
        weights: [transforms, groups, 16, LANES].
        beta_u: [groups, LANES], summed over the elements.
        beta_a: [groups, LANES].
        padding: [groups, LANES].
        looks: int64 [positions, looks].
        shares: [positions, looks], couplings of the first iteration.
        coordinates: [below, 2].
        temperatures: float64 [iterations].
    """

    poses: Any
    activations: Any
    weights: Any
    beta_u: Any
    beta_a: Any
    padding: Any
    looks: Any
    shares: Any
    coordinates: Any
    temperatures: Any


class Fit(NamedTuple):
    """A position's parents in one iteration, as `parents.fit` makes them.

    Mean, rest and variance are [groups, elements, LANES], the others [groups, LANES]. Gradients of the same are kept in
    one as well, that of the logits in `half_logs`; the rest has none.
    """

    mean: Any
    rest: Any
    variance: Any
    mass: Any
    half_logs: Any


class Bench(NamedTuple):
    """Buffers of one thread, as `fit` in forward and `onto_votes` in backward name them."""

    centre: Any
    shift: Any
    delta: Any
    precision: Any
    sums1: Any
    sums2: Any
    slope: Any
    curve: Any
    deviations: Any
    sums: Any
    offsets: Any
    active: Any
    level: Any
    couplings: Any
    blames: Any


def fit_numbers(groups: int, elements: int) -> int:
    """Numbers of a `Fit`."""
    return (3 * elements + 2) * groups * LANES


def bench_numbers(groups: int, elements: int, item_bytes: int) -> int:
    """Numbers of a `Bench`, whose first must stand at the beginning of a page."""
    page, full = _PAGE_BYTES // item_bytes, groups * elements * LANES
    return 8 * (full // page + 2) * page + 2 * page + BLOCK * full + (4 + 2 * BLOCK) * groups * LANES


@small
def pointers(inputs):
    """The inputs as pointers to their first elements."""
    return Inputs(
        start(inputs.poses), start(inputs.activations), start(inputs.weights), start(inputs.beta_u),
        start(inputs.beta_a), start(inputs.padding), start(inputs.looks), start(inputs.shares),
        start(inputs.coordinates), start(inputs.temperatures),
    )  # fmt: skip


@small
def bench_at(memory, sizes, item_bytes):
    """Buffers in memory that begins with a page."""
    row, full = sizes.groups * LANES, sizes.groups * sizes.elements * LANES
    page = _PAGE_BYTES // item_bytes
    step = (full // page + 2) * page
    behind, quarter = page // 8, page // 4
    deviations = offset(memory, 8 * step + page)
    rows = offset(deviations, BLOCK * full + page)
    return Bench(
        centre=offset(memory, behind),
        shift=offset(memory, 5 * step + behind),
        delta=offset(memory, 2 * step + behind + quarter),
        precision=offset(memory, step + behind + quarter),
        sums1=offset(memory, 6 * step + page - behind),
        sums2=offset(memory, 7 * step + 3 * behind),
        slope=offset(memory, 3 * step + behind + 2 * quarter),
        curve=offset(memory, 4 * step + behind + 3 * quarter),
        deviations=deviations,
        sums=rows,
        offsets=offset(rows, row),
        active=offset(rows, 2 * row),
        level=offset(rows, 3 * row),
        couplings=offset(rows, 4 * row),
        blames=offset(rows, (4 + BLOCK) * row),
    )


@small
def fit_at(memory, number, sizes):
    """The fit that is number `number` in memory."""
    row, full = sizes.groups * LANES, sizes.groups * sizes.elements * LANES
    mean = offset(memory, number * (3 * full + 2 * row))
    mass = offset(mean, 3 * full)
    return Fit(mean, offset(mean, full), offset(mean, 2 * full), mass, offset(mass, row))


@compiled
def locate(base, coordinates, place, sizes, centre):
    """`base` less the coordinates of a place, from which votes without coordinates deviate as those with them do."""
    for at in range(0, sizes.groups * sizes.elements * LANES, LANES):
        store(centre, at, load(base, at))
    for g in range(sizes.groups):
        for which in range(2):
            at = (g * sizes.elements + (sizes.column if which else sizes.row)) * LANES
            store(centre, at, load(centre, at) - splat_at(coordinates, 2 * place + which))


@small
def prepare(known, iteration, sizes, variant, inputs, bench):
    """What the E-step after an iteration needs, from its fit."""
    temperature = inputs.temperatures[iteration]
    activate(
        known.mass, known.half_logs, inputs.beta_u, inputs.beta_a, sizes.groups, variant.cost_factor, temperature,
        bench.active,
    )  # fmt: skip
    if variant.by_mass:
        for at in range(0, sizes.groups * LANES, LANES):
            store(bench.active, at, load(known.mass, at))
    expect(
        known.variance, known.half_logs, bench.active, inputs.padding, sizes.groups, sizes.elements,
        variant.softmax or variant.by_mass, bench.precision, bench.offsets,
    )  # fmt: skip


@small
def see(image, place, k, first, count, rated, base, sizes, inputs, bench):
    """Deviations from `base`, and where `rated` log-densities, of `count` children from number `first` of a place on.

    Returns:
        Which child of the image `first` is.
    """
    child = place * sizes.types + first
    transform = k * sizes.types % sizes.transforms + first
    look(
        inputs.poses, (image * sizes.below * sizes.types + child) * 16, inputs.weights,
        transform * sizes.groups * 16 * LANES, count, base, rated, bench.precision, bench.offsets, sizes.groups,
        sizes.elements, bench.deviations, bench.couplings,
    )  # fmt: skip
    return child


@small
def couple(share, child, count, rated, everywhere, groups, normalisers, bench):
    """Couplings of the children that were seen: `share` where they are not rated, else from their log-densities.

    Args:
        share: of the first iteration.
        child: the first; its normaliser is what its log-densities at all positions sum up to.
        count: of children.
        rated: whether.
        everywhere: whether they share themselves out over all positions; their normalisers are known then.
        groups: of parents.
        normalisers: of the image's children.
        bench: holds the log-densities, then the couplings.
    """
    if not rated:
        for at in range(0, BLOCK * groups * LANES, LANES):
            store(bench.couplings, at, share)
    elif everywhere:
        for q in range(count):
            normaliser = splat_at(normalisers, child + q)
            for at in range(q * groups * LANES, (q + 1) * groups * LANES, LANES):
                store(bench.couplings, at, exp(load(bench.couplings, at) - normaliser))
    else:
        share_out(bench.couplings, groups)
