"""The backend `torch`: PyTorch on CPU and CUDA."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Probe, Realization, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.network.shapes import BoundNetwork


class TorchBackend:
    """PyTorch, imported only when it is probed or asked for a realization."""

    name = "torch"
    distributions = ("torch",)
    modes: Mapping[str, str] = MappingProxyType(
        {
            "eager": "plain operators, one matrix product per child type, sums as matrix products",
            "tiled": "the published formulation op by op: weights and poses tiled, batched 4x4 products",
            "compile": "the eager formulation through torch.compile",
        }
    )
    compiled_modes = frozenset({"compile"})

    def environment(self, setting: Setting) -> dict[str, str]:
        """Hide the GPUs from a case that runs on the CPU; keep CUDA's matrix products repeatable."""
        if setting.device == "cpu":
            return {"CUDA_VISIBLE_DEVICES": ""}
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}

    def probe(self) -> Probe:
        """PyTorch's version and devices."""
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        versions = {"torch": str(torch.__version__)}
        if count:
            versions["cuda"] = str(torch.version.cuda)
        return Probe(versions, ("cpu", *(f"cuda:{index}" for index in range(count))))

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:  # noqa: ARG002 - the contract passes it
        """Every mode realizes every network."""
        return None

    def ceilings(self, setting: Setting) -> Ceilings:
        """See `ceilings`."""
        from capsbench_torch.ceilings import measure_ceilings

        return measure_ceilings(setting)

    def forecast_peak_bytes(self, bound: BoundNetwork, setting: Setting, batch: int) -> int | None:
        """See `forecast`; None for compiled modes, whose fusions only the compiler knows."""
        from capsbench_torch.forecast import forecast_peak_bytes

        return forecast_peak_bytes(bound, setting, batch)

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> Realization:
        """Build the network in PyTorch."""
        from capsbench_torch.training import TorchRealization

        return TorchRealization(bound, parameters, setting)


BACKEND = TorchBackend()
