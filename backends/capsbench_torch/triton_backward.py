"""EM routing backward on NVIDIA GPUs, derived by hand; votes and couplings are made anew from the fits.

From the last iteration to the first, `retrace` walks the children of each position and sums the gradients of their
log-densities up to those of the fit before, of which it makes the coefficients of that iteration: by them the gradient
of a child's weight rho is level + sum_h D (slope + curve D). Beside these it keeps two numbers a child and iteration,
what its densities sum up to and its sum over the parents of R grho. With them `scatter` needs no sums over the parents
to find the gradients of votes in all iterations at once. It walks the positions, a few children to a program, so that
the gradients of transforms stay in registers; those of poses go out by position and place looked at, and `fold` adds
them up for every place. No two programs write to one address. `scatter` and `fold` are in a file of their own.
"""
# ruff: noqa: ANN001, ANN201, D417 - the compiler finds the types; an argument is described where it first comes
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl

from capsbench_torch.triton_kernels import (
    EPSILON,
    FACTOR,
    FLOOR,
    NEVER,
    TEMPERATURES,
    absent,
    activate,
    add_up,
    appended,
    couple,
    displace,
    keep_part,
    lanes,
    load_rows,
    log_softmax,
    rate_appended,
    rows_from,
    store_rows,
    total,
    vote,
)

_SIZES = "rows positions below types looked apart children parents step splits t iterations width count".split()


@triton.jit
def sigmoid_of_minus(logits):
    """1 - sigmoid, without overflow on either side."""
    negative = -tl.maximum(logits, 0.0)
    return tl.exp(negative) / (1.0 + tl.exp(2.0 * negative + logits))


@triton.jit
def spend(rest, precision, mass, to_mean, to_variance, to_cost, constants):
    """Slope and twice the curve of a vote's coefficients, and what the level loses by the floor of the variance."""
    scale = 1.0 / (mass + tl.load(constants + EPSILON))
    along = to_variance + to_cost * mass * precision
    curve = along * scale
    slope = (to_mean - 2.0 * along * rest * scale) * scale
    return slope, 2.0 * curve, total(curve * (0.5 / precision - tl.load(constants + FLOOR)))


@triton.jit
def turn(
    fits, coefficients, to_betas, betas, constants, n, j, valid, to_mean, to_variance, to_logits, to_mass, to_more,
    to_more_variance, t, E: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """From gradients of an iteration's fits to the coefficients of its votes'.

    Args:
        fits: of the iteration.
        coefficients: [rows, 3 E + 1, JP], receives slope (E), twice the curve (E), and after E more the level.
        to_betas: [rows, 2, JP], receives the gradients of beta_u and beta_a from these rows.
        betas, constants, n, j, valid, t: see `triton_kernels.conclude`.
        to_mean, to_variance, to_logits, to_mass: the gradients.
        to_more, to_more_variance: of the appended coordinates, where E is 18.
    """
    base, to = n * ((3 * E + 3) * JP) + j, n * ((3 * E + 1) * JP) + j
    mass = load_rows(fits + 2 * E * JP, base, 1, 1, JP, VEC)
    half_logs = load_rows(fits + (2 * E + 1) * JP, base, 1, 1, JP, VEC)
    upstream = to_logits * tl.load(constants + TEMPERATURES + t)
    to_cost = -upstream * tl.load(constants + FACTOR)
    rest = load_rows(fits + (2 * E + 3) * JP, base, 4, 4, JP, VEC)
    precision = load_rows(fits + E * JP, base, 4, 4, JP, VEC)
    slope, bend, spent = spend(rest, precision, mass, to_mean, to_variance, to_cost, constants)
    store_rows(coefficients, to, valid, slope, 4, 4, JP, VEC)
    store_rows(coefficients + E * JP, to, valid, bend, 4, 4, JP, VEC)
    if E > 16:
        rest = load_rows(fits + (2 * E + 19) * JP, base, 2, 1, JP, VEC)
        precision = load_rows(fits + (E + 16) * JP, base, 2, 1, JP, VEC)
        slope, bend, more = spend(rest, precision, mass, to_more, to_more_variance, to_cost, constants)
        store_rows(coefficients + 16 * JP, to, valid, slope, 2, 1, JP, VEC)
        store_rows(coefficients + (E + 16) * JP, to, valid, bend, 2, 1, JP, VEC)
        spent += more
    level = to_mass + to_cost * (load_rows(betas, j, 1, 1, JP, VEC) + half_logs) - spent
    store_rows(coefficients + 3 * E * JP, to, valid, level, 1, 1, JP, VEC)
    store_rows(to_betas, n * (2 * JP) + j, valid, to_cost * mass, 1, 1, JP, VEC)
    store_rows(to_betas + JP, n * (2 * JP) + j, valid, upstream, 1, 1, JP, VEC)


@triton.jit
def descend(
    fits, coefficients, to_betas, betas, constants, n, j, valid, sums, sums1, sums2, more1, more2, parents, t,
    E: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, SOFTMAX: tl.constexpr, BY_MASS: tl.constexpr,
):  # fmt: skip
    """From sums of the gradients of log-densities to the gradients of the fits they are under, and on as in `turn`.

    Args:
        sums, sums1, sums2: sum over the children of g, g D, g D^2, with the gradient g of a log-density and the
            deviation D from the fit's mean.
        more1, more2: the same of the appended coordinates, where E is 18.
    """
    base = n * ((3 * E + 3) * JP) + j
    precision = load_rows(fits + E * JP, base, 4, 4, JP, VEC)
    to_mean, to_variance = 2.0 * precision * sums1, (2.0 * precision * sums2 - sums) * precision
    to_more, to_more_variance = sums, sums
    if E > 16:
        precision = load_rows(fits + (E + 16) * JP, base, 2, 1, JP, VEC)
        to_more, to_more_variance = 2.0 * precision * more1, (2.0 * precision * more2 - sums) * precision
    active = load_rows(fits + 2 * E * JP, base, 1, 1, JP, VEC)
    if not BY_MASS:
        half_logs = load_rows(fits + (2 * E + 1) * JP, base, 1, 1, JP, VEC)
        active = activate(active, half_logs, j, betas, constants, t, JP, VEC)
    if SOFTMAX:
        shares = tl.exp(log_softmax(tl.where(absent(parents, JP) > 0, NEVER, active)))
        to_active = sums - shares * tl.sum(sums, 3, keep_dims=True)
    else:
        to_active = sums * sigmoid_of_minus(active)
    zero = tl.zeros_like(sums)
    to_logits, to_mass = to_active, zero
    if BY_MASS:
        to_logits, to_mass = zero, to_active
    turn(
        fits, coefficients, to_betas, betas, constants, n, j, valid, to_mean, to_variance, to_logits, to_mass, to_more,
        to_more_variance, t, E, JP, VEC,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def turn_outputs(
    to_poses, to_logits, fits, coefficients, to_betas, betas, constants, rows, parents, t,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """The coefficients of the last iteration, number t, from the gradients of what came out.

    Args:
        to_poses, to_logits: [rows, parents, E] and [rows, parents].
    """
    n, j, valid = lanes(tl.program_id(0) * BN, rows, BN, JP)
    row, _there = rows_from(tl.program_id(0) * BN, rows, BN)
    parent = tl.arange(0, JP)[None, None, None, :]
    there = parent < parents
    h = 4 * tl.arange(0, 4)[:, None, None, None] + tl.arange(0, 4)[None, :, None, None]
    one = row * parents + parent
    to_mean = tl.load(to_poses + one * E + h, mask=there, other=0.0)
    upstream = tl.load(to_logits + one, mask=there, other=0.0)
    zero = tl.zeros_like(upstream)
    to_more = zero
    if E > 16:
        to_more = tl.load(to_poses + one * E + 16 + tl.arange(0, 2)[:, None, None, None], mask=there, other=0.0)
    turn(
        fits, coefficients, to_betas, betas, constants, n, j, valid, to_mean, zero, upstream, zero, to_more, zero, t, E,
        JP, VEC,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def retrace(  # noqa: C901, PLR0912, PLR0915 - one loop over what every variant needs
    poses, activations, weights, looks, coordinates, constants, betas, known, found, coefficients, normalisers, dots,
    log_sums, own_dots, parts, to, to_betas,
    rows, positions, below, types, looked, apart, children, parents, step, t,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, ADDED: tl.constexpr,
    ROW: tl.constexpr, COLUMN: tl.constexpr, EVERYWHERE: tl.constexpr, BALANCE: tl.constexpr, SPLIT: tl.constexpr,
    SOFTMAX: tl.constexpr, BY_MASS: tl.constexpr,
):  # fmt: skip
    """From the coefficients of iteration t, at least 1, to those of the iteration before.

    Args:
        poses, ..., betas, rows, ..., step: see `triton_forward.gather`.
        known, found: fits of iterations t - 1 and t.
        coefficients: of iteration t; between twice the curve and the level they receive the means' way since t - 1.
        normalisers: [images, below, types], where children compete EVERYWHERE.
        dots: [images, below, types], likewise, sums of R grho over all parents of a child.
        log_sums: [rows, children], else; receives what is subtracted from a child's log-densities.
        own_dots: [rows, children], receives sums of R grho over a child's parents at one position.
        parts: [splits, rows, 2 E + 1, JP], receives sums of g D, g D^2 and g where children are SPLIT.
        to: receives the coefficients of iteration t - 1.
        to_betas: see `turn`.
        BALANCE: whether to make `own_dots` only, because those of other positions are needed first.
    """
    first = tl.program_id(0) * BN
    n, j, valid = lanes(first, rows, BN, JP)
    row, there = rows_from(first, rows, BN)
    base, at = n * ((3 * E + 3) * JP) + j, n * ((3 * E + 1) * JP) + j
    image, p = row // positions, row % positions
    mean = load_rows(known, base, 4, 4, JP, VEC)
    precision = load_rows(known + E * JP, base, 4, 4, JP, VEC)
    offset = load_rows(known + (2 * E + 2) * JP, base, 1, 1, JP, VEC)
    delta = load_rows(found, base, 4, 4, JP, VEC) - mean
    slope = load_rows(coefficients, at, 4, 4, JP, VEC)
    curve = 0.5 * load_rows(coefficients + E * JP, at, 4, 4, JP, VEC)
    level = load_rows(coefficients + 3 * E * JP, at, 1, 1, JP, VEC)
    if tl.program_id(1) == 0:
        store_rows(coefficients + 2 * E * JP, at, valid, delta, 4, 4, JP, VEC)
    sums = tl.zeros([1, 1, BN, JP], poses.dtype.element_ty)
    sums1 = tl.zeros([4, 4, BN, JP], poses.dtype.element_ty)
    sums2 = tl.zeros([4, 4, BN, JP], poses.dtype.element_ty)
    more1, more2 = sums, sums
    if E > 16:
        more1 = tl.zeros([2, 1, BN, JP], poses.dtype.element_ty)
        more2 = tl.zeros([2, 1, BN, JP], poses.dtype.element_ty)
        more_mean = load_rows(known + 16 * JP, base, 2, 1, JP, VEC)
        more_delta = load_rows(found + 16 * JP, base, 2, 1, JP, VEC) - more_mean
        if tl.program_id(1) == 0:
            store_rows(coefficients + (2 * E + 16) * JP, at, valid, more_delta, 2, 1, JP, VEC)
    start = tl.program_id(1) * step
    end = tl.minimum(start + step, children)
    for k in range(start // types, (end + types - 1) // types):
        place = tl.load(looks + p * looked + k)
        child = (image * below + place) * types
        centre, height = mean, level
        if ADDED:
            centre = displace(mean, coordinates, place, -1.0, ROW, COLUMN)
        ground = rate_appended(offset, known, base, coordinates, place, E, JP, VEC)
        if E > 16:
            beside = appended(coordinates, place) - more_mean
            here = beside - more_delta
            tilt = load_rows(coefficients + (E + 16) * JP, at, 2, 1, JP, VEC) * here
            height += total(here * (load_rows(coefficients + 16 * JP, at, 2, 1, JP, VEC) + 0.5 * tilt))
        blames = tl.zeros([1, 1, BN, JP], poses.dtype.element_ty)
        for c in range(tl.maximum(start - k * types, 0), tl.minimum(end - k * types, types)):
            away = vote(-centre, poses + (child + c) * 16, weights + (k * apart + c) * 16 * JP, j, JP, VEC)
            logit = ground - total(away * away * precision)
            coupling, log_sum = couple(logit, normalisers + child + c, EVERYWHERE)
            deviation = away - delta
            blame = height + total(deviation * (slope + curve * deviation))
            dot = tl.sum(coupling * blame, 3, keep_dims=True)
            number = row * children + k * types + c
            if BALANCE:
                tl.store(own_dots + number, dot, mask=there)
            else:
                if EVERYWHERE:
                    dot = tl.load(dots + child + c)
                else:
                    tl.store(own_dots + number, dot, mask=there)
                    tl.store(log_sums + number, log_sum, mask=there)
                gradient = coupling * tl.load(activations + child + c) * (blame - dot)
                weighted = gradient * away
                blames += gradient
                sums1 += weighted
                sums2 += weighted * away
        sums += blames
        if E > 16:
            more1 += blames * beside
            more2 += blames * beside * beside
    if not BALANCE:
        if SPLIT:
            keep_part(parts, rows, n, j, valid, sums, sums1, sums2, more1, more2, E, JP, VEC)
        else:
            descend(
                known, to, to_betas, betas, constants, n, j, valid, sums, sums1, sums2, more1, more2, parents, t - 1,
                E, JP, VEC, SOFTMAX, BY_MASS,
            )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def turn_parts(
    parts, constants, betas, known, to, to_betas, rows, parents, splits, t,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, SOFTMAX: tl.constexpr,
    BY_MASS: tl.constexpr,
):  # fmt: skip
    """The coefficients of iteration t - 1 from sums that several programs made; see `retrace`.

    Args:
        splits: how many programs made sums for a position.
    """
    n, j, valid = lanes(tl.program_id(0) * BN, rows, BN, JP)
    sums, sums1, sums2, more1, more2 = add_up(parts, rows, n, j, splits, E, BN, JP, VEC)
    descend(
        known, to, to_betas, betas, constants, n, j, valid, sums, sums1, sums2, more1, more2, parents, t - 1, E, JP,
        VEC, SOFTMAX, BY_MASS,
    )  # fmt: skip
