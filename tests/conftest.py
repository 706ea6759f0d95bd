"""What tests of all floors share: the fake backend, a small data set on disk, cases of it."""

import os
import signal
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

FAKE = Path(__file__).parent / "fake"
TRAIN_COUNT, TEST_COUNT = 48, 20

# Both this process and its workers find the fake backend; that is all it takes to register one.
sys.path.insert(0, str(FAKE))
os.environ["PYTHONPATH"] = os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])

# Whether an example passes does not depend on how fast the machine is; and examples share what their fixtures made.
settings.register_profile(
    "capsbench", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("capsbench")


def write_idx(path, array):
    """Write uint8 of any shape as an IDX file."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_mnist(folder, *, train=TRAIN_COUNT, test=TEST_COUNT, overlap=0):
    """Write a folder `mnist` of a few images that a linear classifier can tell apart; `overlap` are in both splits."""
    generator = np.random.default_rng(0)
    labels = np.arange(train + test) % 10
    images = generator.integers(0, 60, (train + test, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[label * 2 : label * 2 + 2] += 150
    images[train : train + overlap], labels[train : train + overlap] = images[:overlap], labels[:overlap]
    (folder / "mnist").mkdir(parents=True)
    for name, part in (("train", slice(None, train)), ("t10k", slice(train, None))):
        write_idx(folder / "mnist" / f"{name}-images-idx3-ubyte", images[part])
        write_idx(folder / "mnist" / f"{name}-labels-idx1-ubyte", labels[part])
    return folder


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory):
    """A data folder with a small mnist."""
    return write_mnist(tmp_path_factory.mktemp("data"))


def make_case(mode="fast", **changes):
    """A case of the fake backend on that mnist; `changes` are fields of `Case`."""
    from capsbench.network import zoo
    from capsbench.suite.cases import Case
    from capsbench.suite.schema import MEASURES, DatasetChoice, LimitChoice, TimeChoice, TrainChoice

    case = Case(
        id="",
        suite="tests",
        network=zoo.load(str(FAKE / "linear.yaml")),
        dataset=DatasetChoice(name="mnist").use(),
        backend="fake",
        mode=mode,
        device="cpu",
        batch=8,
        seed=0,
        threads=1,
        precision="float32",
        allocator="default",
        measure=MEASURES,
        train=TrainChoice(epochs=2),
        time=TimeChoice(rounds=2, min_samples=3, max_seconds=0.5),
        limits=LimitChoice(seconds=600.0),
    )
    case = replace(case, **changes)
    return case if case.id else replace(case, id=f"linear.{case.backend}-{case.mode}.b{case.batch}.s{case.seed}")


@pytest.fixture(name="make_case")
def make_case_fixture():
    """The function that makes cases."""
    return make_case


@pytest.fixture(params=["fused", "chunked"])
def kernel(request):
    """Each kernel of `capsbench_fused` in turn; Numba's where it is installed."""
    if request.param == "fused":
        pytest.importorskip("numba")
    from capsbench_fused import engine

    return engine.kernel(request.param)


@pytest.fixture
def default_signals():
    """SIGINT, SIGTERM and SIGHUP act as in a program started at a terminal, here and in what the test starts.

    Programs inherit what their starter ignores: `nohup`, `&` in a script and some CI systems ignore a few of these.
    """
    actions = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, action) for number, action in actions.items()}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def capsbench_environment():
    """The environment in which a subprocess finds capsbench as this process does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
