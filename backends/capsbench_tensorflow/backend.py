"""What capsbench discovers: TensorFlow's modes and devices. Importing this imports no TensorFlow."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import PeakForecast, Precision, Probe, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.network.shapes import BoundNetwork
from capsbench_fused.engine import KERNEL_MODES, describe, library_versions
from capsbench_fused.task import uncovered
from capsbench_tensorflow.forecast import forecast_peak

if TYPE_CHECKING:
    from capsbench_tensorflow.training import TensorFlowRealization

MODES = MappingProxyType(
    {
        "graph": "tf.function; votes by one matrix product a child type, sums over children as batched products",
        "tiled": "tf.function; the 2018 formulation op by op: tiled poses and transforms, 4x4 products, Mul and Sum",
        "xla": "the graph mode compiled by XLA (jit_compile)",
        "fused": "routing by a kernel that stores no votes: Numba's, or the chunked one without; CPU only",
        "chunked": "the fused formulation in NumPy operators, some positions at a time; CPU only",
    }
)


class TensorFlowBackend:
    """TensorFlow 2, as the contract in `capsbench.backend` asks."""

    name = "tensorflow"
    distributions = ("tensorflow", "tensorflow-cpu")
    modes: Mapping[str, str] = MODES
    compiled_modes = frozenset({"xla"})
    precisions: tuple[Precision, ...] = get_args(Precision)
    parallel_modes = frozenset(MODES) - {"xla"}

    def environment(self, setting: Setting) -> dict[str, str]:
        """Variables that make TensorFlow's allocator countable and its op names plain.

        Only the BFC allocator reports what it hands out. oneDNN's kernels rename the ops, and its batched product is
        the slower one on 4x4 poses.
        """
        common = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        if setting.device == "cpu":
            return {**common, "CUDA_VISIBLE_DEVICES": "-1"}
        return {**common, "TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_GPU_ALLOCATOR": "bfc"}

    def probe(self) -> Probe:
        """Versions of TensorFlow, of CUDA (where built with it) and of kernels' libraries, and the devices it sees."""
        import tensorflow as tf

        build = tf.sysconfig.get_build_info()
        versions = {"tensorflow": str(tf.__version__), **library_versions()}
        if build.get("is_cuda_build"):
            versions["cuda"] = str(build.get("cuda_version", "unknown"))
        gpus = len(tf.config.list_physical_devices("GPU"))
        return Probe(versions, ("cpu", *(f"cuda:{index}" for index in range(gpus))))

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:
        """Kernels are for the CPU, without mixed precision and some variants of routing; other modes realize all."""
        if setting.mode not in self.modes:
            return f"tensorflow has no mode {setting.mode!r}, legal are {', '.join(self.modes)}"
        if setting.mode not in KERNEL_MODES:
            return None
        if setting.mixed:
            return f"{setting.mode} has no kernel for {setting.precision}; graph, tiled and xla run in it"
        if setting.device != "cpu":
            return f"{setting.mode} has no kernel for TensorFlow on a GPU; graph, tiled and xla run there"
        return uncovered(bound.network.routing)

    def notes(self, bound: BoundNetwork, setting: Setting) -> tuple[str, ...]:
        """Which kernel routes, in the modes that have a choice."""
        if setting.mode not in KERNEL_MODES or bound.network.routing is None:
            return ()
        return (describe(setting.mode),)

    def ceilings(self, setting: Setting) -> Ceilings:
        """Of a large matrix product and a large copy, by TensorFlow's own kernels."""
        from capsbench_tensorflow.device import measure_ceilings

        return measure_ceilings(setting)

    def forecast_peak(self, bound: BoundNetwork, setting: Setting, batch: int) -> PeakForecast | None:
        """See `forecast`; None in `xla`, where the compiler decides what is kept."""
        return forecast_peak(bound, setting, batch)

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> "TensorFlowRealization":
        """Build the network as TensorFlow variables and functions; each traces at its first call."""
        if setting.devices > 1:
            from capsbench_tensorflow.parallel import ParallelRealization

            return ParallelRealization(bound, parameters, setting)
        from capsbench_tensorflow.training import TensorFlowRealization

        return TensorFlowRealization(bound, parameters, setting)


BACKEND = TensorFlowBackend()
