"""How Numba's kernels behave in a process: forked, from several threads, on other processors, compiled once."""

import os
import subprocess
import sys
import threading
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from exhaustive import in_short
from routed_layers import Layer, by_kernel, draw_arrays, draw_like, gradients_by_kernel

pytest.importorskip("numba")

from capsbench_fused import native, threads, vec
from capsbench_fused.compiling import entry

LAYER = Layer(side=3, types=5, parents=9)
SCRIPT = """\
import sys
import numpy as np
sys.path.insert(0, {folder!r})
from capsbench_fused import vec
{before}
from capsbench_fused import backward, forward, native
from routed_layers import Layer, by_kernel, draw_arrays, draw_like, gradients_by_kernel
layer = Layer(side=3, types=5, parents=9)
arrays = draw_arrays(layer, dtype=np.float32)
parents, saved = by_kernel(native, layer, arrays)
gradients = gradients_by_kernel(native, layer, arrays, saved, draw_like(parents))
np.savez({out!r}, poses=parents.poses, transforms=gradients.transforms)
print(sum(sum(f.stats.cache_hits.values()) for f in (forward.forward, backward.backward)))
"""


def train(count=2):
    """Poses, and the gradient of the transforms."""
    arrays = draw_arrays(LAYER, dtype=np.float32)
    parents, saved = by_kernel(native, LAYER, arrays, count=count)
    return parents.poses, gradients_by_kernel(native, LAYER, arrays, saved, draw_like(parents), count=count).transforms


def in_a_process(folder, environment, before="", **variables):
    """The same in a process of its own, and how often compiled code was found there."""
    out = folder / "out.npz"
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(folder=here, before=before, out=str(out))],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        return (found["poses"], found["transforms"]), int(done.stdout)


def test_a_forked_child_can_route():
    """A child forked after the parent has used its threads routes with threads of its own."""
    expected = train()
    child = os.fork()
    if child == 0:
        os._exit(0 if all(map(np.array_equal, train(), expected)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_two_threads_at_once():
    """Calls from several threads at once give what each alone would."""
    expected = train()
    found = []
    callers = [threading.Thread(target=lambda: found.append(train())) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(found) == 4
    assert all(np.array_equal(a, b) for pair in found for a, b in zip(pair, expected, strict=True))


def test_denormal_numbers_stay():
    """After a kernel, this thread and those of the pool know denormal numbers as before."""
    train()
    tiny, kept = np.float32(1e-39), []
    threads.run([lambda: kept.append(tiny * np.float32(0.5) > 0)] * 3)
    assert kept == [True] * 3


PROCESSORS = {
    "no AVX, and not known to be x86": ("vec._IS_X86 = False", {"NUMBA_CPU_FEATURES": "+sse2"}),
    "AVX2": ("", {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}),
    "this one": ("", {}),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A function that compiles for a processor, once for all tests: the folder, how to run there, what was found."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    @cache
    def compiled(name):
        folder, (before, variables) = tmp_path_factory.mktemp("compiled"), PROCESSORS[name]
        again = partial(in_a_process, folder, environment, before, **{**variables, "NUMBA_CACHE_DIR": str(folder)})
        return folder, again, again()[0]

    return compiled


@pytest.mark.parametrize(
    "name", in_short([name for name in PROCESSORS if name != "this one"], lambda name: name != "AVX2")
)
def test_other_processors(first, name):
    """Code for lesser processors, and code without x86's own instructions, computes the same to rounding."""
    for got, expected in zip(first(name)[2], train(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


# For whichever processor it is: the code for this one takes as long to compile anew.
@pytest.mark.parametrize("name", in_short(PROCESSORS, lambda name: name.startswith("no AVX")))
def test_the_second_process_compiles_nothing(first, name):
    """Machine code is kept between processes, in the folder that the user has named to Numba."""
    folder, again, found = first(name)
    second, hits = again()
    assert hits == 2
    assert all(np.array_equal(a, b) for a, b in zip(found, second, strict=True))
    assert list(folder.glob("kernels/*/*/*.nbi"))


def test_without_a_folder_it_compiles_anew(tmp_path, capsbench_environment):
    """Where no folder can be written for machine code, a kernel works all the same."""
    blocked, script = tmp_path / "file", tmp_path / "kernel.py"
    blocked.touch()
    script.write_text(
        "from capsbench_fused.compiling import entry\n@entry\ndef twice(x):\n    return 2 * x\nassert twice(2) == 4\n",
        encoding="ascii",
    )
    environment = {**capsbench_environment, "NUMBA_CACHE_DIR": str(blocked)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, 3e-7), (np.float64, 1e-15)])
def test_exponential_and_logarithm(dtype, limit):
    """Exp of what is not positive, and log, err by a few units in the last place; NaN and infinities pass through."""

    @entry
    def both(x, exponentials, logarithms):
        for at in range(0, len(x), vec.LANES):
            place = vec.load(vec.start(x), at)
            vec.store(vec.start(exponentials), at, vec.exp(-place))
            vec.store(vec.start(logarithms), at, vec.log(place))

    x = np.concatenate([np.geomspace(1e-30, 87.0, 1013), [0.0, np.inf, np.nan]]).astype(dtype)
    x = np.pad(x, (0, -len(x) % vec.LANES), constant_values=1.0)
    exponentials, logarithms = np.empty_like(x), np.empty_like(x)
    both(x, exponentials, logarithms)
    wide = x.astype(np.float64)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(exponentials, np.exp(-wide), rtol=limit)
        np.testing.assert_allclose(logarithms, np.log(wide), rtol=limit, atol=limit)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_far_below_vanishes(dtype):
    """Exp gives 0, not a denormal number, far below what float32 holds; and still a number just above."""

    @entry
    def exponentials(x, out):
        vec.store(vec.start(out), 0, vec.exp(vec.load(vec.start(x), 0)))

    x, out = np.full(vec.LANES, -1e4, dtype), np.empty(vec.LANES, dtype)
    x[0] = -87.0
    exponentials(x, out)
    assert out[0] == pytest.approx(np.exp(-87.0), rel=1e-6)
    assert not out[1:].any()
