"""A network that runs in PyTorch: forward, loss and gradients, train steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from capsbench.backend import Floats, LayerState, MemoryUse, Output, Setting, Step
from capsbench.measure.steptrace import StepTrace
from capsbench.network.parameters import momenta, parameter_specs
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import KERNEL_MODES
from capsbench_torch import profiling
from capsbench_torch.fused import fused
from capsbench_torch.inspection import inspect
from capsbench_torch.layers import Context, Signal, constants, null_scope, run
from capsbench_torch.maps import Statistics
from capsbench_torch.objective import loss
from capsbench_torch.optimizer import clip, create_optimizer, read_state, write_state
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
            name: self._leaf(torch.tensor(value, dtype=self._dtype, device=self._device), trainable=name in trainable)
            for name, value in parameters.items()
        }
        self._trained = {name: value for name, value in self._parameters.items() if name in trainable}
        self._momentum = momenta(bound)
        self._tiled = setting.mode == "tiled"
        engine = setting.mode if setting.mode in KERNEL_MODES else None
        self._kernels = fused(bound, engine, setting.threads, self._device) if engine else {}
        self._indices = constants(bound, self._device, self._dtype)
        self._mixed = setting.mixed
        self._recipe = bound.network.recipe
        self._optimizer = create_optimizer(self._recipe.optimizer, list(self._trained.values()))
        self._compiled = setting.mode == "compile"
        if self._compiled:
            # After eight graphs of one function PyTorch compiles it no more, and those of other networks count.
            torch.compiler.reset()
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
        with profiling.memory_errors():
            return self._output(placed, null_scope)

    def loss_and_gradients(self, placed: Placed, step: Step) -> tuple[float, dict[str, Floats]]:
        """Training loss and its gradient for every trainable parameter; changes nothing."""
        with profiling.memory_errors():
            total, _ = self._loss_of(placed.images, placed.labels, placed.masks, self._scalar(step.margin), null_scope)
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

    def optimizer_state(self) -> dict[str, Floats]:
        """What the optimizer remembers; see the contract."""
        return read_state(self._recipe.optimizer, self._optimizer, self._trained)

    def restore(self, parameters: Mapping[str, Floats], optimizer_state: Mapping[str, Floats]) -> None:
        """Go on where another realization stood; see the contract."""
        with torch.no_grad():
            for name, value in self._parameters.items():
                value.copy_(torch.from_numpy(parameters[name]))
            write_state(self._recipe.optimizer, self._optimizer, self._trained, optimizer_state)

    def memory(self, placed: Placed, step: Step) -> MemoryUse:
        """Peak and allocated bytes of one train step; see the contract."""
        self._drop_gradients()
        with profiling.memory_errors():
            return profiling.memory(lambda: self._step(placed, step, null_scope), self._device, self._resident(placed))

    def profile(self, placed: Placed, step: Step | None) -> StepTrace:
        """One train step under PyTorch's profiler; without a step, one evaluation."""
        if step is not None:
            self._drop_gradients()
        run = partial(self._output, placed) if step is None else partial(self._step, placed, step)
        with profiling.memory_errors():
            return profiling.trace(run, self._device, self._resident(placed))

    def inspect(self, placed: Placed, *, votes: bool = False) -> dict[str, LayerState]:
        """What each layer gives out at evaluation; compiled, it is that of the formulation that was compiled.

        Beside a kernel, plain operators route the same children once more, to have votes and couplings to show.
        """
        with profiling.memory_errors(), torch.no_grad():
            return inspect(
                self._bound,
                self._parameters,
                self._indices,
                placed.images,
                tiled=self._tiled,
                kernels=self._kernels,
                votes=votes,
                mixed=self._mixed,
            )

    def _step(self, placed: Placed, step: Step, scope: Scope) -> Tensor:
        with scope("phase::optimizer"):
            self._optimizer.zero_grad(set_to_none=True)
        with scope("phase::forward"):
            margin = self._scalar(step.margin)
            total, statistics = self._loss_of(placed.images, placed.labels, placed.masks, margin, self._inner(scope))
        with scope("phase::backward"):
            total.backward()
        with scope("phase::optimizer"), torch.no_grad():
            for group in self._optimizer.param_groups:
                group["lr"] = step.learning_rate
            if self._recipe.clip_norm:
                clip(self._trained.values(), self._recipe.clip_norm)
            self._optimizer.step()
            for name, value in statistics.items():
                self._parameters[name].lerp_(value, 1.0 - self._momentum[name.partition(".")[0]])
            return total.detach()

    def _output(self, placed: Placed, scope: Scope) -> Output:
        with scope("phase::forward"), torch.no_grad():
            signal = self._evaluate(placed.images, self._inner(scope))
            poses = signal.values if signal.values.ndim == 3 else None
            return Output(_array(signal.scores), _array(signal.activations), None if poses is None else _array(poses))

    def _inner(self, scope: Scope) -> Scope:
        """The scope for what runs within a phase: none in a compiled graph, which would have to be compiled anew."""
        return null_scope if self._compiled else scope

    def _loss(
        self, images: Tensor, labels: Tensor, masks: dict[str, Tensor], margin: Tensor, scope: Scope
    ) -> tuple[Tensor, dict[str, Tensor]]:
        context = Context(
            self._bound,
            self._tiled,
            self._indices,
            scope,
            self._kernels,
            mixed=self._mixed,
            statistics=self._statistics,
        )
        output, statistics = run(context, self._parameters, images, masks)
        total = loss(self._bound, self._parameters, output, images, labels, margin, scope, mixed=self._mixed)
        return total, statistics

    def _forward(self, images: Tensor, scope: Scope) -> Signal:
        context = Context(self._bound, self._tiled, self._indices, scope, self._kernels, mixed=self._mixed)
        return run(context, self._parameters, images, None)[0]

    def _leaf(self, value: Tensor, *, trainable: bool) -> Tensor:
        """A tensor as a parameter of the network."""
        return value.requires_grad_(trainable)

    def _statistics(self) -> Statistics:
        """Where the statistics of a batch are put."""
        return Statistics()

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self._dtype, device=self._device)

    def _drop_gradients(self) -> None:
        """Release the gradients of the step before, which a profiler could not see being released."""
        self._optimizer.zero_grad(set_to_none=True)

    def _resident(self, placed: Placed) -> dict[str, int]:
        """Bytes that outlive a step, by what they are."""
        states = [value for state in self._optimizer.state.values() for value in state.values()]
        return profiling.resident_bytes(
            {
                "parameters": self._parameters.values(),
                "gradients": [value.grad for value in self._trained.values() if value.grad is not None],
                "optimizer state": [value for value in states if isinstance(value, Tensor)],
                "batch": [placed.images, placed.labels, *placed.masks.values()],
                "constants": self._indices.values(),
            }
        )


def _array(value: Tensor | None) -> Floats:
    assert value is not None  # noqa: S101 - the last layer gives scores and activations
    array: Floats = value.detach().cpu().numpy().copy()
    return array
