"""Routing backward, derived by hand: one pass over the votes an iteration, the last one first, votes cast anew.

From the gradients of an iteration's fit a pass finds that of every child's weight, rho, and of its log-density in the
E-step before; from both that of the vote, which it takes on to pose and transforms; and it sums the latter up to the
gradients of the fit before. See docs/fused-routing.md for the equations.
"""

from capsbench_fused.compiling import compiled, entry, small
from capsbench_fused.parents import onto_fit, onto_votes
from capsbench_fused.position import bench_at, couple, fit_at, locate, pointers, prepare, see
from capsbench_fused.vec import LANES, flush_denormals, load, offset, restore, splat, splat_at, start, store, total_of
from capsbench_fused.votes import BLOCK, clear, gather


@entry
def backward(
    images, iterations, item_bytes, batch, sizes, variant, inputs, fits, normalisers, memory, state, dots,
    to_fit_poses, to_fit_logits, to_poses, to_activations, to_weights, to_beta_u, to_beta_a,
):  # fmt: skip
    """Gradients of some images through some iterations.

    Args:
        images: (first, last) of a range.
        iterations: (first, last) of a range that is walked from its end; what comes after it is in `state`.
        item_bytes: 4 or 8.
        batch: images that `fits` has room for.
        sizes, variant, inputs, fits, normalisers, memory: as for `forward`.
        state: [positions, Fit], gradients of the iteration's fits.
        dots: [children of an image], what `balance` found, where the variant is `everywhere`.
        to_fit_poses, to_fit_logits: gradients of what came out.
        to_poses, to_activations, to_weights, to_beta_u, to_beta_a: grow by the gradients, in the inputs' order.
    """
    before = flush_denormals()
    inputs = pointers(inputs)
    bench = bench_at(start(memory), sizes, item_bytes)
    children = sizes.below * sizes.types
    for image in range(images[0], images[1]):
        for t in range(iterations[1] - 1, iterations[0] - 1, -1):
            known_children = offset(start(normalisers), ((t - 1) * batch + image) * children)
            for p in range(sizes.positions):
                found = fit_at(start(fits), (t * batch + image) * sizes.positions + p, sizes)
                known = fit_at(start(fits), (max(t - 1, 0) * batch + image) * sizes.positions + p, sizes)
                to = fit_at(start(state), p, sizes)
                if t == variant.iterations - 1:
                    _read(image * sizes.positions + p, sizes, to_fit_poses, to_fit_logits, to)
                _turn(t, found, known, to, sizes, variant, inputs, start(to_beta_u), start(to_beta_a), bench)
                _scatter(
                    image, p, t > 0, sizes, variant, inputs, known.mean, known_children, start(dots), bench,
                    start(to_poses), start(to_activations), start(to_weights),
                )  # fmt: skip
                if t > 0:
                    clear(to.mass, 0, 2 * sizes.groups * LANES)
                    onto_fit(
                        bench.sums, bench.sums1, bench.sums2, known.variance, bench.active, inputs.padding,
                        sizes.groups, sizes.elements, variant.softmax or variant.by_mass, to.mean, to.variance,
                        to.mass if variant.by_mass else to.half_logs,
                    )  # fmt: skip
    restore(before)


@entry
def balance(
    image, t, item_bytes, batch, sizes, variant, inputs, fits, normalisers, memory, state, dots,
    to_fit_poses, to_fit_logits,
):  # fmt: skip
    """For each child of an image the sum, over its parents at all positions, of its coupling times grho.

    The arguments are those of `backward`, for an iteration t of at least 1; `dots` receives the sums.
    """
    before = flush_denormals()
    inputs = pointers(inputs)
    bench = bench_at(start(memory), sizes, item_bytes)
    known_children = offset(start(normalisers), ((t - 1) * batch + image) * sizes.below * sizes.types)
    dots[:] = 0
    for p in range(sizes.positions):
        found = fit_at(start(fits), (t * batch + image) * sizes.positions + p, sizes)
        known = fit_at(start(fits), ((t - 1) * batch + image) * sizes.positions + p, sizes)
        to = fit_at(start(state), p, sizes)
        if t == variant.iterations - 1:
            _read(image * sizes.positions + p, sizes, to_fit_poses, to_fit_logits, to)
        # The offsets' gradients are counted by `backward`, and go to buffers that nobody reads here.
        _turn(t, found, known, to, sizes, variant, inputs, bench.sums1, bench.sums2, bench)
        for k in range(sizes.looks):
            place = inputs.looks[p * sizes.looks + k]
            base = known.mean
            if sizes.row >= 0:
                locate(known.mean, inputs.coordinates, place, sizes, bench.centre)
                base = bench.centre
            for first in range(0, sizes.types, BLOCK):
                count = min(BLOCK, sizes.types - first)
                child = see(image, place, k, first, count, True, base, sizes, inputs, bench)
                couple(splat(bench.sums, 0.0), child, count, True, True, sizes.groups, known_children, bench)
                for q in range(count):
                    dots[child + q] += _blame(q, sizes.groups, sizes.elements, bench)
    restore(before)


@small
def _read(n, sizes, to_fit_poses, to_fit_logits, to):
    """The gradients of the parents of position n, 0 in the padding."""
    clear(to.mean, 0, sizes.groups * (3 * sizes.elements + 2) * LANES)
    for j in range(sizes.parents):
        g, lane = j // LANES, j % LANES
        to.half_logs[j] = to_fit_logits[n * sizes.parents + j]
        for h in range(sizes.elements):
            at = (n * sizes.parents + j) * sizes.elements + h
            to.mean[(g * sizes.elements + h) * LANES + lane] = to_fit_poses[at]


@compiled
def _turn(t, found, known, to, sizes, variant, inputs, to_beta_u, to_beta_a, bench):
    """From the gradients of a position's fit to the coefficients of its votes', and what the E-step before needs."""
    onto_votes(
        found.rest, found.variance, found.mass, found.half_logs, inputs.beta_u, sizes.groups, sizes.elements,
        variant.cost_factor, inputs.temperatures[t], variant.floor, variant.epsilon, to.mean, to.variance,
        to.half_logs, to.mass, bench.level, bench.slope, bench.curve, to_beta_u, to_beta_a,
    )  # fmt: skip
    if t > 0:
        prepare(known, t - 1, sizes, variant, inputs, bench)
    for at in range(0, sizes.groups * sizes.elements * LANES, LANES):
        store(bench.delta, at, load(found.mean, at) - load(known.mean, at))


@compiled
def _scatter(
    image, p, rated, sizes, variant, inputs, mean, known_children, dots, bench, to_poses, to_activations, to_weights
):
    """One pass at one position: gradients of the children, and sums of those of their log-densities where `rated`."""
    groups, elements = sizes.groups, sizes.elements
    clear(bench.sums, 0, groups * LANES)
    clear(bench.sums1, 0, groups * elements * LANES)
    clear(bench.sums2, 0, groups * elements * LANES)
    clear(bench.shift, 0, groups * elements * LANES)
    for k in range(sizes.looks):
        place = inputs.looks[p * sizes.looks + k]
        base = mean
        if sizes.row >= 0:
            locate(mean, inputs.coordinates, place, sizes, bench.centre)
            base = bench.centre
        share = splat_at(inputs.shares, p * sizes.looks + k)
        for first in range(0, sizes.types, BLOCK):
            count = min(BLOCK, sizes.types - first)
            child = see(image, place, k, first, count, rated, base, sizes, inputs, bench)
            couple(share, child, count, rated, variant.everywhere, groups, known_children, bench)
            whole = image * sizes.below * sizes.types + child
            for q in range(count):
                dot = _blame(q, groups, elements, bench)
                to_activations[whole + q] += dot
                if variant.everywhere and rated:
                    dot = dots[child + q]
                _weigh(q, dot, splat_at(inputs.activations, whole + q), groups, bench)
            if rated:
                clear(bench.blames, count * groups * LANES, BLOCK * groups * LANES)
                gather(
                    bench.deviations, bench.blames, bench.shift, groups, elements, bench.sums, bench.sums1, bench.sums2
                )
            transform = k * sizes.types % sizes.transforms + first
            for q in range(count):
                weight = (transform + q) * groups * 16 * LANES
                _bend(q, rated, groups, elements, bench)
                _onto_pose(q, (whole + q) * 16, weight, inputs.weights, groups, elements, bench.deviations, to_poses)
                _onto_weights(q, (whole + q) * 16, weight, inputs.poses, groups, elements, bench.deviations, to_weights)


@small
def _blame(q, groups, elements, bench):
    """The gradients grho = level + sum_h D (slope + curve D) of a child, into `blames`; returns sum_j R grho."""
    whole = splat(bench.level, 0.0)
    for g in range(groups):
        value = splat(bench.level, 0.0)
        for at in range(g * elements * LANES, (g + 1) * elements * LANES, 2 * LANES):
            value += _slope(q, at, groups, elements, bench) + _slope(q, at + LANES, groups, elements, bench)
        value = load(bench.level, g * LANES) + value  # last, because it may be much larger
        store(bench.blames, (q * groups + g) * LANES, value)
        whole += value * load(bench.couplings, (q * groups + g) * LANES)
    return total_of(whole)


@small
def _slope(q, at, groups, elements, bench):
    """D (slope + curve D) of one element."""
    deviation = load(bench.deviations, q * groups * elements * LANES + at) - load(bench.delta, at)
    return deviation * (load(bench.slope, at) + load(bench.curve, at) * deviation)


@small
def _weigh(q, dot, activation, groups, bench):
    """A child's couplings become its weights rho = R a, its blames its log-densities' gradients rho (grho - dot)."""
    shift = splat(bench.blames, dot)
    for at in range(q * groups * LANES, (q + 1) * groups * LANES, LANES):
        rho = load(bench.couplings, at) * activation
        store(bench.blames, at, rho * (load(bench.blames, at) - shift))
        store(bench.couplings, at, rho)


@small
def _bend(q, rated, groups, elements, bench):
    """A child's deviations become the gradients of its votes: rho (slope + 2 curve D) - 2 g precision D'.

    D' is the deviation from the fit before, D = D' - delta that from the iteration's own, g the log-density's gradient.
    """
    two, votes = splat(bench.slope, 2.0), offset(bench.deviations, q * groups * elements * LANES)
    for g in range(groups):
        rho, density = load(bench.couplings, (q * groups + g) * LANES), load(bench.blames, (q * groups + g) * LANES)
        twice = density + density
        for at in range(g * elements * LANES, (g * elements + 16) * LANES, LANES):
            away = load(votes, at)
            deviation = away - load(bench.delta, at)
            value = rho * (load(bench.slope, at) + two * load(bench.curve, at) * deviation)
            if rated:
                value -= twice * away * load(bench.precision, at)
            store(votes, at, value)


@small
def _onto_pose(q, pose, weight, weights, groups, elements, votes, to_poses):
    """The gradient sum_j gV W^T of one child's pose, two rows at a time, for which a transform is loaded once."""
    for r in range(0, 4, 2):
        upper = splat(votes, 0.0), splat(votes, 0.0), splat(votes, 0.0), splat(votes, 0.0)
        lower = upper
        for g in range(groups):
            w, v = weight + g * 16 * LANES, ((q * groups + g) * elements + 4 * r) * LANES
            for c in range(0, 4 * LANES, LANES):
                w0, w1 = load(weights, w + c), load(weights, w + c + 4 * LANES)
                w2, w3 = load(weights, w + c + 8 * LANES), load(weights, w + c + 12 * LANES)
                first, second = load(votes, v + c), load(votes, v + c + 4 * LANES)
                upper = upper[0] + first * w0, upper[1] + first * w1, upper[2] + first * w2, upper[3] + first * w3
                lower = lower[0] + second * w0, lower[1] + second * w1, lower[2] + second * w2, lower[3] + second * w3
        for k in range(4):
            to_poses[pose + 4 * r + k] += total_of(upper[k])
            to_poses[pose + 4 * r + 4 + k] += total_of(lower[k])


@small
def _onto_weights(q, pose, weight, poses, groups, elements, votes, to_weights):
    """The gradient P^T gV of one child's transforms, two rows at a time, for which a vote is loaded once."""
    for g in range(groups):
        v = (q * groups + g) * elements * LANES
        for k in range(0, 4, 2):
            left, right = _column(poses, pose, k), _column(poses, pose, k + 1)
            for c in range(0, 4 * LANES, LANES):
                v0, v1 = load(votes, v + c), load(votes, v + c + 4 * LANES)
                v2, v3 = load(votes, v + c + 8 * LANES), load(votes, v + c + 12 * LANES)
                at = weight + (4 * g + k) * 4 * LANES + c
                first = (left[0] * v0 + left[1] * v1) + (left[2] * v2 + left[3] * v3)
                second = (right[0] * v0 + right[1] * v1) + (right[2] * v2 + right[3] * v3)
                store(to_weights, at, load(to_weights, at) + first)
                store(to_weights, at + 4 * LANES, load(to_weights, at + 4 * LANES) + second)


@small
def _column(poses, pose, k):
    """Column k of a pose, each of its elements in all lanes."""
    at = pose + k
    return splat_at(poses, at), splat_at(poses, at + 4), splat_at(poses, at + 8), splat_at(poses, at + 12)
