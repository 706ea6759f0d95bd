"""The backend `torch`: PyTorch on CPU and CUDA."""

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from types import MappingProxyType
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import PeakForecast, Precision, Probe, Realization, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.network.parameters import momenta
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import KERNEL_MODES, describe, library_versions
from capsbench_fused.task import task_of, uncovered, uncovered_on_gpu


class TorchBackend:
    """PyTorch, imported only when it is probed or asked for a realization."""

    name = "torch"
    distributions = ("torch",)
    modes: Mapping[str, str] = MappingProxyType(
        {
            "eager": "plain operators, one matrix product per child type, sums as matrix products",
            "tiled": "the published formulation op by op: weights and poses tiled, batched 4x4 products",
            "compile": "the eager formulation through torch.compile",
            "fused": "routing by a kernel that stores no votes: Numba's, or the chunked one without; on CUDA Triton's",
            "chunked": "the fused formulation in NumPy operators, some positions at a time; CPU only",
        }
    )
    compiled_modes = frozenset({"compile"})
    precisions: tuple[Precision, ...] = get_args(Precision)
    parallel_modes = frozenset(modes)

    def environment(self, setting: Setting) -> dict[str, str]:
        """Hide the GPUs from a case that runs on the CPU; keep CUDA's matrix products repeatable."""
        if setting.device == "cpu":
            return {"CUDA_VISIBLE_DEVICES": ""}
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

    def probe(self) -> Probe:
        """PyTorch's devices, and the versions of what computes."""
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        versions = {"torch": str(torch.__version__), **library_versions()}
        if count:
            versions["cuda"] = str(torch.version.cuda)
        return Probe(versions, ("cpu", *(f"cuda:{index}" for index in range(count))))

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:
        """Kernels do not cover every variant of routing, nor mixed precision; all other modes realize every network."""
        reason = uncovered(bound.network.routing)
        if setting.devices > 1 and setting.mode == "compile" and momenta(bound):
            return "compile cannot take a batch's statistics over several devices; eager, tiled and fused can"
        if setting.mode not in KERNEL_MODES:
            return None
        if setting.mixed:
            return f"{setting.mode} has no kernel for {setting.precision}; eager, tiled and compile run in it"
        if setting.device == "cpu" or reason is not None:
            return reason
        if setting.mode == "chunked":
            return "chunked runs on the CPU only; fused has kernels for CUDA"
        if find_spec("triton") is None:
            return "fused needs Triton on CUDA, which comes with PyTorch's CUDA builds; eager and tiled do not"
        tasks = (task_of(bound, layer) for layer in bound.layers if layer.routing is not None)
        return next(filter(None, map(uncovered_on_gpu, tasks)), None)

    def notes(self, bound: BoundNetwork, setting: Setting) -> tuple[str, ...]:
        """Which kernel routes, in the modes that have a choice."""
        if setting.mode not in KERNEL_MODES or bound.network.routing is None:
            return ()
        if setting.device != "cpu":
            return (f"{setting.mode}: routed by Triton {version('triton')}",)
        return (describe(setting.mode),)

    def ceilings(self, setting: Setting) -> Ceilings:
        """See `ceilings`."""
        from capsbench_torch.ceilings import measure_ceilings

        return measure_ceilings(setting)

    def forecast_peak(self, bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
        """See `forecast`; None for compiled modes, whose fusions only the compiler knows."""
        from capsbench_torch.forecast import forecast_peak

        return forecast_peak(bound, setting, batch)

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> Realization:
        """Build the network in PyTorch."""
        if setting.devices > 1:
            from capsbench_torch.parallel import ParallelRealization

            return ParallelRealization(bound, parameters, setting)
        from capsbench_torch.training import TorchRealization

        return TorchRealization(bound, parameters, setting)


BACKEND = TorchBackend()
