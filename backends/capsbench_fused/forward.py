"""Routing forward: one pass over the votes an iteration, none of which is stored.

A pass sums, over the children of a position, rho, rho D and rho D^2, where D is a vote's deviation from where its
parent was an iteration ago. The same D gives the E-step's log-density, and so rho, on the way. See
docs/fused-routing.md.
"""

import numpy as np

from capsbench_fused.compiling import compiled, entry, small
from capsbench_fused.parents import activate, fit
from capsbench_fused.position import bench_at, couple, fit_at, locate, pointers, prepare, see
from capsbench_fused.vec import LANES, flush_denormals, load, offset, restore, splat, splat_at, start, store
from capsbench_fused.votes import BLOCK, clear, deviate, gather, log_sum, scale_rows

_SAMPLES = 16


@entry
def forward(
    images, iterations, slot, slots, item_bytes, sizes, variant, inputs, fits, normalisers, memory, poses, logits
):
    """Route some images through some iterations; after the last one write what comes out.

    Args:
        images: (first, last) of a range.
        iterations: likewise; the fits of the one before the first are there.
        slot: where in `fits` the images' fits are kept, one image's in place of the other's; -1 keeps each image's own.
        slots: images that `fits` has room for.
        item_bytes: 4 or 8.
        sizes: of the layer.
        variant: of routing.
        inputs: see `Inputs`.
        fits: [iterations, slots, positions, Fit].
        normalisers: [iterations - 1, slots, children of an image], known where the variant is `everywhere`.
        memory: for a `Bench`.
        poses: receives [images, positions, parents, elements].
        logits: receives [images, positions, parents].
    """
    before = flush_denormals()
    inputs = pointers(inputs)
    bench = bench_at(start(memory), sizes, item_bytes)
    children = sizes.below * sizes.types
    for image in range(images[0], images[1]):
        kept = image if slot < 0 else slot
        for t in range(iterations[0], iterations[1]):
            known_children = offset(start(normalisers), ((t - 1) * slots + kept) * children)
            for p in range(sizes.positions):
                found = fit_at(start(fits), (t * slots + kept) * sizes.positions + p, sizes)
                known = fit_at(start(fits), (max(t - 1, 0) * slots + kept) * sizes.positions + p, sizes)
                if t > 0:
                    prepare(known, t - 1, sizes, variant, inputs, bench)
                _iterate(image, p, t > 0, sizes, variant, inputs, known.mean, known_children, found, bench)
                if t == variant.iterations - 1:
                    activate(
                        found.mass, found.half_logs, inputs.beta_u, inputs.beta_a, sizes.groups, variant.cost_factor,
                        inputs.temperatures[t], bench.active,
                    )  # fmt: skip
                    _write(image * sizes.positions + p, sizes, found.mean, bench.active, poses, logits)
    restore(before)


@entry
def normalise(image, t, slot, slots, item_bytes, sizes, variant, inputs, fits, normalisers, memory, peaks, totals):
    """What the log-densities of each child of an image sum up to before iteration t, over all positions it feeds.

    Args:
        image: its number.
        t: at least 1.
        slot, slots, item_bytes, sizes, variant, inputs, fits, memory: as for `forward`; the image's own slot.
        normalisers: receives log(sum exp(log-density)) of each child.
        peaks, totals: [children of an image], work space.
    """
    before = flush_denormals()
    inputs = pointers(inputs)
    bench = bench_at(start(memory), sizes, item_bytes)
    children = sizes.below * sizes.types
    peaks[:] = -np.inf
    totals[:] = 0
    for p in range(sizes.positions):
        known = fit_at(start(fits), ((t - 1) * slots + slot) * sizes.positions + p, sizes)
        prepare(known, t - 1, sizes, variant, inputs, bench)
        for k in range(sizes.looks):
            place = inputs.looks[p * sizes.looks + k]
            base = known.mean
            if sizes.row >= 0:
                locate(known.mean, inputs.coordinates, place, sizes, bench.centre)
                base = bench.centre
            for first in range(0, sizes.types, BLOCK):
                count = min(BLOCK, sizes.types - first)
                child = see(image, place, k, first, count, True, base, sizes, inputs, bench)
                for q in range(count):
                    peak, total = log_sum(bench.couplings, q * sizes.groups * LANES, sizes.groups)
                    _merge(child + q, peak, total, peaks, totals)
    for i in range(children):
        normalisers[((t - 1) * slots + slot) * children + i] = peaks[i] + np.log(totals[i])
    restore(before)


@small
def _merge(i, peak, total, peaks, totals):
    """Add total exp(peak) to totals[i] exp(peaks[i])."""
    if peak > peaks[i]:
        totals[i] = total + totals[i] * np.exp(peaks[i] - peak)
        peaks[i] = peak
    else:
        totals[i] += total * np.exp(peak - peaks[i])


@compiled
def _iterate(image, p, rated, sizes, variant, inputs, known_mean, known_children, found, bench):
    """One iteration at one position.

    Votes are expected where the parents were before, in the first iteration at the mean of a sample. Where a mean turns
    out to lie so far from there that the variance beside it loses digits, the sums are taken again around that mean.
    """
    full = sizes.groups * sizes.elements * LANES
    base = known_mean if rated else bench.slope
    if not rated:
        _sample(image, p, sizes, inputs, base, bench)
    for at in range(0, full, LANES):
        store(bench.shift, at, load(base, at))
    clear(bench.delta, 0, full)
    for _ in range(2):
        _accumulate(image, p, rated, sizes, variant, inputs, base, known_children, bench)
        strayed = fit(
            bench.sums, bench.sums1, bench.sums2, bench.shift, inputs.padding, sizes.groups, sizes.elements,
            variant.floor, variant.epsilon, found.mean, found.rest, found.variance, found.mass, found.half_logs,
        )  # fmt: skip
        if not strayed:
            break
        for at in range(0, full, LANES):
            store(bench.shift, at, load(found.mean, at))
            store(bench.delta, at, load(found.mean, at) - load(base, at))


@compiled
def _sample(image, p, sizes, inputs, mean, bench):
    """The mean of some of the votes, spread over the children."""
    full, children = sizes.groups * sizes.elements * LANES, sizes.looks * sizes.types
    count = min(_SAMPLES, children)
    clear(mean, 0, full)
    for s in range(count):
        i = s * children // count
        place = inputs.looks[p * sizes.looks + i // sizes.types]
        clear(bench.shift, 0, full)
        if sizes.row >= 0:
            locate(bench.shift, inputs.coordinates, place, sizes, bench.centre)
        child = (image * sizes.below + place) * sizes.types + i % sizes.types
        deviate(
            inputs.poses, child * 16, inputs.weights, i % sizes.transforms * sizes.groups * 16 * LANES,
            bench.centre if sizes.row >= 0 else bench.shift, sizes.groups, sizes.elements, bench.deviations,
        )  # fmt: skip
        for at in range(0, full, LANES):
            store(mean, at, load(mean, at) + load(bench.deviations, at))
    share = splat(mean, 1.0 / count)
    for at in range(0, full, LANES):
        store(mean, at, load(mean, at) * share)


@compiled
def _accumulate(image, p, rated, sizes, variant, inputs, mean, known_children, bench):
    """The sums over the children of one position."""
    groups, elements = sizes.groups, sizes.elements
    clear(bench.sums, 0, groups * LANES)
    clear(bench.sums1, 0, groups * elements * LANES)
    clear(bench.sums2, 0, groups * elements * LANES)
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
            scale_rows(bench.couplings, groups, inputs.activations, image * sizes.below * sizes.types + child, count)
            gather(
                bench.deviations, bench.couplings, bench.delta, groups, elements, bench.sums, bench.sums1, bench.sums2
            )


@small
def _write(n, sizes, mean, active, poses, logits):
    """The parents of position n, without the padding."""
    for j in range(sizes.parents):
        g, lane = j // LANES, j % LANES
        logits[n * sizes.parents + j] = active[j]
        for h in range(sizes.elements):
            poses[(n * sizes.parents + j) * sizes.elements + h] = mean[(g * sizes.elements + h) * LANES + lane]
