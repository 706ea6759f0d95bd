"""The parts that kernels share: tasks as text, threads, memory that is written down, and which kernel is chosen."""

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from routed_layers import layers
from waiting import PATIENCE_SECONDS

from capsbench.network import zoo
from capsbench.network.routing import AgreementRouting, EMRouting, SelfAttentionRouting, SelfRouting
from capsbench.network.shapes import bind
from capsbench_fused import memory, threads
from capsbench_fused.task import parse, task_of, uncovered


@given(layers())
def test_a_task_survives_as_text(layer):
    """What is written on one line is read as the same task."""
    task = layer.task()
    assert parse(task.text()) == task
    assert "\n" not in task.text()


@pytest.mark.parametrize("name", ["em-paper", "em-68k", "em-ibm", "em-seed", "em-tiny", "em-tuned", "em-yl"])
def test_tasks_of_the_zoo(name):
    """The task of every routed layer has the sizes that the network's shapes have."""
    bound = bind(zoo.load(name), (28, 28, 1), 10)
    for layer in bound.layers:
        if layer.routing is not None:
            task, shape = task_of(bound, layer), layer.routing
            assert (task.positions, task.children, task.parents) == (shape.positions, shape.children, shape.parents)
            assert (task.transforms, task.elements) == (shape.child_types, shape.elements)


@pytest.mark.parametrize(
    ("routing", "word"),
    [
        (EMRouting(densities="shifted"), "shifted"),
        (EMRouting(damping=0.1), "damping"),
        (EMRouting(renormalise_input=True, competition="all_positions"), "renormalise_input"),
        (AgreementRouting(), "agreement"),
        (SelfAttentionRouting(), "self_attention"),
        (SelfRouting(), "self_routing"),
    ],
)
def test_what_is_not_covered_is_named(routing, word):
    """A variant without a fused formulation is refused in one sentence that names the field and what else there is."""
    reason = uncovered(routing)
    assert word in reason
    assert "eager" in reason
    assert uncovered(EMRouting()) is uncovered(None) is None


@given(st.integers(1, 40), st.integers(1, 12))
def test_ranges_cover_everything_once(count, parts):
    """Ranges follow each other, none is empty, and none is longer than another by more than one."""
    ranges = threads.split(count, parts)
    assert [i for first, last in ranges for i in range(first, last)] == list(range(count))
    sizes = {last - first for first, last in ranges}
    assert len(ranges) == min(count, parts)
    assert max(sizes) - min(sizes) <= 1


def test_calls_run_side_by_side():
    """Calls that wait for each other all end."""
    barrier = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    threads.run([barrier.wait] * 3)


def test_what_a_call_raises_is_raised():
    """An error in another thread reaches the caller, once all calls have ended."""
    ended = []

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        threads.run([lambda: ended.append(1), fail, lambda: ended.append(2)])
    assert sorted(ended) == [1, 2]


@given(st.integers(0, 1000), st.sampled_from([np.float32, np.float64]))
def test_memory_is_aligned(numbers, dtype):
    """An array begins at a multiple of the cache line, or of the page where that is asked for."""
    array = memory.allocate(numbers, dtype)
    assert (len(array), array.dtype) == (numbers, dtype)
    assert array.ctypes.data % memory.ALIGNMENT_BYTES == 0 or not numbers
    page = memory.page(numbers, dtype, memory.allocate)
    assert len(page) == numbers
    assert page.ctypes.data % memory.PAGE_BYTES == 0 or not numbers


def test_memory_is_written_down_while_somebody_looks():
    """Blocks are known by size from when they are asked for until they are given back, views included."""
    memory.allocate(10, np.float32)
    with memory.recording() as blocks:
        array = memory.allocate(1000, np.float32)
        view = array[10:].reshape(-1, 10)
        del array
        gc.collect()
        assert [block.size is None for block in blocks] == [False]
        assert blocks[0].size >= 4000
        del view
        gc.collect()
        assert [block.size is None for block in blocks] == [False, True]
        assert blocks[0].address == blocks[1].address
        assert blocks[0].nanoseconds <= blocks[1].nanoseconds
    memory.allocate(10, np.float32)
    assert len(blocks) == 2


def test_without_numba_the_chunked_kernel_is_chosen(capsbench_environment):
    """Where Numba cannot be imported, the fused mode falls back, and says so."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from capsbench_fused import engine\n"
        "assert engine.kernel('fused') is engine.kernel('chunked')\n"
        "print(engine.describe('fused'))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=capsbench_environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fused: routed by ")
    assert "Numba cannot be imported" in done.stdout
    assert "`fast`" in done.stdout


def test_tasks_need_no_numba(capsbench_environment):
    """The parent process reads tasks, and what is covered, without importing Numba."""
    code = "import sys; from capsbench_fused import engine, task; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=capsbench_environment, check=False).returncode == 0
