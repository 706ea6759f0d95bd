"""How much faster a suite of short cases is on two Dask workers of this machine than one case after the other.

    python tests/benchmarks/sweep_throughput.py [--cases N] [--pairs N]

Whole runs of the command line on the fake backend, from start to exit, in turns A B B A; each case is checked, timed in
one round and trained for an epoch. Nothing else should run on the machine: its load is printed beside each run.
"""

# ruff: noqa: T201 - printing is the point
import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TESTS = Path(__file__).parents[1]
SUITE = """\
name: throughput
dataset: mnist
networks: [linear.yaml]
backends: ["fake:fast"]
batch: [8]
seeds: [{seeds}]
device: cpu
threads: 1
measure: [memory, time, accuracy]
train: {{epochs: 1}}
time: {{rounds: 1, min_samples: 10, max_seconds: 1}}
"""
SIDES = {"processes": [], "dask local:2": ["--executor", "dask", "--cluster", "local:2"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, asked.cases)
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        first, second = SIDES
        for side in [each for n in range(asked.pairs) for each in ((first, second), (second, first))[n % 2]]:
            load = os.getloadavg()[0]
            seconds[side].append(_run(folder, SIDES[side]))
            print(f"{side:>14} {seconds[side][-1]:6.1f} s   load before {load:.1f}", flush=True)
    ratios = [alone / shared for alone, shared in zip(*seconds.values(), strict=True)]
    for side, times in seconds.items():
        print(f"{side}: median {median(times):.1f} s, {min(times):.1f} to {max(times):.1f}")
    ratio = median(seconds[first]) / median(seconds[second])
    print(f"throughput: {ratio:.2f} times, pairs {min(ratios):.2f} to {max(ratios):.2f}")


def _prepare(folder: Path, cases: int) -> None:
    sys.path.insert(0, str(TESTS))
    from conftest import write_mnist

    write_mnist(folder / "data")
    (folder / "linear.yaml").write_bytes((TESTS / "fake" / "linear.yaml").read_bytes())
    (folder / "suite.yaml").write_text(SUITE.format(seeds=", ".join(map(str, range(cases)))), encoding="utf-8")


def _run(folder: Path, options: list[str]) -> float:
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-P", "-m", "capsbench", "run", "suite.yaml", "--no-figures", *options],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - start


if __name__ == "__main__":
    main()
