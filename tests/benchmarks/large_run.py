"""A run of any number of records, as a sweep leaves it: `python tests/benchmarks/large_run.py RESULTS 100000`.

Ten networks (or as many as it takes), two data sets, five batch sizes, five iteration counts, ten formulations, twenty
seeds; every case timed in three processes, trained, and its step profiled. One case in 300 failed. With
`--slower SHARE` the fused modes take that much longer, for a second run to compare with. docs/large-runs.md says what
was measured so.
"""

import argparse
import json
import random
import sys
from itertools import islice, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import EVENTS, FORWARD, UNPROFILED, case, metrics, record, scaled

from capsbench.record.codec import encode
from capsbench.store.legacy import import_lines
from capsbench.store.run import RunStore
from capsbench.store.runs import create

NETWORKS = ("em-68k", "em-ibm", "em-official", "em-paper", "em-seed", "em-tiny", "em-tuned", "em-yl", "dynamic", "vb")
DATASETS = ("mnist", "toys")
BATCHES = (8, 16, 32, 50, 64)
ITERATIONS = (1, 2, 3, 4, 5)
FORMULATIONS = tuple(
    (backend, mode, 1.0 + 0.37 * number)
    for number, (backend, mode) in enumerate(
        (backend, mode)
        for backend, modes in {
            "torch": ("fused", "chunked", "compile", "eager", "tiled"),
            "tensorflow": ("fused", "chunked", "xla", "graph", "tiled"),
        }.items()
        for mode in modes
    )
)
SEEDS = range(20)
_SAMPLED = ("forward_seconds", "train_step_seconds", "images_per_second", "epoch_seconds")


def write_run(results: Path, count: int, *, slower: float = 0.0, draw: int = 0) -> RunStore:
    """A run of `count` records under `results`; another `draw` draws other times of the same cases."""
    store = create(results, {"started": "2026-11-26T08:00:00+00:00", "suites": []})
    generator = random.Random(draw)  # noqa: S311 - times, not secrets
    lines = store.folder / "records.jsonl"
    with lines.open("wb") as file:
        file.writelines(islice(_lines(store.run_id, generator, slower), count))
    import_lines(lines, store.folder / "run.sqlite")
    lines.unlink()
    return store


def _lines(run, generator, slower):
    axes = product(NETWORKS, DATASETS, BATCHES, ITERATIONS)
    for network, dataset, batch, iterations in axes:
        for backend, mode, factor in FORMULATIONS:
            key = case(network, backend, mode, batch=batch, iterations=iterations, dataset=dataset)
            whole = _whole(run, key, factor * (1.0 + slower * (mode == "fused")))
            yield from (_line(whole, seed, generator) for seed in SEEDS)


def _line(whole, seed, generator):
    name = f"{whole['case']['id'].rpartition('.')[0]}.s{seed}-{seed:08x}"
    data = {**whole, "case": {**whole["case"], "id": name, "seed": seed}}
    if generator.random() < 1 / 300:
        data |= {**_EMPTY, "status": "oom", "reason": f"the worker asked for more than {8 + seed % 4}.0 GiB"}
    else:
        data["metrics"] = {name: _varied(name, each, generator) for name, each in whole["metrics"].items()}
    return json.dumps(data, separators=(",", ":")).encode() + b"\n"


def _varied(name, metric, generator):
    """The metric in another process, or of another training."""
    if name in _SAMPLED:
        samples = [value * generator.gauss(1.0, 0.01) for value in metric["samples"]]
        ordered = sorted(samples)
        return {
            **metric,
            "samples": samples,
            "value": ordered[len(ordered) // 2],
            "interval": [ordered[0], ordered[-1]],
        }
    if name == "accuracy":
        return {**metric, "value": metric["value"] - generator.random() / 100}
    return metric


_EMPTY = {**UNPROFILED, "metrics": {}, "parity": None, "notes": ()}


def _whole(run, key, factor):
    """The record that all seeds of a case are made from, as plain data."""
    made = record(
        key,
        run=run,
        metrics={**metrics(factor), "first_step_seconds": metrics(factor * 3)["train_step_seconds"]},
        ops=scaled(EVENTS, factor) if key.backend == "tensorflow" else EVENTS,
        forward_profile=FORWARD,
        distributions=(),
        routing=(),
    )
    return json.loads(encode(made))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--slower", type=float, default=0.0)
    parser.add_argument("--draw", type=int, default=0)
    asked = parser.parse_args()
    made_run = write_run(asked.results, asked.count, slower=asked.slower, draw=asked.draw)
    sys.stdout.write(f"{made_run.folder}\n")
