"""A network that runs in PyTorch: forward, loss and gradients, train steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capsbench.backend import Floats, Output, Setting, Step
from capsbench.measure.optable import StepProfile
from capsbench.network.layers import BatchNorm
from capsbench.network.parameters import parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench.network.training import SGD, Adam
from capsbench_torch import profiling
from capsbench_torch.layers import Context, Signal, constants, null_scope, run
from capsbench_torch.objective import loss
from capsbench_torch.routing import Scope


@dataclass(frozen=True, slots=True)
class Placed:
    """A batch on the device: images [b, c, h, w], labels [b], dropout masks [b, units] by layer."""

    images: Tensor
    labels: Tensor
    masks: dict[str, Tensor]


class TorchRealization:
    """A network with its parameters and optimizer on one device."""

    def __init__(self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        # TF32 would round every product to 10 bits: parity comes before speed.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._bound = bound
        self._device = torch.device(setting.device)
        self._dtype = torch.float64 if setting.precision == "float64" else torch.float32
        trainable = {spec.name for spec in parameter_specs(bound) if spec.trainable}
        self._parameters = {
            name: torch.tensor(value, dtype=self._dtype, device=self._device).requires_grad_(name in trainable)
            for name, value in parameters.items()
        }
        self._trained = {name: value for name, value in self._parameters.items() if name in trainable}
        self._momentum = {
            layer.layer.name: layer.layer.momentum for layer in bound.layers if isinstance(layer.layer, BatchNorm)
        }
        self._tiled = setting.mode == "tiled"
        self._indices = constants(bound, self._device, self._dtype)
        self._optimizer = _optimizer(bound, list(self._trained.values()))
        self._compiled = setting.mode == "compile"
        self._loss_of = torch.compile(self._loss, dynamic=False) if self._compiled else self._loss
        self._evaluate = torch.compile(self._forward, dynamic=False) if self._compiled else self._forward

    def place(
        self, images: NDArray[np.float32], labels: NDArray[np.int64], masks: Mapping[str, NDArray[np.float32]]
    ) -> Placed:
        """Put a batch on the device; see the contract."""
        maps = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return Placed(
            maps.to(self._device, self._dtype),
            torch.from_numpy(labels).to(self._device),
            {name: torch.from_numpy(mask).to(self._device, self._dtype) for name, mask in masks.items()},
        )

    def forward(self, placed: Placed) -> Output:
        """Evaluate the batch: no dropout, moving statistics."""
        with profiling.memory_errors(), torch.no_grad():
            signal = self._evaluate(placed.images)
            poses = signal.values if signal.values.ndim == 3 else None
            return Output(_array(signal.scores), _array(signal.activations), None if poses is None else _array(poses))

    def loss_and_gradients(self, placed: Placed, step: Step) -> tuple[float, dict[str, Floats]]:
        """Training loss and its gradient for every trainable parameter; changes nothing."""
        with profiling.memory_errors():
            total, _ = self._loss_of(placed.images, placed.labels, placed.masks, self._scalar(step.margin))
            gradients = torch.autograd.grad(total, list(self._trained.values()), allow_unused=True)
            pairs = zip(self._trained.items(), gradients, strict=True)
            return total.item(), {name: _array(torch.zeros_like(p) if g is None else g) for (name, p), g in pairs}

    def train_step(self, placed: Placed, step: Step) -> Tensor:
        """One optimizer step; the loss before it, still on the device."""
        with profiling.memory_errors():
            return self._step(placed, step, null_scope)

    def synchronize(self) -> None:
        """Wait for the device; the CPU never runs ahead."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def parameters(self) -> dict[str, Floats]:
        """Every parameter and moving statistic, as they are now."""
        return {name: _array(value) for name, value in self._parameters.items()}

    def peak_bytes(self, placed: Placed, step: Step) -> int:
        """The most bytes alive during one train step, what was alive before it included."""
        self.train_step(placed, step)
        self.synchronize()
        # The profiler does not see the release of what was made before it started, so nothing of that kind may be left.
        self._optimizer.zero_grad(set_to_none=True)
        with profiling.memory_errors():
            return profiling.peak_bytes(lambda: self.train_step(placed, step), self._device, self._alive(placed))

    def profile(self, placed: Placed, step: Step) -> StepProfile:
        """One train step under PyTorch's profiler, after one without."""
        self.train_step(placed, step)
        self.synchronize()
        with profiling.memory_errors():
            return profiling.profile(lambda scope: self._step(placed, step, scope), self._device)

    def _step(self, placed: Placed, step: Step, scope: Scope) -> Tensor:
        with scope("phase::optimizer"):
            self._optimizer.zero_grad(set_to_none=True)
        with scope("phase::forward"):
            margin = self._scalar(step.margin)
            if self._compiled or scope is null_scope:
                total, statistics = self._loss_of(placed.images, placed.labels, placed.masks, margin)
            else:
                total, statistics = self._loss(placed.images, placed.labels, placed.masks, margin, scope)
        with scope("phase::backward"):
            total.backward()
        with scope("phase::optimizer"), torch.no_grad():
            for group in self._optimizer.param_groups:
                group["lr"] = step.learning_rate
            self._optimizer.step()
            for name, value in statistics.items():
                self._parameters[name].lerp_(value, 1.0 - self._momentum[name.partition(".")[0]])
        return total.detach()

    def _loss(
        self, images: Tensor, labels: Tensor, masks: dict[str, Tensor], margin: Tensor, scope: Scope = null_scope
    ) -> tuple[Tensor, dict[str, Tensor]]:
        context = Context(self._bound, self._tiled, self._indices, scope)
        output, statistics = run(context, self._parameters, images, masks)
        with scope("layer::loss"):
            return loss(self._bound, self._parameters, output, images, labels, margin), statistics

    def _forward(self, images: Tensor) -> Signal:
        context = Context(self._bound, self._tiled, self._indices, null_scope)
        return run(context, self._parameters, images, None)[0]

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self._dtype, device=self._device)

    def _alive(self, placed: Placed) -> list[Tensor]:
        """Tensors that outlive a step: parameters, gradients, optimizer state, constants, the batch."""
        tensors = [*self._parameters.values(), *self._indices.values(), placed.images, placed.labels]
        tensors += placed.masks.values()
        tensors += [value.grad for value in self._trained.values() if value.grad is not None]
        states = (state for state in self._optimizer.state.values())
        return tensors + [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _optimizer(bound: BoundNetwork, parameters: list[Tensor]) -> torch.optim.Optimizer:
    match bound.network.recipe.optimizer:
        case Adam() as adam:
            return torch.optim.Adam(
                parameters,
                lr=adam.learning_rate,
                betas=(adam.beta1, adam.beta2),
                eps=adam.epsilon,
                weight_decay=adam.weight_decay,
                fused=True,
            )
        case SGD() as sgd:
            return torch.optim.SGD(
                parameters, lr=sgd.learning_rate, momentum=sgd.momentum, weight_decay=sgd.weight_decay, fused=True
            )


def _array(value: Tensor | None) -> Floats:
    assert value is not None  # noqa: S101 - the last layer gives scores and activations
    array: Floats = value.detach().cpu().numpy().copy()
    return array
