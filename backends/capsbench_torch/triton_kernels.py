"""What the Triton passes share: tiles of parents, votes cast on the fly, the parents' Gaussians and activations.

A tile is [4, 4, BN, JP]: rows and columns of a pose, BN rows of lanes (a position or a child each), JP parents, padded
to a power of two. In memory a tile's last two axes are one axis of lanes, and the passes say of every wide access that
VEC lanes, no more, may be taken at once. The compiler lays lanes out over threads accordingly, and with as many lanes
as threads times VEC it keeps all 16 elements of a vote in one thread: sums over elements take no exchange between
threads, only sums over parents do. Nothing a pass computes is ever moved between threads to fit a layout.

Fits are [rows, 3 E + 3, JP]: mean (E elements), precision 1 / (2 variance) (E), mass, sum of log(variance) / 2, and
the offset of the log-densities, log activation - half logs (after the last iteration the logits), and the rest (E),
what the deviations from the mean, each times its rho, sum up to. Sums over children are [rows, 2 E + 1, JP]: of rho D,
of rho D^2, of rho. Where coordinates are appended E is 18, and elements 16 and 17, the same in the votes of all
children of a place, are tiles [2, 1, BN, JP] of their own.

The symbols are those of docs/fused-routing.md.
"""
# ruff: noqa: ANN001, ANN201, D417 - the compiler finds the types; an argument is described where it first comes
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

import triton
import triton.language as tl

# A mean that strays from where it was looked for costs the variance digits: (distance / deviation)^2 roundings.
STRAY = tl.constexpr(16.0)
NEVER = tl.constexpr(-1e30)  # a logit that no child follows, and that float32 can hold
# Where the constants of a task are: in front of the temperatures.
FACTOR, FLOOR, EPSILON, TEMPERATURES = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def lanes(first, rows, BN: tl.constexpr, JP: tl.constexpr):
    """The row (the last one at most) and the parent of each lane, and whether there is such a row: [1, 1, BN JP]."""
    lane = tl.arange(0, BN * JP)[None, None, :]
    row = first + lane // JP
    return tl.minimum(row, rows - 1).to(tl.int64), lane % JP, row < rows


@triton.jit
def rows_from(first, rows, BN: tl.constexpr):
    """Rows from number `first` on, the last one at most, [1, 1, BN, 1], and which there are."""
    row = first + tl.arange(0, BN)[None, None, :, None]
    return tl.minimum(row, rows - 1).to(tl.int64), row < rows


@triton.jit
def absent(parents, JP: tl.constexpr):
    """1 for lanes that hold no parent, [1, 1, 1, JP]."""
    return (tl.arange(0, JP)[None, None, None, :] >= parents).to(tl.int32)


@triton.jit
def addresses(pointer, base, A: tl.constexpr, B: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """Of A times B rows of lanes, [A, B, lanes], the first of them at `pointer + base`."""
    row = B * tl.arange(0, A)[:, None, None] + tl.arange(0, B)[None, :, None]
    where = pointer + tl.broadcast_to(base + row * JP, [A, B, base.shape[2]])
    BYTES: tl.constexpr = VEC * (pointer.dtype.element_ty.primitive_bitwidth // 8)
    return tl.multiple_of(tl.max_contiguous(where, [1, 1, JP]), [1, 1, BYTES])


@triton.jit
def load_rows(pointer, base, A: tl.constexpr, B: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """A tile [A, B, BN, JP]."""
    lanes_of = tl.load(addresses(pointer, base, A, B, JP, VEC))
    return tl.reshape(lanes_of, [A, B, base.shape[2] // JP, JP])


@triton.jit
def store_rows(pointer, base, valid, tile, A: tl.constexpr, B: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """Keep a tile [A, B, BN, JP], where `valid`."""
    whole = tl.broadcast_to(tile, [A, B, base.shape[2] // JP, JP])
    mask = tl.broadcast_to(valid, [A, B, base.shape[2]])
    tl.store(addresses(pointer, base, A, B, JP, VEC), tl.reshape(whole, [A, B, base.shape[2]]), mask=mask)


@triton.jit
def keep_part(
    parts, rows, n, j, valid, sums, sums1, sums2, more1, more2, E: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr
):
    """Keep sums over the children that this program walked, [splits, rows, 2 E + 1, JP]; see `add_up`."""
    base = (tl.program_id(1).to(tl.int64) * rows + n) * ((2 * E + 1) * JP) + j
    store_rows(parts, base, valid, sums1, 4, 4, JP, VEC)
    store_rows(parts + E * JP, base, valid, sums2, 4, 4, JP, VEC)
    store_rows(parts + 2 * E * JP, base, valid, sums, 1, 1, JP, VEC)
    if E > 16:
        store_rows(parts + 16 * JP, base, valid, more1, 2, 1, JP, VEC)
        store_rows(parts + (E + 16) * JP, base, valid, more2, 2, 1, JP, VEC)


@triton.jit
def add_up(parts, rows, n, j, splits, E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """The sums over all children from those of the splits; the last two are of the appended coordinates."""
    sums = tl.zeros([1, 1, BN, JP], parts.dtype.element_ty)
    sums1 = tl.zeros([4, 4, BN, JP], parts.dtype.element_ty)
    sums2 = tl.zeros([4, 4, BN, JP], parts.dtype.element_ty)
    more1 = tl.zeros([2, 1, BN, JP], parts.dtype.element_ty)
    more2 = tl.zeros([2, 1, BN, JP], parts.dtype.element_ty)
    base = n * ((2 * E + 1) * JP) + j
    for _ in range(splits):
        sums1 += load_rows(parts, base, 4, 4, JP, VEC)
        sums2 += load_rows(parts + E * JP, base, 4, 4, JP, VEC)
        sums += load_rows(parts + 2 * E * JP, base, 1, 1, JP, VEC)
        if E > 16:
            more1 += load_rows(parts + 16 * JP, base, 2, 1, JP, VEC)
            more2 += load_rows(parts + (E + 16) * JP, base, 2, 1, JP, VEC)
        base += rows.to(tl.int64) * ((2 * E + 1) * JP)
    return sums, sums1, sums2, more1, more2


@triton.jit
def total(tile):
    """Sum over the elements of a pose."""
    return tl.sum(tl.sum(tile, 1, keep_dims=True), 0, keep_dims=True)


@triton.jit
def vote(start, pose, weight, j, JP: tl.constexpr, VEC: tl.constexpr):
    """`start` + P W: poses at pointers [1, 1, BN, 1], one transform [16, JP] for all of them."""
    r = tl.arange(0, 4)[:, None, None, None]
    for k in tl.static_range(4):
        start += tl.load(pose + 4 * r + k) * load_rows(weight + 4 * k * JP, j, 1, 4, JP, VEC)
    return start


@triton.jit
def displace(tile, coordinates, place, SIGN: tl.constexpr, ROW: tl.constexpr, COLUMN: tl.constexpr):
    """A tile plus SIGN times the coordinates of places [1, 1, BN, 1], in elements ROW and COLUMN of the pose."""
    h = 4 * tl.arange(0, 4)[:, None, None, None] + tl.arange(0, 4)[None, :, None, None]
    tile = tl.where(h == ROW, tile + SIGN * tl.load(coordinates + 2 * place), tile)
    return tl.where(h == COLUMN, tile + SIGN * tl.load(coordinates + 2 * place + 1), tile)


@triton.jit
def appended(coordinates, place):
    """The coordinates of places, as a tile [2, 1, BN, 1]."""
    return tl.load(coordinates + 2 * place + tl.arange(0, 2)[:, None, None, None])


@triton.jit
def rate_appended(offset, fits, base, coordinates, place, E: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr):
    """The offset of log-densities less what the coordinates of places cost where they are appended."""
    if E > 16:
        beside = appended(coordinates, place) - load_rows(fits + 16 * JP, base, 2, 1, JP, VEC)
        offset -= total(beside * beside * load_rows(fits + (E + 16) * JP, base, 2, 1, JP, VEC))
    return offset


@triton.jit
def couple(logits, normaliser, EVERYWHERE: tl.constexpr):
    """Couplings from log-densities, and the log of what those sum up to; given, where children compete EVERYWHERE."""
    if EVERYWHERE:
        log_sum = tl.load(normaliser)
        couplings = tl.exp(logits - log_sum)
    else:
        peak = tl.max(logits, 3, keep_dims=True)
        densities = tl.exp(logits - peak)
        whole = tl.sum(densities, 3, keep_dims=True)
        couplings = densities / whole
        log_sum = peak + tl.log(whole)
    return couplings, log_sum


@triton.jit
def log_softmax(logits):
    """Over the parents."""
    shifted = logits - tl.max(logits, 3, keep_dims=True)
    return shifted - tl.log(tl.sum(tl.exp(shifted), 3, keep_dims=True))


@triton.jit
def log_sigmoid(logits):
    """Without overflow on either side."""
    negative = tl.minimum(logits, 0.0)
    return negative - tl.log(1.0 + tl.exp(2.0 * negative - logits))


@triton.jit
def activate(mass, half_logs, j, betas, constants, t, JP: tl.constexpr, VEC: tl.constexpr):
    """Logits = temperature (beta_a - factor S (beta_u + half logs)), beta_u summed over the elements."""
    cost = mass * (load_rows(betas, j, 1, 1, JP, VEC) + half_logs) * tl.load(constants + FACTOR)
    return (load_rows(betas + JP, j, 1, 1, JP, VEC) - cost) * tl.load(constants + TEMPERATURES + t)


@triton.jit
def fit(sums, sums1, sums2, shift, padding, constants):
    """Mean, rest, variance from the sums of rho, rho D, rho D^2, D the deviations from `shift`; whether they strayed.

    mean = sum rho V / (S + epsilon) and variance = sum rho (V - mean)^2 / (S + epsilon) + floor, S = sum rho. The last
    result is positive where the mean lies so far from `shift` that the variance lost digits.
    """
    scale = 1.0 / (sums + tl.load(constants + EPSILON))
    mean = (sums1 + shift * sums) * scale
    distance = mean - shift
    moved = distance * (2.0 * sums1 - distance * sums)
    spread = tl.maximum(sums2 - moved, 0.0, propagate_nan=tl.PropagateNan.ALL)
    variance = spread * scale + tl.load(constants + FLOOR) + padding
    return mean, sums1 - distance * sums, variance, distance * distance * sums * scale - STRAY * variance


@triton.jit
def conclude(
    found, strays, betas, constants, first, n, j, valid, sums, sums1, sums2, shift, more1, more2, more_shift, rows,
    parents, t, last,
    E: tl.constexpr, BN: tl.constexpr, JP: tl.constexpr, VEC: tl.constexpr, AGAIN: tl.constexpr,
    SOFTMAX: tl.constexpr, BY_MASS: tl.constexpr,
):  # fmt: skip
    """Keep the fit that sums over all children of some rows make, and which rows strayed.

    Args:
        found: receives the fits.
        strays: [rows], receives whether the sums must be taken again; untouched where they were taken AGAIN.
        betas: [2, JP], beta_u and beta_a.
        constants: see the head of this file.
        first, n, j, valid: see `lanes`.
        sums, sums1, sums2, shift: see `fit`.
        more1, more2, more_shift: the same of the appended coordinates, where E is 18.
        rows, parents: how many there are.
        t: the iteration.
        last: whether it is the last.
    """
    padding = absent(parents, JP)
    base = n * ((3 * E + 3) * JP) + j
    mean, rest, variance, stray = fit(sums, sums1, sums2, shift, padding, constants)
    worst = tl.max(tl.max(stray, 1, keep_dims=True), 0, keep_dims=True)
    logs = total(tl.log(variance))
    store_rows(found, base, valid, mean, 4, 4, JP, VEC)
    store_rows(found + E * JP, base, valid, 0.5 / variance, 4, 4, JP, VEC)
    store_rows(found + (2 * E + 3) * JP, base, valid, rest, 4, 4, JP, VEC)
    if E > 16:
        mean, rest, variance, stray = fit(sums, more1, more2, more_shift, padding, constants)
        worst = tl.maximum(worst, tl.max(stray, 0, keep_dims=True))
        logs += total(tl.log(variance))
        store_rows(found + 16 * JP, base, valid, mean, 2, 1, JP, VEC)
        store_rows(found + (E + 16) * JP, base, valid, 0.5 / variance, 2, 1, JP, VEC)
        store_rows(found + (2 * E + 19) * JP, base, valid, rest, 2, 1, JP, VEC)
    if not AGAIN:
        row, there = rows_from(first, rows, BN)
        tl.store(strays + row, (tl.max(worst, 3, keep_dims=True) > 0.0).to(tl.int32), mask=there)
    half_logs = 0.5 * logs
    logits = activate(sums, half_logs, j, betas, constants, t, JP, VEC)
    active = logits
    if BY_MASS:
        active = sums
    if SOFTMAX:
        log_activation = log_softmax(tl.where(padding > 0, NEVER, active))
    else:
        log_activation = tl.where(padding > 0, NEVER, log_sigmoid(active))
    store_rows(found + 2 * E * JP, base, valid, sums, 1, 1, JP, VEC)
    store_rows(found + (2 * E + 1) * JP, base, valid, half_logs, 1, 1, JP, VEC)
    offset = tl.where(last > 0, logits, log_activation - half_logs)
    store_rows(found + (2 * E + 2) * JP, base, valid, offset, 1, 1, JP, VEC)
