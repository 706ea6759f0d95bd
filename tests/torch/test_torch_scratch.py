"""The most that convolutions may take, against the networks in which they count."""

from networks_for_torch import ZOO

from capsbench.backend import Setting
from capsbench.network import zoo
from capsbench.network.shapes import bind
from capsbench_torch.backend import BACKEND
from capsbench_torch.scratch import most_scratch_numbers


def layer_of(network, name):
    """A layer of the zoo, and the network it is of."""
    bound = bind(zoo.load(network), (28, 28, 1), 10)
    return bound, next(layer for layer in bound.layers if layer.layer.name == name)


def test_depthwise_filters_fill_blocks_of_their_own():
    """Each of 128 filters of 9 x 9 pixels stands in a block of 16 x 16: 10.6 MB of float32, once and once a thread."""
    bound, layer = layer_of("efficient", "primary")
    maps = 9 * 9 * 128 + 128
    assert most_scratch_numbers(bound, layer, 1, 2) == 3 * 128 * 81 * 256 + maps


def test_patches_and_partial_sums_count_for_each_thread():
    """Without vectors of 8, each thread unfolds an image and adds up four partial sums of the filters' gradient."""
    bound, layer = layer_of("dynamic", "primary")
    filters, patches, maps = 81 * 256 * 256, 81 * 256 * 36, 256 * (400 + 36)
    assert most_scratch_numbers(bound, layer, 8, 2) == 2 * (4 * filters + patches) + 8 * maps
    assert most_scratch_numbers(bound, layer, 1, 2) == 4 * filters + patches + maps


def test_other_layers_take_nothing():
    """Dense layers and routed capsules have no convolutions."""
    for network, name in (("cnn-tiny", "logits"), ("em-tiny", "conv_caps1"), ("em-tiny", "class_caps")):
        assert most_scratch_numbers(*layer_of(network, name), 4, 2) == 0


def test_networks_routed_by_em_have_one_number():
    """Where routing is at its peak no convolution counts, so the forecast is no range."""
    for name, mode in ZOO:
        if name.startswith("em-"):
            forecast = BACKEND.forecast_peak(bind(zoo.load(name), (28, 28, 1), 10), Setting(mode, threads=2), 16)
            assert forecast.low_bytes == forecast.high_bytes, (name, mode)
