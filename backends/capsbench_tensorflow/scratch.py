"""The memory that a convolution of TensorFlow takes on a processor, beside its inputs, outputs and gradients.

TensorFlow's Conv2DBackprop kernels unfold so many images at a time that patches, output and filter fill the last-level
cache (`target_working_set_size` in conv_grad_filter_ops.cc), and one at a time where Eigen can share one out over all
threads. How large the cache is Eigen asks the processor itself, whose answer may be the cache of one group of cores or
that of the whole socket.
"""

from functools import cache
from math import ceil
from pathlib import Path

from capsbench.network.layers import Conv, PrimaryCapsules, Residual, VectorCapsules
from capsbench.network.shapes import BoundLayer, Features

_PROCESSORS = Path("/sys/devices/system/cpu")
_UNKNOWN_CACHE_BYTES = (512 << 10, 512 << 20)
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def scratch_numbers(layer: BoundLayer, number_bytes: int) -> tuple[int, int]:
    """Return the least and the most numbers (not bytes) in the patch buffer of a layer's convolutions; 0 without any.

    Args:
        layer: any layer.
        number_bytes: 4 of float32, 8 of float64.
    """
    match layer.layer:
        case Conv(channels=channels) | Residual(channels=channels):
            filters = [channels]
        case PrimaryCapsules(capsules=capsules):
            filters = [capsules * 16, capsules]
        case VectorCapsules(capsules=capsules, elements=elements, depthwise=False):
            filters = [capsules * elements]
        case _:
            return 0, 0
    assert isinstance(layer.input, Features)  # noqa: S101 - convolutions stand on maps only
    places = layer.output.height * layer.output.width
    kernel = 3 if isinstance(layer.layer, Residual) else layer.layer.kernel
    patch = kernel**2 * layer.input.channels
    units = [places * patch + places * out + patch * out for out in filters]

    def buffer(cache_bytes: int) -> int:
        return max(ceil(cache_bytes / number_bytes / unit) * places * patch for unit in units)

    low, high = last_level_cache_bytes()
    return buffer(low), buffer(high)


@cache
def last_level_cache_bytes() -> tuple[int, int]:
    """Return the last-level cache of one group of cores and of a whole socket; wide bounds where neither is known."""
    try:
        one = _size(_PROCESSORS / "cpu0/cache/index3/size")
        socket = (_PROCESSORS / "cpu0/topology/physical_package_id").read_text()
        groups = {
            (each / "cache/index3/shared_cpu_list").read_text()
            for each in _PROCESSORS.glob("cpu[0-9]*")
            if (each / "topology/physical_package_id").read_text() == socket
        }
    except (OSError, ValueError, KeyError):
        return _UNKNOWN_CACHE_BYTES
    return one, one * len(groups)


def _size(path: Path) -> int:
    """Read a size such as `32768K`."""
    text = path.read_text().strip()
    return int(text[:-1]) * _UNITS[text[-1]]
