"""Attack the readers with any number of inputs and write down what happened.

`python tests/fuzz/campaign.py --inputs 100000` runs every target in a process of its own and prints a line of JSON:
inputs, seconds, the slowest answer (in processor time, so that a busy machine is no defect), the most memory, and
defects, whose inputs it keeps. `--guided` lets atheris choose inputs by the branches that they take. The exit code is 1
where there was a defect. docs/reliability.md has figures.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
MOST_SECONDS = 1.0
FREE_BYTES = 100_000_000
TIMES_INPUT = 4


def main():
    """Each target in its process, or one here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000, help="how many for each target")
    parser.add_argument("--target", action="append", help="only this one; may come more than once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided", action="store_true", help="by coverage, with atheris")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-defects"), help="folder for inputs that are defects")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        return attack(asked)
    from targets import targets

    worst = 0
    for name in asked.target or targets():
        options = ["--inputs", str(asked.inputs), "--seed", str(asked.seed), "--keep", str(asked.keep)]
        guided = ["--guided"] if asked.guided else []
        command = [sys.executable, __file__, "--here", "--target", name, *options, *guided]
        worst = max(worst, abs(subprocess.run(command, check=False).returncode))
    return min(worst, 1)


class Watch:
    """Runs a reader on one input after the other and counts what it must not do."""

    def __init__(self, target, keep, folder):
        self._target, self._keep, self._folder = target, keep, folder
        self._began = time.perf_counter()
        self._rest = _peak_bytes()
        self.inputs, self.defects, self.slowest, self.most = 0, [], 0.0, 0

    def __call__(self, data):
        """Read one input."""
        before, start, problem = _peak_bytes(), time.process_time(), None
        try:
            self._target.read(data, self._folder)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, it is a defect
            problem = f"{type(error).__name__}: {error}"
        seconds, grown = time.process_time() - start, _peak_bytes() - before
        self.inputs += 1
        self.slowest, self.most = max(self.slowest, seconds), max(self.most, grown)
        if seconds > MOST_SECONDS:
            problem = problem or f"took {seconds:.2f} s"
        if grown > TIMES_INPUT * len(data) + FREE_BYTES:
            problem = problem or f"took {grown / 1e6:.0f} MB"
        if problem is not None:
            self._keep_defect(data, problem)

    def report(self, *, guided):
        """What happened, as plain data."""
        return {
            "target": self._target.name,
            "guided": guided,
            "inputs": self.inputs,
            "seconds": round(time.perf_counter() - self._began, 1),
            "slowest_seconds": round(self.slowest, 4),
            "largest_growth_bytes": self.most,
            "whole_growth_bytes": _peak_bytes() - self._rest,
            "defects": self.defects[:20],
            "defect_count": len(self.defects),
        }

    def _keep_defect(self, data, problem):
        self.defects.append(problem[:200])
        if len(self.defects) <= 20:
            self._keep.mkdir(parents=True, exist_ok=True)
            (self._keep / f"{self._target.name}-{len(self.defects)}").write_bytes(data)


def attack(asked):
    """Attack one target in this process."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:  # noqa: S108
        (_guided if asked.guided else _unguided)(asked, Path(folder))
    return 1 if _LAST[0].defects else 0


_LAST = []


def _unguided(asked, folder):
    from mutation import mutate
    from targets import MAX_BYTES, targets

    target = targets()[asked.target[0]]
    chance, seeds = random.Random(f"{asked.seed} {target.name}"), target.seeds()  # noqa: S311 - it guards no secret
    for seed in seeds:
        target.read(seed, folder)
    watch = Watch(target, asked.keep, folder)
    _LAST.append(watch)
    for _ in range(asked.inputs):
        watch(mutate(chance, seeds, target.words, MAX_BYTES))
    _tell(watch.report(guided=False))


def _guided(asked, folder):
    import atheris

    with atheris.instrument_imports(include=["capsbench", "yaml"]):
        from targets import MAX_BYTES, targets
    target = targets()[asked.target[0]]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds()):
        (corpus / str(number)).write_bytes(seed)
        target.read(seed, folder)
    watch = Watch(target, asked.keep, folder)
    _LAST.append(watch)

    def one(data):
        watch(data)
        if watch.inputs == asked.inputs:  # libFuzzer ends the process itself
            _tell(watch.report(guided=True))

    options = [f"-runs={asked.inputs}", f"-max_len={MAX_BYTES}", f"-seed={asked.seed + 1}", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def _tell(report):
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def _peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
