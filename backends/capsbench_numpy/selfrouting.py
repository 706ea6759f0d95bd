"""Self-routing as it is defined (Hahn, Pyeon, Kim, NeurIPS 2019), on real or complex arrays (see `routing`).

Shapes: b images, p positions, i children, j parents, k elements of a child, h elements of a parent.
"""

import numpy as np

from capsbench.network.layers import SelfRoutedCapsules
from capsbench.network.patches import margins, patch_places
from capsbench.network.routing import SelfRouting
from capsbench_numpy.routing import Array, Observer, log_sigmoid, log_softmax


def of_maps(maps: Array, capsules: int) -> tuple[Array, Array]:
    """Poses [b, h, w, capsules, k] and activations [b, h, w, capsules] that lie in maps [b, h, w, channels]."""
    poses, logits = maps[..., :-capsules], maps[..., -capsules:]
    return poses.reshape(*maps.shape[:3], capsules, -1), np.exp(log_sigmoid(logits))


def patches(poses: Array, activations: Array, spec: SelfRoutedCapsules) -> tuple[Array, Array]:
    """Children [b, p, i, k] under each window, i = (row, column, capsule), and their activations [b, p, i].

    Around the maps stand children that are zero, pose and activation.
    """
    edges = ((0, 0), *(margins(spec.padding, side, spec.kernel, spec.stride) for side in poses.shape[1:3]), (0, 0))
    poses, activations = np.pad(poses, (*edges, (0, 0))), np.pad(activations, edges)
    batch, height, width, types, elements = poses.shape
    places = patch_places(height, width, spec.kernel, spec.stride)
    children = poses.reshape(batch, height * width, types, elements)[:, places]
    active = activations.reshape(batch, height * width, types)[:, places]
    return children.reshape(batch, len(places), -1, elements), active.reshape(batch, len(places), -1)


def vote(children: Array, transforms: Array) -> Array:
    """Votes u_i W_ij [b, p, i, j, h] of children [b, p, i, k] by transforms [i, j, k, h]."""
    votes: Array = (children[:, :, :, None, None, :] @ transforms)[..., 0, :]
    return votes


def choose(children: Array, weights: Array, biases: Array) -> Array:
    """Logarithms of the couplings [b, p, i, j] that children [b, p, i, k] choose: weights [i, k, j], biases [i, j]."""
    return log_softmax((children[..., None, :] @ weights)[..., 0, :] + biases)


def gather(
    votes: Array, log_couplings: Array, activations: Array, routing: SelfRouting, observe: Observer | None = None
) -> tuple[Array, Array]:
    """Poses [b, p, j, h] and activations [b, p, j] of the parents.

    Args:
        votes: [b, p, i, j, h].
        log_couplings: [b, p, i, j], as `choose` gives them.
        activations: [b, p, i], of the children.
        routing: the variant.
        observe: is shown how routing goes.
    """
    couplings = np.exp(log_couplings)
    assigned = couplings * activations[..., None]
    mass = assigned.sum(2)
    weights = (assigned / (mass[:, :, None] + routing.epsilon))[..., None]
    poses: Array = (weights * votes).sum(2)
    if observe is not None:
        observe(couplings, mass, (weights * (votes - poses[:, :, None]) ** 2).sum(2))
    return poses, mass / (activations.sum(2)[..., None] + routing.epsilon)


def classify(log_couplings: Array, activations: Array, observe: Observer | None = None) -> Array:
    """Logarithms of the activations [b, p, j] of parents without poses, for children that are active [b, p, i].

    The largest coupling of each parent is taken out of its sum, which then holds at least one child's activation as
    it is, and cannot underflow.
    """
    largest = log_couplings.real.max(2, keepdims=True)
    total = (np.exp(log_couplings - largest) * activations[..., None]).sum(2)
    if observe is not None:
        couplings = np.exp(log_couplings)
        mass = (couplings * activations[..., None]).sum(2)
        observe(couplings, mass, np.zeros((*mass.shape, 0)))
    logs: Array = np.log(total) + largest[:, :, 0] - np.log(activations.sum(2))[..., None]
    return logs
