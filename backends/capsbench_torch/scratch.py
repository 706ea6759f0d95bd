"""The most memory that a convolution of PyTorch takes on a processor, beside its inputs, outputs and gradients.

oneDNN chooses among its algorithms by the vector width and the caches of the processor, and does not say beforehand
what the chosen one allocates. Each algorithm needs some of the following; the largest sum bounds all of them.

* Copies of the maps in blocks of 16 channels, the order that vector instructions like.
* *Direct convolution*: copies of the filters in blocks of 16 by 16 channels, and for the filters' gradient one partial
  sum a thread. A depthwise filter, of one channel by one, fills 1/256 of such a block.
* *Convolution by matrix products* (processors without AVX2): for each thread, patches of one image side by side, and
  partial sums of the filters' gradient, four of which are added at a time.
"""

from capsbench.network.layers import VectorCapsules
from capsbench.network.parameters import ParameterSpec, parameter_specs
from capsbench.network.shapes import BoundLayer, BoundNetwork

_BLOCK = 16
_PARTIAL_SUMS = 4


def most_scratch_numbers(bound: BoundNetwork, layer: BoundLayer, batch: int, threads: int) -> int:
    """Return how many numbers (not bytes) the backward pass of a layer's convolutions takes at most; 0 without any."""
    filters = [spec for spec in parameter_specs(bound) if spec.owner == layer.layer.name and len(spec.shape) == 4]
    if layer.routing is not None:
        return 0
    return max((_of_convolution(layer, spec, batch, threads) for spec in filters), default=0)


def _of_convolution(layer: BoundLayer, filters: ParameterSpec, batch: int, threads: int) -> int:
    """`filters.shape` is [kernel, kernel, channels in a group, filters]."""
    kernel, _, depth, count = filters.shape
    groups = count if isinstance(layer.layer, VectorCapsules) and layer.layer.depthwise else 1
    below, above = (side.height * side.width for side in (layer.input, layer.output))
    copies = batch * _blocked(groups * depth) * below + batch * _blocked(count) * above
    blocks = kernel**2 * groups * _blocked(depth) * _blocked(count // groups)
    patches = kernel**2 * depth * above
    direct = blocks * (1 + threads)
    by_products = min(threads, batch) * (_PARTIAL_SUMS * filters.size + patches)
    return copies + max(direct, by_products)


def _blocked(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK
