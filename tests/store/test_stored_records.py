"""Records read as far as they are asked for say what they say when they are read whole."""

import sys
import tracemalloc
from dataclasses import fields
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import case, exact, iteration_run, record, run, sampled

from capsbench.errors import BadInput
from capsbench.record.codec import encode
from capsbench.record.schema import Record
from capsbench.store import records as lazy
from capsbench.store.legacy import import_lines
from capsbench.store.records import metric_column, metric_names, op_calls, op_names, sample_count, value_of
from capsbench.store.runs import create


def odd_records():
    """Records with something unusual in a metric, each of which must be read whole or packed just as well."""
    numbers = {"nan": float("nan"), "infinite": float("inf"), "large": 2**60 + 1, "whole": 3.0, "zero": 0}
    for name, value in numbers.items():
        yield record(case(dataset=name), metrics={"loss": exact(value, "1"), "time": sampled([0.1, 0.2])})
    yield record(case(dataset="names"), metrics={'a "b" },"ops":[ c': exact(1, '},"ops":[')}, reason='","parity":{')
    yield record(case(dataset="none"), metrics={}, parity=None, data={}, notes=())


@pytest.fixture
def store(tmp_path):
    return create(tmp_path, {})


def told(each):
    """Everything that a record says."""
    whole = {field.name: getattr(each, field.name) for field in fields(Record)}
    return encode(Record(**{**whole, "metrics": dict(whole["metrics"])}))


@pytest.mark.parametrize("records", [run(), iteration_run(), tuple(odd_records())])
def test_stored_records_say_what_whole_ones_say(store, records):
    """Field by field, to the last digit."""
    for each in records:
        store.append(each)
    assert list(map(told, store.stored_records())) == list(map(told, store.latest_records()))
    assert store.damaged_lines == ()


def test_packed_metrics_tell_what_metrics_tell(store):
    """Value, kind, direction and samples, also of a metric that is not there."""
    store.append(record())
    [packed], [whole] = store.stored_records(), store.latest_records()
    for name in (*whole.metrics, "no_such_metric"):
        assert value_of(packed.metrics, name) == value_of(whole.metrics, name)
        assert sample_count(packed.metrics, name) == sample_count(whole.metrics, name)
        assert (name in packed.metrics) == (name in whole.metrics)
    for name in whole.metrics:
        stored, held = metric_column([packed], name), metric_column([whole], name)
        assert (stored.facts, stored.values, stored.samples(0)) == (held.facts, held.values, held.samples(0))
    assert len(packed.metrics) == len(whole.metrics)
    assert metric_names([packed]) == metric_names([whole]) == set(whole.metrics)
    assert op_calls(packed) == op_calls(whole) == sum(event.calls for event in whole.ops)
    assert op_names(packed) == op_names(whole) == {event.op for event in whole.ops}


def test_what_no_table_asks_for_is_not_read(store, monkeypatch):
    """No record is read whole until its ops are asked for, and then that one once."""
    for seed in range(3):
        store.append(record(case(seed=seed)))
    read = []
    whole = lazy.read_records
    monkeypatch.setattr(lazy, "read_records", lambda *a: read.append(a) or whole(*a))
    found = store.stored_records()
    assert len(found) == 3
    assert not read
    assert found[1].ops == record().ops == found[1].ops
    assert len(read) == 1


@pytest.mark.parametrize("glob", ["em-seed", "torch:*", "*tensorflow-graph*", "cnn-seed"])
def test_a_glob_chooses_the_same_cases(store, glob):
    """Of those that it does not choose no more than the case is read, and no choice is refused in the same words."""
    for each in (*run(), *odd_records()):
        store.append(each)
    assert list(map(told, store.stored_records(glob))) == list(map(told, store.latest_records(glob)))
    with pytest.raises(BadInput) as whole:
        store.latest_records("no-such-case")
    with pytest.raises(BadInput) as cut:
        store.stored_records("no-such-case")
    assert str(cut.value) == str(whole.value)


def test_records_take_a_kilobyte_each(store):
    """However large their op tables are: a hundred thousand fit into memory."""
    line = encode(record())
    lines = store.folder / "records.jsonl"
    with lines.open("wb") as file:
        file.writelines(line.replace(b'"id":"', b'"id":"%d-' % number, 1) for number in range(1_000))
    import_lines(lines, store.folder / "run.sqlite")
    store.stored_records()  # what is kept for all runs is kept already
    tracemalloc.start()
    try:
        kept = store.stored_records()
        assert tracemalloc.get_traced_memory()[1] < 1_000 * 1_000
    finally:
        tracemalloc.stop()
    assert len(kept) == 1_000
