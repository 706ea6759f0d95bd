"""The last pass of EM routing backward on NVIDIA GPUs: from the fits and the coefficients to the inputs' gradients.

See `triton_backward`; rows of lanes hold a child each here, of the same position.
"""
# ruff: noqa: ANN001, ANN201, D417 - the compiler finds the types; an argument is described where it first comes
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl

from capsbench_torch.triton_kernels import appended, displace, lanes, load_rows, rows_from, store_rows, total, vote

_SIZES = "rows positions below types looked apart children step iterations width most".split()


@triton.jit
def blame(away, slope, bent, level):
    """The gradient of a weight rho, level + sum_h D (slope + curve D), from D and bent = slope + 2 curve D."""
    return level + 0.5 * total(away * (slope + bent))


@triton.jit
def blame_appended(beside, coefficients, j, level, E: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """`level` and what the appended coordinates add to it."""
    slope = load_rows(coefficients + 16 * JP, j, 2, 1, JP, VEC)
    bent = slope + load_rows(coefficients + (E + 16) * JP, j, 2, 1, JP, VEC) * beside
    return blame(beside, slope, bent, level)


@triton.jit
def pair(first, second):
    """Sum both over lanes that differ in one bit, their axis 2; keep the first where it is 0, else the second."""
    here = tl.arange(0, 2)[None, None, :, None] == 0
    return tl.where(here, tl.sum(first, 2, keep_dims=True), tl.sum(second, 2, keep_dims=True))


@triton.jit
def halve(tile, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """A tile [2 A, B, 2, C] likewise: its even rows, or its odd ones, [A, B, 2, C]."""
    whole = tl.reshape(tl.broadcast_to(tl.sum(tile, 2, keep_dims=True), [2 * A, B, 2, C]), [A, 2, B, 2, C])
    own = tl.arange(0, 2)[None, :, None, None, None] == tl.arange(0, 2)[None, None, None, :, None]
    return tl.sum(tl.where(own, whole, -0.0), 1)


@triton.jit
def onto_column(to_votes, weight, j, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """What each parent gives one column of poses, rows of `weight`; the sum of neighbours, [4, BN, 2, JP / VEC / 2]."""
    tile = tl.sum(to_votes * load_rows(weight, j, 1, 4, JP, VEC), 1)
    return tl.sum(tl.reshape(tile, [4, BN, 2, JP // VEC // 2, VEC]), 4)


@triton.jit
def store_poses(pointer, first, children, to_votes, weight, j, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """Keep the gradients of poses, gP = sum_j gV W^T, of children from number `first` on; [children, 16].

    Every exchange between lanes halves what each of them has yet to sum, so that 16 sums over 16 lanes take 30.
    """
    W: tl.constexpr = JP // VEC
    g0, g1 = onto_column(to_votes, weight, j, BN, JP, VEC), onto_column(to_votes, weight + 4 * JP, j, BN, JP, VEC)
    weight += 8 * JP
    g2, g3 = onto_column(to_votes, weight, j, BN, JP, VEC), onto_column(to_votes, weight + 4 * JP, j, BN, JP, VEC)
    even = tl.reshape(pair(g0, g1), [4, 2 * BN, 2, W // 4])
    odd = tl.reshape(pair(g2, g3), [4, 2 * BN, 2, W // 4])
    left = halve(tl.reshape(pair(even, odd), [4, 4 * BN, 2, W // 8]), 2, 4 * BN, W // 8)
    BITS: tl.constexpr = 3 if W < 16 else 4
    if W < 16:
        sums = tl.reshape(left, [2, 8 * BN])
        top = tl.arange(0, 2)[:, None]
    else:
        last = halve(tl.reshape(left, [2, 8 * BN, 2, W // 16]), 1, 8 * BN, W // 16)
        sums = tl.sum(tl.reshape(last, [1, 16 * BN, W // 16]), 2)
        top = tl.arange(0, BN << BITS)[None, :] & 1
    lane = tl.arange(0, BN << BITS)[None, :]
    child = first + (lane >> BITS)
    # The highest bit of a lane was dealt first.
    h = ((lane >> (BITS - 1)) & 1) + 2 * ((lane >> (BITS - 2)) & 1) + 4 * ((lane >> (BITS - 3)) & 1)
    tl.store(pointer + child * 16 + h + 8 * top, sums, mask=child < children)


@triton.jit
def onto_weights(to_votes, pose, to0, to1, to2, to3):
    """Add gW = P^T gV, row by row."""
    r = tl.arange(0, 4)[:, None, None, None]
    to0 += tl.sum(tl.load(pose + 4 * r) * to_votes, 0, keep_dims=True)
    to1 += tl.sum(tl.load(pose + 4 * r + 1) * to_votes, 0, keep_dims=True)
    to2 += tl.sum(tl.load(pose + 4 * r + 2) * to_votes, 0, keep_dims=True)
    to3 += tl.sum(tl.load(pose + 4 * r + 3) * to_votes, 0, keep_dims=True)
    return to0, to1, to2, to3


@triton.jit(do_not_specialize=_SIZES)
def scatter(  # noqa: PLR0915 - one loop over what every variant needs
    poses, activations, weights, looks, shares, coordinates, fits, coefficients, normalisers, dots, log_sums, own_dots,
    to_poses, to_weights,
    rows, positions, below, types, looked, apart, children, step, iterations,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, ADDED: tl.constexpr,
    ROW: tl.constexpr, COLUMN: tl.constexpr, EVERYWHERE: tl.constexpr,
):  # fmt: skip
    """Gradients of BN children at each of a range of `step` positions.

    Args:
        poses, activations, weights, looks, shares, coordinates, rows, ..., children: see `triton_forward.gather`.
        fits: [iterations, rows, 3 E + 3, JP].
        coefficients: [iterations, rows, 3 E + 1, JP].
        normalisers, dots: [iterations - 1, images, below, types], where children compete EVERYWHERE.
        log_sums: [iterations - 1, rows, children]; see `triton_backward.retrace`.
        own_dots: [iterations, rows, children], likewise; receives those of the first iteration.
        to_poses: receives [rows, children, 16].
        to_weights: receives [ranges, children, 16, JP].
    """
    first = tl.program_id(0) * BN
    i, j, valid = lanes(first, children, BN, JP)
    child, there = rows_from(first, children, BN)
    child = child.to(tl.int32)
    k, c = child // types, child % types
    weight = weights + ((i // types) * apart + i % types) * (16 * JP)
    zero = tl.zeros([1, 4, BN, JP], poses.dtype.element_ty)
    to0, to1, to2, to3 = zero, zero, zero, zero
    begin = tl.program_id(1) * step
    for m in range(tl.minimum(step, rows - begin)):
        n = (begin + m).to(tl.int64)
        image, p = n // positions, n % positions
        place = tl.load(looks + p * looked + k)
        whole = (image * below + place) * types + c
        number = n * children + child
        activation = tl.load(activations + whole)
        pose = poses + whole * 16
        fit = fits + n * ((3 * E + 3) * JP)
        bend = coefficients + n * ((3 * E + 1) * JP)
        # The first iteration, whose couplings are the same for all parents.
        away = vote(-load_rows(fit, j, 4, 4, JP, VEC), pose, weight, j, JP, VEC)
        if ADDED:
            away = displace(away, coordinates, place, 1.0, ROW, COLUMN)
        slope = load_rows(bend, j, 4, 4, JP, VEC)
        bent = slope + load_rows(bend + E * JP, j, 4, 4, JP, VEC) * away
        gradient = blame(away, slope, bent, load_rows(bend + 3 * E * JP, j, 1, 1, JP, VEC))
        if E > 16:
            beside = appended(coordinates, place) - load_rows(fit + 16 * JP, j, 2, 1, JP, VEC)
            gradient = blame_appended(beside, bend, j, gradient, E, JP, VEC)
        share = tl.load(shares + p * looked + k)
        tl.store(own_dots + number, share * tl.sum(gradient, 3, keep_dims=True), mask=there)
        to_votes = (share * activation) * bent
        for _ in range(1, iterations):
            pull = load_rows(fit + E * JP, j, 4, 4, JP, VEC) * away
            logit = load_rows(fit + (2 * E + 2) * JP, j, 1, 1, JP, VEC) - total(away * pull)
            if E > 16:
                logit -= total(beside * beside * load_rows(fit + (E + 16) * JP, j, 2, 1, JP, VEC))
            fit += rows.to(tl.int64) * ((3 * E + 3) * JP)
            bend += rows.to(tl.int64) * ((3 * E + 1) * JP)
            away -= load_rows(bend + 2 * E * JP, j, 4, 4, JP, VEC)
            level = load_rows(bend + 3 * E * JP, j, 1, 1, JP, VEC)
            if E > 16:
                beside -= load_rows(bend + (2 * E + 16) * JP, j, 2, 1, JP, VEC)
                level = blame_appended(beside, bend, j, level, E, JP, VEC)
            incline = load_rows(bend, j, 4, 4, JP, VEC)
            tilted = incline + load_rows(bend + E * JP, j, 4, 4, JP, VEC) * away
            if EVERYWHERE:
                log_sum, dot = tl.load(normalisers + whole), tl.load(dots + whole)
                whole += (rows // positions).to(tl.int64) * below * types
            else:
                log_sum = tl.load(log_sums + number)
                number += rows.to(tl.int64) * children
                dot = tl.load(own_dots + number)
            rho = tl.exp(logit - log_sum) * activation
            density = rho * (blame(away, incline, tilted, level) - dot)
            to_votes += rho * tilted - (2.0 * density) * pull
        store_poses(to_poses + n * children * 16, first, children, to_votes, weight, j, BN, JP, VEC)
        to0, to1, to2, to3 = onto_weights(to_votes, pose, to0, to1, to2, to3)
    base = (tl.program_id(1).to(tl.int64) * children + i) * (16 * JP) + j
    store_rows(to_weights, base, valid, to0, 1, 4, JP, VEC)
    store_rows(to_weights + 4 * JP, base, valid, to1, 1, 4, JP, VEC)
    store_rows(to_weights + 8 * JP, base, valid, to2, 1, 4, JP, VEC)
    store_rows(to_weights + 12 * JP, base, valid, to3, 1, 4, JP, VEC)


@triton.jit(do_not_specialize=_SIZES)
def fold(patches, seen, folded, positions, below, looked, width, most, BLOCK: tl.constexpr):
    """Add up, for every place of the layer below, what each look at it was given.

    Args:
        patches: [images, positions looked, width], a look at a time.
        seen: int32 [below, most], the looks at each place, -1 where there are no more.
        folded: receives [images, below, width].
        positions, below, looked, width, most: sizes.
    """
    image, place = tl.program_id(0) // below, tl.program_id(0) % below
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    whole = tl.zeros([BLOCK], patches.dtype.element_ty)
    for m in range(most):
        look = tl.load(seen + place * most + m)
        row = image.to(tl.int64) * positions * looked + look
        whole += tl.load(patches + row * width + at, mask=at < tl.where(look < 0, 0, width), other=0.0)
    tl.store(folded + (image.to(tl.int64) * below + place) * width + at, whole, mask=at < width)
