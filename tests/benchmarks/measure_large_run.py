"""How long the commands take over large runs, and at what peak: `python tests/benchmarks/measure_large_run.py FOLDER`.

Two runs of each size are made under the folder where they are not there yet; a line for each command and size has the
medians of three: wall seconds, seconds of CPU, peak resident megabytes. `--counts 10000 100000` are the sizes.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from large_run import write_run

FORMATS = ("csv", "json", "md", "latex")
_PEAK = """
import resource, sys
from capsbench.cli import main
sys.argv = ["capsbench", *sys.argv[1:]]
code = main()
sys.stdout.flush()
sys.stderr.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
sys.exit(code)
"""
_RESUME = """
import resource, sys, time
from pathlib import Path
from capsbench.store.runs import open_run
from capsbench.suite.cases import expand
from capsbench.suite.schema import Suite
seeds = tuple(range(int(sys.argv[2]) // 100))
modes = {"torch": ("eager", "tiled"), "tensorflow": ("graph", "tiled")}
names = tuple(f"{name}:{mode}" for name, found in modes.items() for mode in found)
networks = ("em-tiny", "em-seed", "em-68k", "em-paper", "em-yl")
suite = Suite(name="s", dataset="mnist", networks=networks, backends=names, batch=(8, 16, 32, 50, 64), seeds=seeds)
done = open_run(Path(sys.argv[1]), "latest").finished()
waiting = [case for case in expand(suite, Path("s.yaml"), modes) if case.id not in done]
sys.stderr.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def measured(command):
    """Wall and CPU seconds, and the peak in bytes, of one process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, 1024 * int(done.stderr.split()[-1])


def commands(results, count):
    """What is measured, by what it is called."""
    base, new = (path.name for path in sorted((results / "runs").iterdir()))
    told = {
        "show": ("show", base),
        "show --case": ("show", base, "--case", "*.b8.i1.s3-*"),
        "compare": ("compare", base, new),
        **{f"export --format {kind}": ("export", base, "--format", kind) for kind in FORMATS},
    }
    for name, arguments in told.items():
        yield name, [sys.executable, "-c", _PEAK, *arguments, "--results", str(results)]
    yield "finished, expand", [sys.executable, "-c", _RESUME, str(results), str(count)]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    for count in asked.counts:
        results = asked.folder / str(count)
        for draw in range(2 - len(list(results.glob("runs/*")))):
            write_run(results, count, draw=draw, slower=0.1 * draw)
        for name, command in commands(results, count):
            found = [measured(command) for _ in range(asked.times)]
            wall, cpu, peak = map(median, zip(*found, strict=True))
            load = os.getloadavg()[0]
            sys.stdout.write(
                f"{count:>7,}  {name:<22} {wall:6.1f} s  {cpu:6.1f} s CPU  {peak / 1e6:5.0f} MB  (load {load:.1f})\n"
            )


if __name__ == "__main__":
    main()
