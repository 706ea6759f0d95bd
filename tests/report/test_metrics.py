"""The table of metrics is complete: what is measured stands in it, and what it says is compared is compared."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
from sample_records import case, record

from capsbench.metrics import METRICS, comparison_of, depends_on_machine, metric_type
from capsbench.record.compare import compare
from capsbench.record.measured import exact, once, sampled
from capsbench.record.pairs import pair_cases
from capsbench.record.schema import Metric
from capsbench.stats.verdict import ALPHA

CORE = Path(__file__).parents[2] / "capsbench"
ROUNDS = 12


def measured(worse):
    """Every metric of the table, each sampled in so many processes, `worse` times as bad as it should be."""
    factor = {"lower": worse, "higher": 1.0 / worse, "none": 1.0}
    found = {}
    for known in METRICS.values():
        base = 0.5 if known.unit == "1" else 100.0
        samples = [base * factor[known.direction] * (1.0 + 0.001 * number) for number in range(ROUNDS)]
        found.update([sampled(known.name, samples)])
    found["error_rate"] = replace(found["error_rate"], value=0.01 * worse)
    return found


def compared(worse):
    """Every metric, of two runs of which one is so many times as bad: the changes by metric."""
    sides = [[record(case(seed=0), metrics=measured(factor), ops=())] for factor in (1.0, worse)]
    return {change.metric: change for change in compare(pair_cases(*sides).pairs)}


def test_what_gets_nine_times_worse_has_a_row():
    """Each metric that the table says is compared has one, and no other; samples that suffice say so."""
    changes = compared(9.0)
    assert set(changes) == {name for name, known in METRICS.items() if known.comparison != "not"}
    for name, change in changes.items():
        known = METRICS[name]
        assert change.kind == known.comparison
        decided = known.is_replicated and known.comparison != "error" and known.direction != "none"
        assert (change.verdict == "worse") == decided, name
        if known.comparison in {"time", "rate"}:
            assert change.ratio == pytest.approx(9.0 if known.direction == "lower" else 1 / 9.0)
            low, high = change.interval
            assert low <= change.ratio <= high


def test_what_is_exact_is_compared_exactly():
    """A metric that repeats to the last digit differs as soon as it differs, unless it is what training came to."""
    sides = []
    for more in (0, 1):
        found = dict(exact(name, 1000 + more) for name in METRICS)
        sides.append([record(case(seed=0), metrics=found, ops=())])
    changes = {change.metric: change for change in compare(pair_cases(*sides).pairs)}
    assert {name for name, known in METRICS.items() if not known.is_outcome} <= set(changes)
    for name, change in changes.items():
        if not METRICS[name].is_outcome:
            wanted = {"lower": "worse", "higher": "better", "none": "changed"}[METRICS[name].direction]
            assert (change.kind, change.verdict) == ("exact", wanted), name


def test_a_rate_shares_the_test_of_its_time():
    """Images a second are batch over step: the same verdict and evidence, and no further test to correct for."""
    changes = compared(9.0)
    rate, time = changes["images_per_second"], changes["train_step_seconds"]
    assert rate.seen == time.seen
    assert rate.margin == time.margin
    tests = [known for known in METRICS.values() if known.comparison in {"time", "rate"} and known.is_replicated]
    assert time.rows == len(tests) - 1 + 1  # the rate has none; the error rate has one
    assert time.seen.p_value * time.rows < ALPHA


def test_a_metric_is_made_by_the_table():
    """No other module of the core makes one, so one that the table does not know is a KeyError where it is made."""
    readers = {"record/measured.py", "record/compare.py", "store/read.py", "store/records.py", "store/run.py"}
    makers = {
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Metric"
    }
    assert "record/measured.py" in makers
    assert makers <= readers
    with pytest.raises(KeyError, match="joules"):
        once("joules", 1.0)


@pytest.mark.parametrize(
    ("name", "unit", "direction", "kind", "verdict"),
    [
        ("energy_joules", "J", "lower", "time", "worse"),
        ("idle_seconds", "s", "higher", "rate", "better"),
        ("hit_share", "1", "higher", "rate", "better"),
        ("cache_bytes", "B", "lower", "bytes", "worse"),
        ("page_bytes", "B", "none", "bytes", "changed"),
    ],
)
def test_an_unknown_metric_is_what_its_record_says(name, unit, direction, kind, verdict):
    """One of another version, sampled nine times as large, is judged by the unit and direction of its record."""
    sides = []
    for factor in (1.0, 9.0):
        samples = tuple(factor * (1.0 + 0.001 * number) for number in range(ROUNDS))
        kept = Metric(value=samples[0], unit=unit, direction=direction, kind="sampled", samples=samples)
        sides.append([record(case(seed=0), metrics={name: kept}, ops=())])
    changes = {change.metric: change for change in compare(pair_cases(*sides).pairs)}
    assert (changes[name].kind, changes[name].verdict) == (kind, verdict)
    assert changes[name].ratio == pytest.approx(9.0)


def test_times_of_other_trainings_are_not_compared():
    """What a training took says nothing about one by another protocol; what a step took does."""
    base, new = (record(case(seed=0), metrics=measured(factor), ops=()) for factor in (1.0, 9.0))
    other = replace(new, fingerprint=replace(new.fingerprint, protocol="another"))
    alike, unlike = ({change.metric for change in compare(pair_cases([base], [side]).pairs)} for side in (new, other))
    assert alike - unlike == {"epoch_seconds", "seconds_to_target", "error_rate"}


def test_a_metric_of_no_record_is_what_its_name_says():
    """One that no record is at hand of, by the unit in its name."""
    kinds = {"warm_seconds": "time", "votes_per_second": "rate", "cache_bytes": "bytes", "joy": "not"}
    assert {name: metric_type(name).comparison for name in kinds} == kinds
    assert comparison_of(metric_type("joy"), is_exact=True) == "exact"
    assert metric_type("votes_per_second").direction == "higher"
    assert [name for name in kinds if depends_on_machine(name)] == ["warm_seconds", "votes_per_second"]
