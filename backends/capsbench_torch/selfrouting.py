"""Self-routing in PyTorch, in two formulations (`capsbench_numpy.selfrouting` is the definition).

`tiled` is what published code does: the matrices of all children tiled over the positions of all images, one product a
child and position, and every sum an operator on a tensor of the votes' size. `grouped` multiplies once per child and
keeps the votes as [n, j, i, h], so that sums over children are batched matrix products.

Shapes: n positions of all images, i children, j parents, k elements of a child, h elements of a parent.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from capsbench.network.layers import SelfRoutedCapsules
from capsbench.network.patches import margins
from capsbench.network.routing import SelfRouting
from capsbench_torch.mixed import wide
from capsbench_torch.routing import Observer

# Products [n, i, m] of children [n, i, k] with matrices [i, k, m].
Products = Callable[[Tensor, Tensor], Tensor]


def of_maps(maps: Tensor, capsules: int) -> tuple[Tensor, Tensor]:
    """Poses [b, h, w, capsules, k] and activations [b, h, w, capsules] that lie in maps [b, channels, h, w]."""
    poses, logits = wide(maps).permute(0, 2, 3, 1).split((maps.shape[1] - capsules, capsules), 3)
    return poses.reshape(*poses.shape[:3], capsules, -1), logits.sigmoid()


def padding(spec: SelfRoutedCapsules, height: int, width: int) -> tuple[int, int, int, int]:
    """Places of zeros left and right of the maps, above and below them."""
    rows, columns = (margins(spec.padding, side, spec.kernel, spec.stride) for side in (height, width))
    return *columns, *rows


def patches(poses: Tensor, activations: Tensor, places: Tensor, spec: SelfRoutedCapsules) -> tuple[Tensor, Tensor]:
    """Children [n, i, k] and their activations [n, i] at the `places` [p * kernel * kernel] of padded maps."""
    batch, height, width, types, elements = poses.shape
    around = padding(spec, height, width)
    if any(around):
        poses = functional.pad(poses, (0, 0, 0, 0, *around))
        activations = functional.pad(activations, (0, 0, *around))
    poses = poses.reshape(batch, -1, types * elements).index_select(1, places)
    activations = activations.reshape(batch, -1, types).index_select(1, places)
    children = spec.kernel**2 * types
    return poses.view(-1, children, elements), activations.view(-1, children)


def products_tiled(children: Tensor, matrices: Tensor) -> Tensor:
    """One product a child and position, with matrices tiled over the positions."""
    return torch.matmul(children[:, :, None], matrices.repeat(len(children), 1, 1, 1))[:, :, 0]


def products_grouped(children: Tensor, matrices: Tensor) -> Tensor:
    """One matrix product a child."""
    return torch.bmm(children.transpose(0, 1), matrices).transpose(0, 1)


def vote_tiled(children: Tensor, transforms: Tensor) -> Tensor:
    """Votes [n, i, j, h] of children [n, i, k] by transforms [i, j, k, h]."""
    i, j, k, h = transforms.shape
    return products_tiled(children, transforms.transpose(1, 2).reshape(i, k, j * h)).view(-1, i, j, h)


def vote_grouped(children: Tensor, transforms: Tensor) -> Tensor:
    """Votes [n, j, i, h] of children [n, i, k] by transforms [i, j, k, h]."""
    i, j, k, h = transforms.shape
    votes = products_grouped(children, transforms.transpose(1, 2).reshape(i, k, j * h))
    return votes.unflatten(2, (j, h)).transpose(1, 2).contiguous()


def gather_tiled(
    votes: Tensor, logits: Tensor, activations: Tensor, routing: SelfRouting, observe: Observer | None = None
) -> tuple[Tensor, Tensor]:
    """Poses [n, j, h] and activations [n, j] of the parents.

    Args:
        votes: [n, i, j, h].
        logits: [n, i, j], what the couplings are the softmax of.
        activations: [n, i], of the children.
        routing: the variant.
        observe: is shown how routing goes.
    """
    couplings = logits.softmax(2)
    assigned = couplings * activations[..., None]
    mass = assigned.sum(1, keepdim=True)
    weights = (assigned / (mass + routing.epsilon))[..., None]
    poses = (weights * votes).sum(1)
    if observe is not None:
        observe(couplings, mass[:, 0], (weights * (votes - poses[:, None]).square()).sum(1))
    return poses, mass[:, 0] / (activations.sum(1, keepdim=True) + routing.epsilon)


def gather_grouped(
    votes: Tensor, logits: Tensor, activations: Tensor, routing: SelfRouting, observe: Observer | None = None
) -> tuple[Tensor, Tensor]:
    """As `gather_tiled`, from votes [n, j, i, h]."""
    n, j, i, h = votes.shape
    couplings = logits.transpose(1, 2).contiguous().softmax(1)
    assigned = couplings * activations[:, None]
    mass = assigned.sum(2)
    weights = (assigned / (mass[..., None] + routing.epsilon)).view(n * j, 1, i)
    poses = torch.bmm(weights, votes.view(n * j, i, h)).view(n, j, h)
    if observe is not None:
        squares = (votes - poses[:, :, None]).square()
        variance = torch.bmm(weights, squares.view(n * j, i, h)).view(n, j, h)
        observe(couplings.transpose(1, 2), mass, variance)
    return poses, mass / (activations.sum(1, keepdim=True) + routing.epsilon)


def classify(logits: Tensor, activations: Tensor, observe: Observer | None = None) -> Tensor:
    """Logarithms of the activations [n, j] of parents without poses; for the rest see `gather_tiled`.

    The largest coupling of each parent is taken out of its sum, which then cannot underflow.
    """
    logs = logits.log_softmax(2)
    largest = logs.detach().amax(1, keepdim=True)
    total = ((logs - largest).exp() * activations[..., None]).sum(1)
    if observe is not None:
        couplings = logs.exp()
        mass = (couplings * activations[..., None]).sum(1)
        observe(couplings, mass, mass.new_zeros(*mass.shape, 0))
    return total.log() + largest[:, 0] - activations.sum(1, keepdim=True).log()
