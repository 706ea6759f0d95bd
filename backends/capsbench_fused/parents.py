"""What a pass does with the parents of one position: from sums over children to Gaussians and activations, and back.

Hinton, Sabour, Frosst, "Matrix capsules with EM routing", ICLR 2018, procedure 1; the symbols of the backward half are
those of docs/fused-routing.md. All arrays are flat: [groups, LANES] for a number a parent, [groups, elements, LANES]
for one an element of its pose. `padding` is 1 in lanes that hold no parent and 0 elsewhere.
"""

from capsbench_fused.compiling import compiled, small
from capsbench_fused.vec import LANES, exp, largest, largest_of, load, log, splat, store, total_of
from capsbench_fused.votes import log_sum

# A mean that strays from where it was looked for costs the variance digits: (distance / deviation)^2 roundings.
STRAY = 16.0
NEVER = -1e38  # a logit that no child follows, and that float32 can hold


@compiled
def fit(sums, sums1, sums2, shift, padding, groups, elements, floor, epsilon, mean, rest, variance, mass, half_logs):
    """The Gaussian of each parent from sums of its votes' deviations from `shift`; whether any mean strayed too far.

    mean = sum rho V / (S + epsilon) and variance = sum rho (V - mean)^2 / (S + epsilon) + floor, S = sum rho.

    Args:
        sums, sums1, sums2: sum over the children of rho, rho (V - shift), rho (V - shift)^2.
        shift: where the votes were expected.
        padding: see above.
        groups, elements: sizes.
        floor: of the variance.
        epsilon: added to the mass that is divided by.
        mean, rest, variance, mass, half_logs: receive the fit. The rest is sum rho (V - mean): epsilon of the mean,
            and how the mean was rounded. Gradients that cancel, as where a parent has one child, do so to the last
            digit only if it is what the deviations really sum up to. The last is sum_h log(variance) / 2.
    """
    zero, one = splat(sums, 0), splat(sums, 1)
    half, two = splat(sums, 0.5), splat(sums, 2)
    tolerance, floor_, epsilon_ = splat(sums, STRAY), splat(sums, floor), splat(sums, epsilon)
    worst = -one
    for g in range(groups):
        s0, absent = load(sums, g * LANES), load(padding, g * LANES)
        scale = one / (s0 + epsilon_)
        logs, odd = zero, zero
        for at in range(g * elements * LANES, (g + 1) * elements * LANES, LANES):
            s1, there = load(sums1, at), load(shift, at)
            centre = (s1 + there * s0) * scale
            distance = centre - there
            moved = distance * (two * s1 - distance * s0)
            spread = largest(zero, load(sums2, at) - moved) * scale
            width = spread + floor_ + absent
            store(mean, at, centre)
            store(rest, at, s1 - distance * s0)
            store(variance, at, width)
            logs, odd = odd + log(width), logs  # two sums in turns, for half the rounding
            worst = largest(worst, distance * distance * s0 * scale - tolerance * width)
        store(mass, g * LANES, s0)
        store(half_logs, g * LANES, half * (logs + odd))
    return largest_of(worst) > 0


@small
def activate(mass, half_logs, beta_u, beta_a, groups, factor, temperature, logits):
    """Logits = temperature (beta_a - factor S (beta_u + sum_h log(variance) / 2)); beta_u summed over the elements."""
    for at in range(0, groups * LANES, LANES):
        cost = load(mass, at) * (load(beta_u, at) + load(half_logs, at)) * splat(mass, factor)
        store(logits, at, (load(beta_a, at) - cost) * splat(mass, temperature))


@compiled
def expect(variance, half_logs, active, padding, groups, elements, softmax, precision, offsets):
    """What the E-step weighs votes by: precision = 1 / (2 variance), offsets = log activation - half_logs.

    Args:
        variance, half_logs: of the fit.
        active: what the activation is taken of: a softmax over the parents, or a sigmoid of each.
        padding: see above.
        groups, elements: sizes.
        softmax: whether.
        precision, offsets: receive the results; a lane without a parent gets an offset that no coupling survives.
    """
    zero, half = splat(variance, 0), splat(variance, 0.5)
    one, never = splat(variance, 1), splat(variance, NEVER)
    for at in range(0, groups * elements * LANES, LANES):
        store(precision, at, half / load(variance, at))
    for at in range(0, groups * LANES, LANES):
        z = load(active, at)
        if not softmax:
            negative = -largest(zero, -z)
            z = negative - log(one + exp(negative + negative - z))
        store(offsets, at, z + never * load(padding, at))
    peak, total = log_sum(offsets, 0, groups)
    shift = splat(offsets, peak) + log(splat(offsets, total))
    for at in range(0, groups * LANES, LANES):
        value = load(offsets, at)
        store(offsets, at, (value - shift if softmax else value) - load(half_logs, at))


@compiled
def onto_fit(sums, sums1, sums2, variance, active, padding, groups, elements, softmax, to_mean, to_variance, to_active):
    """Gradients of a fit from those of the log-densities under it.

    Args:
        sums, sums1, sums2: sum over the children of g, g D, g D^2, with the gradient g of a log-density and the
            deviation D from the fit's mean.
        variance, active, padding, groups, elements, softmax: as for `expect`.
        to_mean, to_variance, to_active: receive the gradients.
    """
    zero, half = splat(variance, 0), splat(variance, 0.5)
    one, never = splat(variance, 1), splat(variance, NEVER)
    whole = zero
    for g in range(groups):
        density = load(sums, g * LANES)
        whole += density
        for at in range(g * elements * LANES, (g + 1) * elements * LANES, LANES):
            inverse = one / load(variance, at)
            store(to_mean, at, load(sums1, at) * inverse)
            store(to_variance, at, half * (load(sums2, at) * inverse - density) * inverse)
        z = load(active, g * LANES)
        if softmax:
            store(to_active, g * LANES, z + never * load(padding, g * LANES))
        else:
            negative = -largest(zero, z)
            store(to_active, g * LANES, density * exp(negative) / (one + exp(negative + negative + z)))
    if softmax:
        peak, total = log_sum(to_active, 0, groups)
        share = splat(variance, total_of(whole) / total)
        for at in range(0, groups * LANES, LANES):
            active_share = share * exp(load(to_active, at) - splat(to_active, peak))
            store(to_active, at, load(sums, at) - active_share)


@compiled
def onto_votes(
    rest,
    variance,
    mass,
    half_logs,
    beta_u,
    groups,
    elements,
    factor,
    temperature,
    floor,
    epsilon,
    to_mean,
    to_variance,
    to_logits,
    to_mass,
    level,
    slope,
    curve,
    to_beta_u,
    to_beta_a,
):
    """From gradients of a fit and its activation to those of the weights: grho = level + sum_h D (slope + curve D).

    Args:
        rest, variance, mass, half_logs: of the fit.
        beta_u, groups, elements, factor, temperature, floor, epsilon: as for `fit` and `activate`.
        to_mean, to_variance, to_logits, to_mass: the gradients.
        level, slope, curve: receive the coefficients; D is a vote's deviation from the mean.
        to_beta_u, to_beta_a: grow by the gradients of the parents' offsets.
    """
    zero, one = splat(rest, 0), splat(rest, 1)
    half, two, floor_ = splat(rest, 0.5), splat(rest, 2), splat(rest, floor)
    for g in range(groups):
        at = g * LANES
        s0, upstream = load(mass, at), load(to_logits, at) * splat(rest, temperature)
        to_cost = -upstream * splat(rest, factor)
        store(to_beta_a, at, load(to_beta_a, at) + upstream)
        store(to_beta_u, at, load(to_beta_u, at) + to_cost * s0)
        scale = one / (s0 + splat(rest, epsilon))
        spent = zero
        for h in range(g * elements * LANES, (g + 1) * elements * LANES, LANES):
            width = load(variance, h)
            along = load(to_variance, h) + half * to_cost * s0 / width
            store(slope, h, (load(to_mean, h) - two * along * load(rest, h) * scale) * scale)
            store(curve, h, along * scale)
            spent += along * scale * (width - floor_)
        store(level, at, load(to_mass, at) + to_cost * (load(beta_u, at) + load(half_logs, at)) - spent)
