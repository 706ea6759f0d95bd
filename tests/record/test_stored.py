"""Records read as far as they are asked for say what they say when they are read whole."""

import json
import sys
import tracemalloc
from dataclasses import fields
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import case, exact, failed, iteration_run, record, run, sampled

from capsbench.errors import BadInput
from capsbench.record import store as store_module
from capsbench.record.codec import encode
from capsbench.record.packed import in_both, sample_count, samples_of, value_of
from capsbench.record.schema import Record
from capsbench.record.store import create
from capsbench.record.stored import StoredRecord, op_calls, op_names

HERE = Path(__file__).parent


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


@pytest.mark.parametrize("name", ["records-schema-1.jsonl", "records-schema-2.jsonl"])
def test_runs_of_older_schemas_are_read_as_whole(store, name):
    """Whatever was written before."""
    (store.folder / "records.jsonl").write_bytes((HERE / name).read_bytes())
    assert list(map(told, store.stored_records())) == list(map(told, store.latest_records()))


def test_only_the_ordinary_is_cut(store):
    """What capsbench writes today is cut and packed; a number that no float holds makes its line be read whole."""
    for each in (record(), *odd_records()):
        store.append(each)
    ordinary, *odd = store.stored_records()
    assert isinstance(ordinary, StoredRecord)
    assert [type(each) for each in odd[:3]] == [Record] * 3


def test_packed_metrics_tell_what_metrics_tell(store):
    """Value, kind, direction and samples, also of a metric that is not there."""
    store.append(record())
    [packed], [whole] = store.stored_records(), store.latest_records()
    for name in (*whole.metrics, "no_such_metric"):
        assert value_of(packed.metrics, name) == value_of(whole.metrics, name)
        assert sample_count(packed.metrics, name) == sample_count(whole.metrics, name)
        assert (name in packed.metrics) == (name in whole.metrics)
    for name in whole.metrics:
        assert samples_of(packed.metrics, name) == samples_of(whole.metrics, name)
    assert len(packed.metrics) == len(whole.metrics)
    told = list(in_both(whole.metrics, whole.metrics))
    for a in (packed.metrics, whole.metrics):
        assert list(in_both(a, packed.metrics)) == list(in_both(packed.metrics, a)) == told
    assert {kind for _, kind, *_ in told} == {"exact", "sampled"}
    assert op_calls(packed) == op_calls(whole) == sum(event.calls for event in whole.ops)
    assert op_names(packed) == op_names(whole) == {event.op for event in whole.ops}


def test_a_line_damaged_within_is_told_when_it_is_asked_for(store):
    """The numbers at its ends are shown; it has no ops, and is among the damaged lines from then on."""
    for each in (record(), record(case(seed=1))):
        store.append(each)
    path = store.folder / "records.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second.replace(b'"op":"Mul"', b'"op":Mul'))
    fine, broken = store.stored_records()
    assert store.damaged_lines == ()
    assert fine.ops
    assert broken.ops == ()
    assert store.damaged_lines == (2,)


def test_a_newer_record_replaces_an_older_and_torn_lines_are_told(store):
    """As `latest_records` has it."""
    store.append(failed(case(), "crash", "killed"))
    with (store.folder / "records.jsonl").open("ab") as file:
        file.write(b"\n" + encode(record(case(seed=7)))[:500] + b"\n")
    store.append(record())
    [found] = store.stored_records()
    assert found.status == "ok"
    assert store.damaged_lines == (3,)


def test_what_no_table_asks_for_is_not_parsed(store, monkeypatch):
    """Of a thousand records none is read whole until its ops are asked for, and then that one once."""
    line = encode(record())
    with (store.folder / "records.jsonl").open("wb") as file:
        file.writelines(line.replace(b'"id":"', b'"id":"%d-' % number, 1) for number in range(1_000))
    read = []
    monkeypatch.setattr(store_module, "decode", lambda *a: read.append(a) or decode(*a))
    found = store.stored_records()
    assert len(found) == 1_000
    assert not read
    assert found[500].ops == record().ops == found[500].ops
    assert len(read) == 1


decode = store_module.decode


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


def test_records_take_a_few_kilobytes_each(store):
    """However large their op tables are, and twice as many take twice as much."""
    peaks = []
    data = json.loads(encode(record()))
    line = json.dumps({**data, "ops": data["ops"] * 10}, separators=(",", ":")).encode() + b"\n"
    for count in (1_000, 2_000):
        with (store.folder / "records.jsonl").open("wb") as file:
            file.writelines(line.replace(b'"id":"', b'"id":"%d-' % number, 1) for number in range(count))
        if not peaks:
            store.stored_records()  # what is kept for all runs is kept already
        tracemalloc.start()
        try:
            kept = store.stored_records()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert len(kept) == count
        del kept
    assert peaks[1] < 2.2 * peaks[0]
    assert peaks[1] / 2_000 < 3_000
