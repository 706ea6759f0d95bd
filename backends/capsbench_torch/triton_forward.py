"""EM routing forward on NVIDIA GPUs: one pass over the votes an iteration, none of which is stored.

A program walks the children of BN positions, all of one number at a time, so that one load of a transform serves them
all, and sums rho, rho D and rho D^2, where D is a vote's deviation from where its parent was an iteration ago. The
same D gives the E-step's log-density, and so rho, on the way. Where there are too few positions to keep a GPU busy the
children are split between programs, and `settle` adds the parts up in a fixed order.
"""
# ruff: noqa: ANN001, ANN201, D417 - the compiler finds the types; an argument is described where it first comes
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl

from capsbench_torch.triton_kernels import (
    add_up,
    appended,
    conclude,
    couple,
    displace,
    keep_part,
    lanes,
    load_rows,
    rate_appended,
    rows_from,
    store_rows,
    total,
    vote,
)

_SAMPLES = tl.constexpr(16)
# Sizes of a layer: a kernel is compiled once for all of them.
_SIZES = "rows positions below types looked apart children parents step splits t last".split()


@triton.jit(do_not_specialize=_SIZES)
def sample(
    poses, weights, looks, coordinates, found, rows, positions, below, types, looked, apart, children,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, ADDED: tl.constexpr,
    ROW: tl.constexpr, COLUMN: tl.constexpr,
):  # fmt: skip
    """The mean of some votes, spread over the children, into the means of `found`: where the first iteration looks.

    Args:
        poses: [images, below, types, 16].
        weights: [transforms, 16, JP], 0 where there is no parent.
        looks: int32 [positions, looked], which places each position sees.
        coordinates: [below, 2], of each place.
        found: fits of the first iteration.
        rows: positions of all images.
        positions, below, types, looked: sizes, see `Task`.
        apart: how many transforms further on those of the next place looked at are; 0 where places share them.
        children: at one position.
        E: elements of a vote.
        ADDED: whether coordinates are added to elements ROW and COLUMN.
    """
    first = tl.program_id(0) * BN
    n, j, valid = lanes(first, rows, BN, JP)
    row, _there = rows_from(first, rows, BN)
    base = n * ((3 * E + 3) * JP) + j
    image, p = row // positions, row % positions
    count = tl.minimum(children, _SAMPLES)
    mean = tl.zeros([4, 4, BN, JP], poses.dtype.element_ty)
    more = tl.zeros([2, 1, BN, JP], poses.dtype.element_ty)
    for s in range(count):
        i = s * children // count
        k, c = i // types, i % types
        place = tl.load(looks + p * looked + k)
        pose = poses + ((image * below + place) * types + c) * 16
        mean = vote(mean, pose, weights + (k * apart + c) * 16 * JP, j, JP, VEC)
        if ADDED:
            mean = displace(mean, coordinates, place, 1.0, ROW, COLUMN)
        if E > 16:
            more += appended(coordinates, place)
    store_rows(found, base, valid, mean / count, 4, 4, JP, VEC)
    if E > 16:
        store_rows(found + 16 * JP, base, valid, more / count, 2, 1, JP, VEC)


@triton.jit(do_not_specialize=_SIZES)
def gather(  # noqa: C901, PLR0912, PLR0915 - one loop over what every variant needs
    poses, activations, weights, looks, shares, coordinates, constants, betas, normalisers, known, found, strays, parts,
    rows, positions, below, types, looked, apart, children, parents, step, t, last,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, ADDED: tl.constexpr,
    ROW: tl.constexpr, COLUMN: tl.constexpr, RATED: tl.constexpr, AGAIN: tl.constexpr, EVERYWHERE: tl.constexpr,
    SPLIT: tl.constexpr, SOFTMAX: tl.constexpr, BY_MASS: tl.constexpr,
):  # fmt: skip
    """One iteration: the sums over the children of some positions, and, where no other program shares them, the fit.

    Args:
        activations: [images, below, types], of the children.
        shares: [positions, looked], couplings of the first iteration.
        constants, betas: see `conclude`.
        normalisers: [images, below, types], log of what each child's densities sum up to, where it competes EVERYWHERE.
        known: fits of the iteration before; of this one in the first, which is not RATED.
        found: receives the fits.
        strays: [rows], see `conclude`; rows without a stray are not touched AGAIN.
        parts: [splits, rows, 2 E + 1, JP], receives sums of rho D, rho D^2 and rho where children are SPLIT.
        step: children of a program.
        t, last: see `conclude`.
        RATED: whether couplings come from the fit before.
    """
    first = tl.program_id(0) * BN
    n, j, valid = lanes(first, rows, BN, JP)
    if AGAIN:
        valid = valid & (tl.load(strays + n) != 0)
        if tl.max(valid.to(tl.int32)) == 0:
            return
    base = n * ((3 * E + 3) * JP) + j
    row, _there = rows_from(first, rows, BN)
    image, p = row // positions, row % positions
    mean = load_rows(known, base, 4, 4, JP, VEC)
    shift = mean
    if RATED:
        precision = load_rows(known + E * JP, base, 4, 4, JP, VEC)
        offset = load_rows(known + (2 * E + 2) * JP, base, 1, 1, JP, VEC)
    if RATED and AGAIN:
        shift = load_rows(found, base, 4, 4, JP, VEC)
    sums = tl.zeros([1, 1, BN, JP], poses.dtype.element_ty)
    sums1 = tl.zeros([4, 4, BN, JP], poses.dtype.element_ty)
    sums2 = tl.zeros([4, 4, BN, JP], poses.dtype.element_ty)
    more_shift, more1, more2 = sums, sums, sums
    if E > 16:
        more_shift = load_rows((found if AGAIN else known) + 16 * JP, base, 2, 1, JP, VEC)
        more1 = tl.zeros([2, 1, BN, JP], poses.dtype.element_ty)
        more2 = tl.zeros([2, 1, BN, JP], poses.dtype.element_ty)
    begin = tl.program_id(1) * step
    end = tl.minimum(begin + step, children)
    for k in range(begin // types, (end + types - 1) // types):
        place = tl.load(looks + p * looked + k)
        share = tl.load(shares + p * looked + k)
        child = (image * below + place) * types
        centre = mean
        if ADDED:
            centre = displace(mean, coordinates, place, -1.0, ROW, COLUMN)
        if RATED:
            level = rate_appended(offset, known, base, coordinates, place, E, JP, VEC)
        here = tl.zeros([1, 1, BN, JP], poses.dtype.element_ty)
        for c in range(tl.maximum(begin - k * types, 0), tl.minimum(end - k * types, types)):
            away = vote(-centre, poses + (child + c) * 16, weights + (k * apart + c) * 16 * JP, j, JP, VEC)
            rho = tl.load(activations + child + c)
            if RATED:
                coupling, _log_sum = couple(level - total(away * away * precision), normalisers + child + c, EVERYWHERE)
                rho *= coupling
            else:
                rho *= share
            if RATED and AGAIN:
                away -= shift - mean
            weighted = rho * away
            here += rho
            sums1 += weighted
            sums2 += weighted * away
        sums += here
        if E > 16:
            beyond = appended(coordinates, place) - more_shift
            more1 += here * beyond
            more2 += here * beyond * beyond
    if SPLIT:
        keep_part(parts, rows, n, j, valid, sums, sums1, sums2, more1, more2, E, JP, VEC)
    else:
        conclude(
            found, strays, betas, constants, first, n, j, valid, sums, sums1, sums2, shift, more1, more2, more_shift,
            rows, parents, t, last, E, BN, JP, VEC, AGAIN, SOFTMAX, BY_MASS,
        )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def settle(
    parts, constants, betas, known, found, strays, rows, parents, splits, t, last,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, AGAIN: tl.constexpr,
    SOFTMAX: tl.constexpr, BY_MASS: tl.constexpr,
):  # fmt: skip
    """The fit of some positions from sums that several programs made; see `gather`.

    Args:
        known: the fits around whose means the sums were taken.
        splits: how many programs made sums for a position.
    """
    first = tl.program_id(0) * BN
    n, j, valid = lanes(first, rows, BN, JP)
    if AGAIN:
        valid = valid & (tl.load(strays + n) != 0)
        if tl.max(valid.to(tl.int32)) == 0:
            return
    sums, sums1, sums2, more1, more2 = add_up(parts, rows, n, j, splits, E, BN, JP, VEC)
    base = n * ((3 * E + 3) * JP) + j
    shift = load_rows(known, base, 4, 4, JP, VEC)
    more_shift = sums
    if E > 16:
        more_shift = load_rows(known + 16 * JP, base, 2, 1, JP, VEC)
    conclude(
        found, strays, betas, constants, first, n, j, valid, sums, sums1, sums2, shift, more1, more2, more_shift,
        rows, parents, t, last, E, BN, JP, VEC, AGAIN, SOFTMAX, BY_MASS,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def normalise(
    poses, weights, looks, coordinates, known, sums, rows, positions, below, types, looked, apart, children, step,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, ADDED: tl.constexpr,
    ROW: tl.constexpr, COLUMN: tl.constexpr,
):  # fmt: skip
    """What the log-densities of each child sum up to at each position, for children that compete at all of them.

    Args:
        known: fits of the iteration before.
        sums: [rows, children], receives log(sum exp(log-density)) over the parents of a position.
    """
    first = tl.program_id(0) * BN
    n, j, _ = lanes(first, rows, BN, JP)
    row, there = rows_from(first, rows, BN)
    base = n * ((3 * E + 3) * JP) + j
    image, p = row // positions, row % positions
    mean = load_rows(known, base, 4, 4, JP, VEC)
    precision = load_rows(known + E * JP, base, 4, 4, JP, VEC)
    offset = load_rows(known + (2 * E + 2) * JP, base, 1, 1, JP, VEC)
    begin = tl.program_id(1) * step
    end = tl.minimum(begin + step, children)
    for k in range(begin // types, (end + types - 1) // types):
        place = tl.load(looks + p * looked + k)
        child = (image * below + place) * types
        centre = mean
        if ADDED:
            centre = displace(mean, coordinates, place, -1.0, ROW, COLUMN)
        level = rate_appended(offset, known, base, coordinates, place, E, JP, VEC)
        for c in range(tl.maximum(begin - k * types, 0), tl.minimum(end - k * types, types)):
            away = vote(-centre, poses + (child + c) * 16, weights + (k * apart + c) * 16 * JP, j, JP, VEC)
            logit = level - total(away * away * precision)
            peak = tl.max(logit, 3, keep_dims=True)
            whole = peak + tl.log(tl.sum(tl.exp(logit - peak), 3, keep_dims=True))
            tl.store(sums + row * children + k * types + c, whole, mask=there)
