"""Large runs are compared in columns, and come out as they do record by record."""

import random
from dataclasses import replace
from statistics import fmean

import pytest
from sample_records import EVENTS, case, exact, failed, metrics, noise_recording, record, sampled

from capsbench.measure.environment import Machine
from capsbench.metrics import METRICS, comparison_of, metric_type
from capsbench.record.changes import (
    WORDS,
    Changes,
    cases,
    chosen,
    counts,
    places_of,
    seeds,
    worst_first,
)
from capsbench.record.changes import (
    tested_examples as examples_of_times,
)
from capsbench.record.compare import compare, numbers
from capsbench.record.noise import Noise
from capsbench.record.pairs import APART, pair_cases, setting_of
from capsbench.report.comparison import apart, comparison_tables, noise_notes, summary, verdict_table
from capsbench.report.export import write
from capsbench.stats.shift import shift
from capsbench.stats.verdict import Difference, decide, difference, holm
from capsbench.store.runs import create

FIELDS = ("metric", "kind", "base", "new", "seen", "verdict", "text", "margin", "rows")
MACHINE = Machine(processor="Abacus", cores=2, memory_bytes=1, system="Linux", architecture="wood")
ORDER = {name: number for number, name in enumerate(METRICS)}
NOISE = Noise(machine=MACHINE, recordings=(noise_recording(0.06, 0.12),))


def side(draw):
    """Cases of several makes whose numbers are drawn, some of which failed, differ in kind or are written oddly."""
    generator = random.Random(draw)  # noqa: S311 - numbers, not secrets
    for network in ("em-seed", "em-tiny"):
        for mode in ("eager", "tiled", "fused"):
            for seed in range(12):
                key = case(network, mode=mode, seed=seed, batch=8 if mode == "tiled" else 50)
                yield varied(record(key, metrics=drawn(generator, mode), ops=EVENTS if seed % 3 else ()), generator)
    work = case("cnn-seed", iterations=None)
    yield from (record(replace(work, id=name), metrics=drawn(generator, "eager")) for name in ("short", "long"))
    yield from (record(case("alone", seed=draw)), record(case("both", seed=1 + draw % 2)))


def drawn(generator, mode):
    """Metrics that a seed moves by little, and a mode not at all or by much."""
    rounds = 7 if mode == "tiled" else 3
    steps = [0.2 * generator.gauss(1.0, 0.002) * generator.choice([1.0, 1.3]) for _ in range(rounds)]
    found = metrics(accuracy=generator.choice([0.97, 0.98, generator.random()]))
    return found | {
        "train_step_seconds": sampled([steps[0]] * 3 if generator.random() < 0.05 else steps),
        "forward_seconds": sampled([generator.choice([0.06, 0.07]) * generator.gauss(1.0, 0.01) for _ in range(3)]),
        "peak_bytes": exact(generator.choice([100, 101]), "B"),
        "allocated_bytes": sampled([generator.choice([1000.0, 1004.0, 1010.0])], "B"),
        "parameters": exact(generator.choice([5, 5, 6]), "1", "none"),
        "hits": exact(generator.choice([1, 2, 2.0]), "1", "higher"),
    }


def varied(each, generator):
    """The record, or one that is none like the others."""
    chance = generator.random()
    if chance < 0.08:
        return failed(each.case, generator.choice(["oom", "crash"]), "killed")
    if chance < 0.16:  # lines that must be read whole
        odd = exact(generator.choice([float("nan"), float("inf"), 2**60 + 1, 2**60]), "1")
        return replace(each, metrics=each.metrics | {"hits": odd})
    if chance < 0.24:
        return replace(each, metrics={name: each.metrics[name] for name in generator.sample(sorted(each.metrics), 5)})
    if chance < 0.32:
        return replace(each, fingerprint=replace(each.fingerprint, protocol="another"))
    if chance < 0.40:
        return replace(each, notes=(*each.notes, APART))
    if chance < 0.48:
        return replace(
            each, metrics=each.metrics | {"train_step_seconds": sampled([0.2, generator.choice([0.0, 1.0])])}
        )
    return each


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    made = [create(tmp_path_factory.mktemp("run"), {}) for _ in range(2)]
    for draw, store in enumerate(made):
        for each in side(draw):
            store.append(each)
    return made


def told(changes):
    """What each change says of which cases."""
    return [
        (each.pair.base.case.id, each.pair.new.case.id, *(repr(getattr(each, name)) for name in FIELDS))
        for each in changes
    ]


def one_by_one(pairs, *, noise, interleaved):
    """All verdicts, each reached alone but for the correction of p-values: (case, metric, verdict) in their order."""
    found = [row for pair in pairs for row in of_pair(pair, noise=noise, interleaved=interleaved)]
    found += of_errors(pairs)
    corrected = iter(holm([seen.p_value for _, _, seen, _ in found if not isinstance(seen, str) and is_tested(seen)]))
    verdicts = []
    for case_id, metric, seen, margin in found:
        if isinstance(seen, str):
            verdicts.append((case_id, metric, seen))
        else:
            p_value = next(corrected) if is_tested(seen) else 1.0
            verdicts.append((case_id, metric, decide(seen, p_value, margin)))
    by_test = {(case_id, metric): verdict for case_id, metric, verdict in verdicts}
    known = [(case_id, metric, by_test.get((case_id, verdict), verdict)) for case_id, metric, verdict in verdicts]
    return [each for each in known if each[2] in WORDS]


def is_tested(seen):
    """Whether a rank test of it could ever reject, so that it counts in the correction; differences always do."""
    return isinstance(seen, Difference) or seen.count > 1


def of_pair(pair, *, noise, interleaved):
    """What is seen of each number of a pair, and the margin; or the verdict where no other number has a say in it."""
    base, new = pair.base, pair.new
    if base.status != new.status:
        yield (
            base.case.id,
            "status",
            "worse" if base.status == "ok" else "better" if new.status == "ok" else "changed",
            0,
        )
    in_a, in_b = numbers(base), numbers(new)
    alike = base.fingerprint.protocol == new.fingerprint.protocol
    for name in sorted(in_a.keys() & in_b.keys(), key=lambda name: (ORDER.get(name, len(ORDER)), name)):
        if name == "epoch_seconds" and not alike:
            continue
        a, b = in_a[name], in_b[name]
        how = comparison_of(metric_type(name, a.unit, a.direction), is_exact=a.kind == b.kind == "exact")
        if how == "exact":
            moved = "better" if (b.value < a.value) == (a.direction == "lower") else "worse"
            moved = "changed" if a.direction == "none" else moved
            yield base.case.id, name, "same" if a.value == b.value else moved, 0
        elif how == "bytes":
            beyond = max(a.value, b.value) > min(a.value, b.value) * (1 + metric_type(name).margin)
            yield base.case.id, name, ("better" if b.value < a.value else "worse") if beyond else "same", 0
        elif metric_type(name).same_test_as in in_a.keys() & in_b.keys():
            yield base.case.id, name, metric_type(name).same_test_as, 0
        elif how in {"time", "rate"} and (seen := shift(*sides(a, b, name), paired=interleaved)):
            floors = [
                each.floor_of(base.case, name, seen.count, interleaved=interleaved and pair.beside) for each in noise
            ]
            yield base.case.id, name, seen, max(0.05, *floors, 0.0)


def sides(a, b, name):
    """The times of both sides, one a process; of a rate its reciprocals."""
    known = metric_type(name)
    for each in (a, b):
        samples = each.samples if known.is_replicated else (each.value,)
        yield [1.0 / sample for sample in samples] if known.comparison == "rate" else samples


def of_errors(pairs):
    """Differences of error rates over the seeds of each setting."""
    groups = {}
    for pair in pairs:
        alike = pair.base.fingerprint.protocol == pair.new.fingerprint.protocol
        if alike and "error_rate" in pair.base.metrics and "error_rate" in pair.new.metrics:
            groups.setdefault(setting_of(pair.base), []).append(pair)
    for group in groups.values():
        sides = ([getattr(pair, side).metrics["error_rate"].value for pair in group] for side in ("base", "new"))
        yield group[0].base.case.id, "error_rate", difference(*sides), 0.002


@pytest.mark.parametrize("noise", [(), (NOISE,)], ids=["no noise", "noise"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_columns_say_what_records_say(stores, noise, interleaved):
    """Number by number: verdicts as each alone has them, and everything as of records that are read whole."""
    stored = pair_cases(*(store.stored_records() for store in stores))
    whole = pair_cases(*(store.latest_records() for store in stores))
    asked = {"noise": noise, "interleaved": interleaved}
    columns, records = compare(stored.pairs, **asked), compare(whole.pairs, **asked)
    assert isinstance(columns, Changes)
    assert told(columns) == told(records)
    assert [(c.pair.base.case.id, c.metric, c.verdict) for c in records] == one_by_one(whole.pairs, **asked)
    assert {each.verdict for each in records} == {"better", "worse", "same", "undecided", "changed"}
    assert {each.kind for each in records} == {"status", "exact", "bytes", "time", "rate", "error"}
    assert fmean(each.kind == "time" for each in records) > 0.1


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("most", [7, None])
def test_what_is_said_of_columns_is_what_is_said_of_records(stores, everything, most):
    """Tables, counts and sentences, of some rows as of all."""
    said = []
    for read in ("stored_records", "latest_records"):
        pairing = pair_cases(*(getattr(store, read)() for store in stores))
        changes = compare(pairing.pairs, noise=[NOISE])
        tables = comparison_tables(changes, everything=everything, margin=0.05, most=most)
        sentences = [*noise_notes(changes, [NOISE], interleaved=False), *summary(changes, pairing)]
        table = verdict_table(changes, ("a", "b"), [*sentences, *apart(pairing, most)])
        said.append(write("json", [*tables, table]))
        assert counts(changes) == counts(tuple(changes))
        assert seeds(changes) == seeds(tuple(changes))
    assert said[0] == said[1]


def test_parts_of_changes_are_those_changes(stores):
    """By place, from behind and in slices."""
    changes = compare(pair_cases(*(store.stored_records() for store in stores)).pairs)
    listed = told(changes)
    assert told([changes[-1]]) == listed[-1:]
    assert told(changes[5:50:7]) == listed[5:50:7]
    with pytest.raises(IndexError):
        changes[len(changes)]


def test_chosen_changes_are_those_of_a_list(stores):
    """By verdict and metric, the worst first, and the places of a verdict, as of changes that are held one by one."""
    changes = compare(pair_cases(*(store.stored_records() for store in stores)).pairs)
    held, is_peak = list(changes), "peak_bytes".__eq__
    assert told(chosen(changes, ("worse", "better"))) == told(chosen(held, ("worse", "better")))
    assert told(chosen(changes, ("worse",), is_peak)) == told(chosen(held, ("worse",), is_peak)) != []
    assert told(worst_first(changes)) == told(worst_first(held))
    assert places_of(changes, "worse") == places_of(held, "worse")
    assert {each.pair.base.case.id for each in cases(changes)} == {each.pair.base.case.id for each in cases(held)}
    found = {(each.metric, each.pair.base.case.realization, each.margin) for each in examples_of_times(held)}
    assert {(each.metric, each.pair.base.case.realization, each.margin) for each in examples_of_times(changes)} == found
