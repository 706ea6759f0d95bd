"""What capsbench discovers: TensorFlow's modes and devices. Importing this imports no TensorFlow."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Probe, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.network.shapes import BoundNetwork
from capsbench_tensorflow.forecast import forecast_peak_bytes

if TYPE_CHECKING:
    from capsbench_tensorflow.training import TensorFlowRealization

MODES = MappingProxyType(
    {
        "graph": "tf.function; votes by one matrix product a child type, sums over children as batched products",
        "tiled": "tf.function; the 2018 formulation op by op: tiled poses and transforms, 4x4 products, Mul and Sum",
        "xla": "the graph mode compiled by XLA (jit_compile)",
    }
)


class TensorFlowBackend:
    """TensorFlow 2, as the contract in `capsbench.backend` asks."""

    name = "tensorflow"
    distributions = ("tensorflow", "tensorflow-cpu")
    modes: Mapping[str, str] = MODES
    compiled_modes = frozenset({"xla"})

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
        """Versions of TensorFlow and CUDA (where it was built with it), and the devices it sees."""
        import tensorflow as tf

        build = tf.sysconfig.get_build_info()
        versions = {"tensorflow": str(tf.__version__)}
        if build.get("is_cuda_build"):
            versions["cuda"] = str(build.get("cuda_version", "unknown"))
        gpus = len(tf.config.list_physical_devices("GPU"))
        return Probe(versions, ("cpu", *(f"cuda:{index}" for index in range(gpus))))

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:  # noqa: ARG002 - the contract's signature
        """None: every network can be realized in every mode there is."""
        if setting.mode not in self.modes:
            return f"tensorflow has no mode {setting.mode!r}, legal are {', '.join(self.modes)}"
        return None

    def ceilings(self, setting: Setting) -> Ceilings:
        """Of a large matrix product and a large copy, by TensorFlow's own kernels."""
        from capsbench_tensorflow.device import measure_ceilings

        return measure_ceilings(setting)

    def forecast_peak_bytes(self, bound: BoundNetwork, setting: Setting, batch: int) -> int | None:
        """`peak_bytes` foretold from the shapes; None in `xla`, where the compiler decides what is kept."""
        return forecast_peak_bytes(bound, setting, batch)

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[np.float32]], setting: Setting
    ) -> "TensorFlowRealization":
        """Build the network as TensorFlow variables and functions; each traces at its first call."""
        from capsbench_tensorflow.training import TensorFlowRealization

        return TensorFlowRealization(bound, parameters, setting)


BACKEND = TensorFlowBackend()
