"""The Triton kernels compile for an H100, without one, and keep what they work with in registers."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip("torch")
# Not imported here, where others want its interpreter.
pytestmark = [pytest.mark.torch, pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")]

# Launches of the three passes that walk votes are recorded, with tensors that have a shape only, and what was launched
# is compiled. Prints registers of a thread, bytes of its stack, and bytes of shared memory, by layer and kernel.
COMPILE = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from capsbench.network import zoo
from capsbench.network.shapes import bind
from capsbench_fused.task import task_of
from capsbench_torch import fused_cuda, triton_layer

KINDS = {torch.float32: "*fp32", torch.int32: "*i32"}
launches = {}

def record(layer, kernel, cut, grid, **own):
    if kernel.__name__ in ("gather", "retrace", "scatter") and not own.get("AGAIN"):
        launches[kernel.__name__] = kernel, cut, {**layer.arguments, **own, "BN": cut.rows, "VEC": cut.vec}

def launch(task):
    children = task.below, task.types
    shapes = (64, *children, 16), (64, *children), (task.transforms, task.parents, 4, 4), task.parents, task.parents
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    parents, logits, saved = fused_cuda.forward(task, *inputs, True)
    fused_cuda.backward(task, *inputs, saved, parents, logits)

def resources(kernel, cut, arguments):
    fixed = {p.name: arguments[p.name] for p in kernel.params if p.is_constexpr}
    types = {name: getattr(value, "dtype", None) for name, value in arguments.items()}
    kinds = {n: "constexpr" if n in fixed else KINDS.get(types[n], "i32") for n in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names) if kinds[n].startswith("*")}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=fixed, attrs=aligned)
    options = {"num_warps": cut.warps, "maxnreg": cut.registers, "enable_fp_fusion": True}
    machine = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(machine.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return [*map(int, re.search(r"REG:(\\d+) STACK:(\\d+)", text).groups()), machine.metadata.shared]

triton_layer.Layer.run = record
network = bind(zoo.load("em-paper"), (32, 32, 1), 5)
used = {}
for bound in network.layers:
    if bound.layer.name in ("conv_caps1", "class_caps"):
        launch(task_of(network, bound))
        used[bound.layer.name] = {name: resources(*launched) for name, launched in launches.items()}
print(json.dumps(used))
"""


def test_passes_stay_in_registers(capsbench_environment, tmp_path):
    """For layers of em-paper no thread spills a register, and the passes over positions use no shared memory."""
    environment = {**capsbench_environment, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    assert set(used) == {"conv_caps1", "class_caps"}
    for kernels in used.values():
        assert set(kernels) == {"gather", "retrace", "scatter"}
        for registers, stack, shared in kernels.values():
            assert registers <= 255
            assert stack == 0
            assert shared <= 4096
        # 16 and 12 warps of them reside on a multiprocessor, and their tiles never leave the threads.
        assert kernels["gather"][0] <= 128
        assert kernels["retrace"][0] <= 168
        assert kernels["gather"][2] == kernels["retrace"][2] == 0
