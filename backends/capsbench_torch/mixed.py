"""Mixed precision by PyTorch's own means: which products autocast may round to bfloat16, and what never is.

Autocast rounds the factors of convolutions and matrix products and leaves their results in bfloat16; what is done to
those results element by element stays in it. What the contract keeps in float32 is therefore widened first. Autocast is
on around single layers, votes and the decoder, not around a pass: routing is not to be rounded, and a backward pass
that torch.compile traces takes over what is on where its graph begins.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

Vote = Callable[[Tensor, Tensor], Tensor]


def products(device: torch.device, *, mixed: bool) -> AbstractContextManager[object]:
    """Within it, convolutions and matrix products are those of bfloat16, where the setting is mixed."""
    return torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext()


def wide(values: Tensor) -> Tensor:
    """The values in float32 where they are in bfloat16, else as they are."""
    return values.float() if values.dtype == torch.bfloat16 else values


def casting(vote: Vote, *, mixed: bool) -> Vote:
    """What casts votes from poses and transforms: by products in bfloat16 where the setting is mixed, always wide."""
    if not mixed:
        return vote

    def cast(poses: Tensor, transforms: Tensor) -> Tensor:
        with products(poses.device, mixed=True):
            return wide(vote(poses, transforms))

    return cast
