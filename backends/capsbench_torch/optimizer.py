"""PyTorch's fused optimizers, gradient clipping, and what an optimizer remembers as plain arrays."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from capsbench.backend import Floats
from capsbench.network.training import SGD, Adam, AdamW

STEP_COUNT = "step_count"

# What PyTorch calls the tensors of the contract.
_NAMES = MappingProxyType({
    "first_moment": "exp_avg",
    "second_moment": "exp_avg_sq",
    "velocity": "momentum_buffer",
})  # fmt: skip


def create_optimizer(spec: Adam | AdamW | SGD, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """The optimizer for some parameters, its state empty; the learning rate is set before each step."""
    rate, decay = spec.learning_rate, spec.weight_decay
    match spec:
        case Adam() | AdamW():
            kind = torch.optim.AdamW if isinstance(spec, AdamW) else torch.optim.Adam
            betas = spec.beta1, spec.beta2
            return kind(parameters, lr=rate, betas=betas, eps=spec.epsilon, weight_decay=decay, fused=True)
        case SGD():
            nesterov = spec.nesterov and spec.momentum > 0.0  # without momentum it is the same step
            return torch.optim.SGD(
                parameters, lr=rate, momentum=spec.momentum, nesterov=nesterov, weight_decay=decay, fused=True
            )


def clip(parameters: Iterable[Tensor], norm: float) -> None:
    """Scale the gradients down, in place, so that their norm over all parameters is at most `norm`."""
    gradients = [value.grad for value in parameters if value.grad is not None]
    found = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, norm / found.clamp(min=norm))


def read_state(
    spec: Adam | AdamW | SGD, optimizer: torch.optim.Optimizer, trained: Mapping[str, Tensor]
) -> dict[str, Floats]:
    """The contract's `optimizer_state`; zeros for a parameter that has not been stepped yet."""
    states = {name: optimizer.state.get(value, {}) for name, value in trained.items()}
    read: dict[str, Floats] = {}
    for tensor in spec.state:
        for name, value in trained.items():
            kept = states[name].get(_NAMES[tensor])
            read[f"{tensor}/{name}"] = (torch.zeros_like(value) if kept is None else kept).detach().cpu().numpy().copy()
    if not isinstance(spec, SGD):
        counts = [float(state["step"]) for state in states.values() if state]
        read[STEP_COUNT] = np.array(max(counts, default=0.0))
    return read


def write_state(
    spec: Adam | AdamW | SGD,
    optimizer: torch.optim.Optimizer,
    trained: Mapping[str, Tensor],
    state: Mapping[str, Floats],
) -> None:
    """Go on from a state that `read_state` gave."""
    for name, value in trained.items():
        own = {
            _NAMES[tensor]: torch.empty_like(value).copy_(torch.from_numpy(state[f"{tensor}/{name}"]))
            for tensor in spec.state
        }
        if not isinstance(spec, SGD):
            # The fused kernels count in float32, on the parameters' device.
            own["step"] = torch.tensor(float(state[STEP_COUNT]), dtype=torch.float32, device=value.device)
        optimizer.state[value] = own
