"""What the parent process sees of the backend: discovery, refusals, the memory forecast."""

import os
import subprocess
import sys
from statistics import median

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf
from forecasts import is_near
from networks_for_tensorflow import STEP, case_of, zoo_network

from capsbench.backend import Setting
from capsbench.measure.ceilings import COPIED_BYTES, SIDE, Ceilings
from capsbench.network.network import with_routing_iterations
from capsbench.network.shapes import bind
from capsbench_tensorflow import device
from capsbench_tensorflow.backend import BACKEND
from capsbench_tensorflow.opnames import canonical

pytestmark = pytest.mark.tensorflow


def test_discovery_and_forecast_import_no_tensorflow():
    """A parent process reads modes and asks for a forecast without TensorFlow in it."""
    program = (
        "import sys; from networks_for_tensorflow import *; case = case_of(zoo_network('em-tiny'), 1);"
        "assert BACKEND.forecast_peak(case.bound, Setting('graph'), 1).low_bytes > 0;"
        "BACKEND.environment(Setting('graph'));"
        "sys.exit('tensorflow' in sys.modules)"
    )
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=path).returncode == 0


def test_the_probe_finds_the_cpu_and_the_version():
    """The CPU is a device of every TensorFlow."""
    probe = BACKEND.probe()
    assert probe.devices[0] == "cpu"
    assert probe.versions["tensorflow"].startswith("2.")


def test_unknown_modes_are_refused_and_known_ones_are_not():
    """A mode that does not exist is named together with those that do."""
    bound = bind(zoo_network("em-tiny"), (28, 28, 1), 10)
    assert "tiled" in BACKEND.unsupported(bound, Setting("eager"))
    assert [BACKEND.unsupported(bound, Setting(mode)) for mode in BACKEND.modes] == [None] * len(BACKEND.modes)


@pytest.mark.parametrize(
    ("name", "batch", "iterations", "mode"),
    [
        ("em-tiny", 16, 3, "graph"),
        ("em-tiny", 16, 3, "tiled"),
        pytest.param("em-tiny", 24, 2, "graph", marks=pytest.mark.exhaustive),
        ("em-tiny", 64, 1, "graph"),
        pytest.param("em-seed", 8, 2, "graph", marks=pytest.mark.exhaustive),
        ("em-seed", 8, 2, "tiled"),
        pytest.param("em-seed-literal", 8, 2, "graph", marks=pytest.mark.exhaustive),
        pytest.param("em-seed-literal", 8, 2, "tiled", marks=pytest.mark.exhaustive),
        pytest.param("em-paper", 1, 2, "graph", marks=pytest.mark.exhaustive),
        pytest.param("em-paper", 1, 2, "tiled", marks=pytest.mark.exhaustive),
        ("cnn-seed", 4, None, "graph"),
        pytest.param("dynamic", 2, None, "graph", marks=pytest.mark.exhaustive),
        ("dynamic-small", 16, 1, "graph"),
        ("dynamic-small", 16, 3, "tiled"),
        ("efficient", 2, None, "graph"),
        pytest.param("efficient", 16, None, "tiled", marks=pytest.mark.exhaustive),
        ("cnn-residual", 16, None, "graph"),
        ("self-routing", 8, None, "graph"),
        ("self-routing", 2, None, "tiled"),
        ("vb", 4, None, "graph"),
        ("vb", 2, 2, "tiled"),
        pytest.param("vb", 2, 5, "tiled", marks=pytest.mark.exhaustive),
    ],
)
def test_the_forecast_is_within_15_percent_of_the_measured_peak(name, batch, iterations, mode):
    """Peak memory is foretold from shapes alone.

    Every realization's executor takes ops in another order, and its peak with it: that of efficient at batch 16 by up
    to 17 %. Where the first one does not say, the median of five does.
    """
    network = with_routing_iterations(zoo_network(name), iterations)
    case = case_of(network, batch)
    forecast = BACKEND.forecast_peak(case.bound, Setting(mode, threads=2), batch)
    measured = [_peak_bytes(case, mode)]
    if not is_near(forecast, measured[0]):
        measured += [_peak_bytes(case, mode) for _ in range(4)]
    assert is_near(forecast, median(measured))


def _peak_bytes(case, mode):
    realization, placed = case.realize(mode)
    realization.train_step(placed, STEP)
    return realization.memory(placed, STEP).peak_bytes


@pytest.mark.parametrize("mode", ["fused", "chunked"])
def test_kernels_are_of_em_routing_only(mode):
    """Other routings are refused by the modes that route by kernels, with the modes that do not; a CNN is not."""
    refused = {
        name: BACKEND.unsupported(bind(zoo_network(name), (28, 28, 1), 10), Setting(mode))
        for name in ("dynamic", "efficient", "vb", "cnn-residual", "self-routing")
    }
    assert "not of vb; eager, graph and tiled" in refused["vb"]
    assert "not of agreement; eager, graph and tiled" in refused["dynamic"]
    assert "not of self_attention" in refused["efficient"]
    assert "not of self_routing; eager, graph and tiled" in refused["self-routing"]
    assert refused["cnn-residual"] is None


def test_no_forecast_is_given_for_the_compiler():
    """What XLA keeps is its own business."""
    bound = bind(zoo_network("em-tiny"), (28, 28, 1), 10)
    assert BACKEND.forecast_peak(bound, Setting("xla"), 4) is None


def test_running_out_of_memory_is_a_memory_error():
    """TensorFlow's ResourceExhaustedError reaches the worker as MemoryError."""
    realization, _ = case_of(zoo_network("cnn-tiny"), 1).realize()
    with pytest.raises(MemoryError):
        realization.place(np.broadcast_to(np.float32(0.0), (2**32, 28, 28, 1)), np.zeros(1, np.int64), {})


def test_the_ceilings_are_those_of_a_product_and_a_true_copy(monkeypatch):
    """What is timed multiplies the named matrices and copies the named bytes; a chunk may be twice what was asked."""
    asked = []

    def once(product, copy):
        for call in (product, copy):
            tf.config.experimental.reset_memory_stats("CPU:0")
            before = tf.config.experimental.get_memory_info("CPU:0")["current"]
            call()
            asked.append(tf.config.experimental.get_memory_info("CPU:0")["peak"] - before)
        return Ceilings(1.0, 1.0)

    monkeypatch.setattr(device, "measure", once)
    assert BACKEND.ceilings(Setting("graph", threads=2)) == Ceilings(1.0, 1.0)
    assert len(asked) == 2
    for got, wanted in zip(asked, [4 * SIDE**2, COPIED_BYTES], strict=True):
        assert wanted <= got <= 2 * wanted


@pytest.mark.parametrize(
    ("native", "name"),
    [
        ("_MklBatchMatMulV2", "BatchMatMul"),
        ("_FusedConv2D", "Conv2D"),
        ("_MklNativeFusedMatMul", "MatMul"),
        ("AddV2", "Add"),
        ("SquaredDifference", "Sub"),
        ("Reshape", "View"),
        ("DepthwiseConv2dNative", "Conv2D"),
        ("DepthwiseConv2dNativeBackpropFilter", "Conv2DBackprop"),
        ("XlaFunction", "Compiled"),
        ("executor", "Dispatch"),
        ("Betainc", "Other:Betainc"),
    ],
)
def test_native_names_become_canonical(native, name):
    """Prefixes of libraries and versions fall off; what is not known stays visible."""
    assert canonical(native) == name
