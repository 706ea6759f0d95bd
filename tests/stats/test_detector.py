"""What verdicts promise, on processes that were recorded: equal code is seldom called worse, slowdowns are found.

Tables are those of `compare`: twelve cases of two times, corrected together, each time from its own resampled pairs.
"""

import json
import sys
from collections import Counter
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from capsbench.measure.environment import Machine
from capsbench.record.compare import compare
from capsbench.record.noise import Noise, Process, Recording, floors_of
from capsbench.record.pairs import Pair
from capsbench.stats.noise import apart_reach, interleaved_reach, pair_scatter, rounds_to_find
from capsbench.stats.shift import shifts
from capsbench.stats.verdict import ALPHA

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from sample_records import case, record, sampled

TIMES = ("train_step_seconds", "forward_seconds")
CASES = 12
ROWS = CASES * len(TIMES)
MACHINE = Machine(processor="Abacus", cores=2, memory_bytes=1 << 30, system="Linux", architecture="wood")
QUIET = 0.045
"""Of the log ratios of pairs, where both of a pair ran at the same time on a machine with nothing else to do."""


def recorded():
    """The recordings, with the floors that follow from their processes."""
    text = (Path(__file__).parent / "recorded_processes.json").read_text(encoding="utf-8")
    for raw in json.loads(text)["recordings"]:
        processes = TypeAdapter(tuple[Process, ...]).validate_python(raw["processes"])
        yield with_processes(TypeAdapter(Recording).validate_python({**raw, "floors": []}), processes)


def with_processes(recording, processes):
    """The recording of other processes, with their floors, named like the sample records' realization."""
    return replace(recording, backend="torch", mode="eager", processes=processes, floors=floors_of(processes))


def logs_of(recording, name):
    """Log medians of one time, pair after pair."""
    return np.log([process.medians[name] for process in recording.processes])


def calmed(recording, scatter):
    """The same processes, as if the log ratios of their pairs had scattered so much."""
    factors = {name: scatter / pair_scatter(logs_of(recording, name)) for name in TIMES}
    middles = {name: np.median(logs_of(recording, name)) for name in TIMES}

    def calm(process):
        logs = {name: log(process.medians[name]) for name in TIMES}
        medians = {name: float(np.exp(middles[name] + factors[name] * (logs[name] - middles[name]))) for name in TIMES}
        return replace(process, medians=medians)

    return with_processes(recording, tuple(map(calm, recording.processes)))


RECORDINGS = {f"{each.work} {number}": each for number, each in enumerate(recorded())}
every_recording = pytest.mark.parametrize("recording", RECORDINGS.values(), ids=RECORDINGS)


def two_sides(generator, recording, name, count):
    """Times of A and B: pairs that were recorded, each the right way round or the other; no two gaps are equal."""
    pairs = np.exp(logs_of(recording, name)).reshape(-1, 2)
    drawn = pairs[generator.integers(len(pairs), size=count)]
    tossed = generator.random(count) < 0.5
    for first in (tossed, ~tossed):
        yield np.where(first, *drawn.T) * np.exp(1e-7 * generator.standard_normal(count))


def compared(generator, recording, count, *, growth=1.0, floor=True, cases=CASES):
    """The changes of a table in which the first case takes longer in B."""
    pairs = []
    for number in range(cases):
        sides = [{}, {}]
        for name in TIMES:
            base, new = two_sides(generator, recording, name, count)
            sides[0][name] = sampled(base.tolist())
            sides[1][name] = sampled((new * (growth if number == 0 else 1.0)).tolist())
        key = case(f"network-{number}")
        pairs.append(Pair(*(record(key, metrics=metrics) for metrics in sides)))
    noise = (Noise(machine=MACHINE, recordings=(recording,)),) if floor else ()
    return [change for change in compare(pairs, noise=noise, interleaved=True) if change.kind == "time"]


def found(recording, count, growth, *, trials=100, cases=CASES):
    """In how many of a hundred tables the slowdown was called worse, for the time in which that was seldomer."""
    generator, hits = np.random.default_rng(17), Counter(dict.fromkeys(TIMES, 0))
    for _ in range(trials):
        for change in compared(generator, recording, count, growth=growth, cases=cases)[: len(TIMES)]:
            hits[change.metric] += change.verdict == "worse"
    return 100 * min(hits.values()) / trials


@every_recording
@pytest.mark.parametrize("floor", [True, False])
def test_equal_code_is_seldom_called_worse(recording, floor):
    """In 200 tables of equal code at most 1 % of the rows are worse, and hardly a table has one."""
    generator = np.random.default_rng(7)
    tables = [compared(generator, recording, 10, floor=floor) for _ in range(200)]
    worse = [sum(change.verdict == "worse" for change in changes) for changes in tables]
    assert sum(worse) <= ALPHA * 200 * ROWS
    assert sum(map(bool, worse)) <= 0.025 * 200


@every_recording
def test_a_quiet_machine_finds_a_tenth_and_a_fifth(recording):
    """Where pairs scatter by 4.5 %: a fifth with 13 rounds, a tenth with 16, in a table of 24 rows; alone with 10."""
    calm = calmed(recording, QUIET)
    assert found(calm, 13, 1.2) >= 95
    assert found(calm, 16, 1.1) >= 80
    assert found(calm, 10, 1.1, cases=1) >= 80


@every_recording
def test_the_machine_as_it_was_finds_a_tenth_and_a_fifth(recording):
    """A fifth with 14 rounds in a table of 24 rows, a tenth with as many in one of two."""
    assert found(recording, 14, 1.2) >= 95
    assert found(recording, 14, 1.1, cases=1) >= 80


@every_recording
def test_a_loud_machine_finds_what_it_says_it_finds(recording):
    """As if pairs scattered by a tenth: so many rounds as are named for a fifth find it about as often as is said."""
    loud = calmed(recording, 0.1)
    rounds = []
    for name in TIMES:
        known = [each for each in loud.floors if each.metric == name]
        rounds.append(rounds_to_find(1.2, pair_scatter(logs_of(loud, name)), known, rows=ROWS))
    assert None not in rounds
    assert found(loud, max(rounds), 1.2) >= 70


@every_recording
def test_floors_say_what_was_recorded(recording):
    """The stated floors hold 99 % of other draws of the same pairs, and grow with scatter in proportion."""
    generator = np.random.default_rng(23)
    for name in TIMES:
        logs = logs_of(recording, name)
        sides = [tuple(two_sides(generator, recording, name, 10)) for _ in range(1_000)]
        gaps = np.log([each.ratio for each in shifts(sides, paired=True)])
        assert 0.98 <= (np.abs(gaps) <= interleaved_reach(logs, 10)).mean() <= 0.998
        assert interleaved_reach(logs / 4, 10) == pytest.approx(interleaved_reach(logs, 10) / 4)
        assert apart_reach(logs / 4, 10) == pytest.approx(apart_reach(logs, 10) / 4)
