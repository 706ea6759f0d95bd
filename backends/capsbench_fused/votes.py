"""What every pass over the votes does with a block of four children at one position.

A block's deviations and couplings lie in buffers small enough for the first-level cache. Buffers are flat arrays of
vectors, LANES parents side by side. All functions are compiled into the passes that call them.

Shapes: groups of LANES parents; elements of a pose, 16, or 18 with coordinates appended.
"""

from capsbench_fused.compiling import compiled, small
from capsbench_fused.vec import LANES, exp, largest, largest_of, load, offset, splat, splat_at, store, total_of

BLOCK = 4  # children; a sum over the children grows by a block's sum at a time, which keeps its rounding small


@small
def row_of(poses, pose, r):
    """Row r of a pose, each of its elements in all lanes."""
    at = pose + 4 * r
    return splat_at(poses, at), splat_at(poses, at + 1), splat_at(poses, at + 2), splat_at(poses, at + 3)


@small
def cast(upper, lower, weights, w):
    """An element of a vote in each of two rows: the rows times a column of the transform, which is loaded once."""
    w0, w1 = load(weights, w), load(weights, w + 4 * LANES)
    w2, w3 = load(weights, w + 8 * LANES), load(weights, w + 12 * LANES)
    first = (upper[0] * w0 + upper[1] * w1) + (upper[2] * w2 + upper[3] * w3)
    return first, (lower[0] * w0 + lower[1] * w1) + (lower[2] * w2 + lower[3] * w3)


@compiled
def deviate(poses, pose, weights, weight, centre, groups, elements, deviations):
    """Deviations V - centre of one child's votes.

    Args:
        poses: of all children; the child's begins at `pose`.
        weights: [children, groups, 16, LANES], transforms of all children; the child's begin at `weight`.
        centre: [groups, elements, LANES].
        groups: of parents.
        elements: beyond the sixteenth a vote is 0 but for what the centre makes of it.
        deviations: receives [groups, elements, LANES].
    """
    for g in range(groups):
        w, m = weight + g * 16 * LANES, g * elements * LANES
        for r in range(0, 4, 2):
            upper, lower = row_of(poses, pose, r), row_of(poses, pose, r + 1)
            for c in range(4):
                first, second = cast(upper, lower, weights, w + c * LANES)
                at = m + (4 * r + c) * LANES
                store(deviations, at, first - load(centre, at))
                store(deviations, at + 4 * LANES, second - load(centre, at + 4 * LANES))
        for h in range(16, elements):
            store(deviations, m + h * LANES, -load(centre, m + h * LANES))


@compiled
def deviate_and_rate(poses, pose, weights, weight, centre, precision, offsets, groups, elements, deviations, logits):
    """Likewise, and each vote's log-density, offset - sum_h precision deviation^2.

    Args:
        precision: [groups, elements, LANES], 1 / (2 variance).
        offsets: [groups, LANES].
        logits: receives [groups, LANES].
    """
    for g in range(groups):
        w, m = weight + g * 16 * LANES, g * elements * LANES
        distance = splat(logits, 0.0)
        for r in range(0, 4, 2):
            upper, lower = row_of(poses, pose, r), row_of(poses, pose, r + 1)
            above, below = splat(logits, 0.0), splat(logits, 0.0)
            for c in range(4):
                first, second = cast(upper, lower, weights, w + c * LANES)
                at = m + (4 * r + c) * LANES
                first, second = first - load(centre, at), second - load(centre, at + 4 * LANES)
                store(deviations, at, first)
                store(deviations, at + 4 * LANES, second)
                above += first * first * load(precision, at)
                below += second * second * load(precision, at + 4 * LANES)
            distance += above + below
        for h in range(16, elements):
            deviation = -load(centre, m + h * LANES)
            store(deviations, m + h * LANES, deviation)
            distance += deviation * deviation * load(precision, m + h * LANES)
        store(logits, g * LANES, load(offsets, g * LANES) - distance)


@small
def clear(array, first, last):
    """Zero out vectors from `first` to before `last`."""
    zero = splat(array, 0.0)
    for at in range(first, last, LANES):
        store(array, at, zero)


@compiled
def log_sum(logits, at, groups):
    """The largest of one child's or position's logits, and the sum over the parents of exp(logit - largest)."""
    top = load(logits, at)
    for g in range(1, groups):
        top = largest(top, load(logits, at + g * LANES))
    peak = largest_of(top)
    total = exp(load(logits, at) - splat(logits, peak))
    for g in range(1, groups):
        total += exp(load(logits, at + g * LANES) - splat(logits, peak))
    return peak, total_of(total)


@compiled
def share_out(logits, groups):
    """Softmax over the parents for each child of a block, in place: logits [BLOCK, groups, LANES] become couplings.

    The four children are taken together, because one alone would wait for its own sums most of the time.
    """
    row = groups * LANES
    top0, top1, top2, top3 = load(logits, 0), load(logits, row), load(logits, 2 * row), load(logits, 3 * row)
    for at in range(LANES, row, LANES):
        top0, top1 = largest(top0, load(logits, at)), largest(top1, load(logits, row + at))
        top2, top3 = largest(top2, load(logits, 2 * row + at)), largest(top3, load(logits, 3 * row + at))
    peak0, peak1 = splat(logits, largest_of(top0)), splat(logits, largest_of(top1))
    peak2, peak3 = splat(logits, largest_of(top2)), splat(logits, largest_of(top3))
    sum0 = splat(logits, 0.0)
    sum1, sum2, sum3 = sum0, sum0, sum0
    for at in range(0, row, LANES):
        e0, e1 = exp(load(logits, at) - peak0), exp(load(logits, row + at) - peak1)
        e2, e3 = exp(load(logits, 2 * row + at) - peak2), exp(load(logits, 3 * row + at) - peak3)
        store(logits, at, e0)
        store(logits, row + at, e1)
        store(logits, 2 * row + at, e2)
        store(logits, 3 * row + at, e3)
        sum0, sum1, sum2, sum3 = sum0 + e0, sum1 + e1, sum2 + e2, sum3 + e3
    one = 1.0
    scale0, scale1 = splat(logits, one / total_of(sum0)), splat(logits, one / total_of(sum1))
    scale2, scale3 = splat(logits, one / total_of(sum2)), splat(logits, one / total_of(sum3))
    for at in range(0, row, LANES):
        store(logits, at, load(logits, at) * scale0)
        store(logits, row + at, load(logits, row + at) * scale1)
        store(logits, 2 * row + at, load(logits, 2 * row + at) * scale2)
        store(logits, 3 * row + at, load(logits, 3 * row + at) * scale3)


@compiled
def gather(deviations, couplings, delta, groups, elements, sums, sums1, sums2):
    """Add a block's couplings times deviation^0, ^1 and ^2 to sums over the children.

    Args:
        deviations: [BLOCK, groups, elements, LANES].
        couplings: [BLOCK, groups, LANES]; those of a child that is not there must be 0.
        delta: [groups, elements, LANES], taken from every deviation first.
        groups: of parents.
        elements: of a pose.
        sums: [groups, LANES].
        sums1: [groups, elements, LANES].
        sums2: likewise.
    """
    row, size = groups * LANES, groups * elements * LANES
    for g in range(groups):
        r0, r1 = load(couplings, g * LANES), load(couplings, row + g * LANES)
        r2, r3 = load(couplings, 2 * row + g * LANES), load(couplings, 3 * row + g * LANES)
        store(sums, g * LANES, load(sums, g * LANES) + ((r0 + r1) + (r2 + r3)))
        for at in range(g * elements * LANES, (g + 1) * elements * LANES, LANES):
            d = load(delta, at)
            d0, d1 = load(deviations, at) - d, load(deviations, size + at) - d
            d2, d3 = load(deviations, 2 * size + at) - d, load(deviations, 3 * size + at) - d
            t0, t1, t2, t3 = r0 * d0, r1 * d1, r2 * d2, r3 * d3
            store(sums1, at, load(sums1, at) + ((t0 + t1) + (t2 + t3)))
            store(sums2, at, load(sums2, at) + ((t0 * d0 + t1 * d1) + (t2 * d2 + t3 * d3)))


@compiled
def look(poses, pose, weights, weight, count, centre, rated, precision, offsets, groups, elements, deviations, logits):
    """Deviations of a block of `count` children, and their log-densities where `rated`; 0 for those that are missing.

    Args:
        poses, pose: of the first child; the others follow it.
        weights, weight: likewise.
        count: up to BLOCK.
        centre, precision, offsets, groups, elements: as for `deviate_and_rate`.
        rated: whether.
        deviations: receives [BLOCK, groups, elements, LANES].
        logits: receives [BLOCK, groups, LANES].
    """
    size, row = groups * elements * LANES, groups * LANES
    for q in range(count):
        p, w, to = pose + q * 16, weight + q * groups * 16 * LANES, offset(deviations, q * size)
        if rated:
            on = offset(logits, q * row)
            deviate_and_rate(poses, p, weights, w, centre, precision, offsets, groups, elements, to, on)
        else:
            deviate(poses, p, weights, w, centre, groups, elements, to)
    if count < BLOCK:
        clear(deviations, count * size, BLOCK * size)
        clear(logits, count * row, BLOCK * row)


@small
def scale_rows(couplings, groups, factors, first, count):
    """Couplings times a number of each child, 0 for children that are missing."""
    for q in range(count):
        factor = splat_at(factors, first + q)
        for at in range(q * groups * LANES, (q + 1) * groups * LANES, LANES):
            store(couplings, at, load(couplings, at) * factor)
    clear(couplings, count * groups * LANES, BLOCK * groups * LANES)
