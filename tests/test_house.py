"""The house stands as docs/architecture.md says: imports point down, and the core knows no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "tensorflow", "jax", "keras"}
NEEDED_WHEN_ASKED_FOR = {"dask", "distributed", "scipy"}
FLOORS = {
    "capsbench.errors": 0,
    "capsbench.metrics": 0,
    "capsbench.network": 1,
    "capsbench.dataset": 1,
    "capsbench.measure": 1,
    "capsbench.stats": 1,
    "capsbench.backend": 2,
    "capsbench_fused": 2,
    "capsbench_numpy": 3,
    "capsbench_torch": 3,
    "capsbench_tensorflow": 3,
    "capsbench.plugins": 3,
    "capsbench.record": 3,
    "capsbench.store": 3,
    "capsbench.suite": 3,
    "capsbench.report": 3,
    "capsbench.worker": 4,
    "capsbench.runner": 5,
    "capsbench.track": 6,
    "capsbench.cli": 7,
}
OURS = [*sorted((ROOT / "capsbench").rglob("*.py")), *sorted((ROOT / "backends").rglob("*.py"))]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "backends" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """The full names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(name):
    """The floor a module of ours stands on; None for others."""
    known = [key for key in FLOORS if name == key or name.startswith(key + ".")]
    return FLOORS[max(known, key=len)] if known else None


@pytest.mark.parametrize("path", OURS, ids=module_name)
def test_imports_point_down(path):
    """No module imports one from a higher floor, and no backend another; the kernels are no backend."""
    name = module_name(path)
    if name in {"capsbench", "capsbench.__main__"}:
        return
    own = floor(name)
    assert own is not None, f"{name} stands on no floor"
    for other in imported(path):
        above = floor(other)
        assert above is None or above <= own, f"{name} imports {other}"
        if name.startswith("capsbench_") and other.startswith("capsbench_") and floor(other) != 2:
            assert other.split(".")[0] == name.split(".")[0], f"{name} imports {other}"


@pytest.mark.parametrize("path", [path for path in OURS if path.is_relative_to(ROOT / "capsbench")], ids=module_name)
def test_the_core_names_no_framework(path):
    """No file of the core imports a framework, not even inside a function."""
    assert not {name.split(".")[0] for name in imported(path)} & FRAMEWORKS


def test_nothing_loads_a_framework():
    """Importing every module of the core, and discovering the backends, loads no framework, nor Dask or SciPy."""
    core = [module_name(path) for path in OURS if path.is_relative_to(ROOT / "capsbench")]
    names = [name for name in core if not name.endswith("__main__")]
    unwanted = FRAMEWORKS | NEEDED_WHEN_ASKED_FOR
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"from capsbench import plugins; plugins.discover()\nsys.exit(bool({unwanted!r} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("backend", ["capsbench_torch", "capsbench_tensorflow"])
def test_backends_hold_the_same_files(backend):
    """A reader finds the same thing under the same name in each backend."""
    here = {path.stem for path in (ROOT / "backends" / backend).glob("*.py")}
    assert {"backend", "layers", "routing", "objective", "training", "profiling", "forecast"} <= here
