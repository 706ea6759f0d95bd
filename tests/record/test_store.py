"""A run on disk: nothing that was recorded is lost, whatever happened to the file."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsbench.errors import BadInput
from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.codec import decode, encode, record_schema
from capsbench.record.schema import SCHEMA, CaseKey, Fingerprint, Metric, Parity, Record, SplitFacts
from capsbench.record.store import RunStore, create, open_run

SCHEMA_1 = Path(__file__).parent / "records-schema-1.jsonl"
SCHEMA_2 = Path(__file__).parent / "records-schema-2.jsonl"
SCHEMA_3 = Path(__file__).parent / "records-schema-3.jsonl"

any_float = st.floats()
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = any_float | st.integers()
words = st.text(max_size=20)


def records(numbers=numbers, floats=any_float):
    """Any record, with all kinds of numbers and texts."""
    metric = st.builds(
        Metric,
        value=numbers,
        unit=words,
        direction=...,
        kind=...,
        samples=st.lists(floats, max_size=4).map(tuple),
        interval=st.none() | st.tuples(floats, floats),
        contended=st.integers(0, 9),
    )
    event = st.builds(
        OpEvent, op=words, native=words, layer=st.none() | words, phase=..., self_seconds=floats, allocated_bytes=...
    )
    alive = st.builds(LiveTensor, name=st.none() | words, op=st.none() | words, layer=st.none() | words)
    profile = st.builds(
        StepProfile,
        events=st.lists(event, max_size=2).map(tuple),
        step_seconds=floats,
        bare_seconds=st.none() | floats,
        peak_bytes=st.none() | st.integers(),
        alive_at_peak=st.lists(alive, max_size=2).map(tuple),
    )
    several = st.lists(floats, max_size=3).map(tuple)
    numbers_of = dict.fromkeys(("mean", "deviation", "least", "greatest", "sparse_share", "hoyer"), floats)
    distribution = st.builds(Distribution, layer=words, quantiles=several, dead_share=st.none() | floats, **numbers_of)
    routing = st.builds(
        RoutingIteration, layer=words, coupling_entropy=floats, agreement_gain=floats, starved_share=floats
    )
    parity = st.builds(
        Parity,
        oracle=words,
        forward_max_relative_error=floats,
        gradient_relative_error=floats,
        forward_limit=floats,
        gradient_limit=floats,
    )
    return st.builds(
        Record,
        schema=st.just(SCHEMA),
        run=words,
        case=st.builds(CaseKey, id=words),
        status=...,
        reason=words,
        parity=st.none() | parity,
        metrics=st.dictionaries(words, metric, max_size=3),
        ops=st.lists(event, max_size=3).map(tuple),
        step_profile_seconds=st.none() | floats,
        step_profile_bytes=st.none() | st.integers(),
        step_bare_seconds=st.none() | floats,
        alive_at_peak=st.lists(alive, max_size=2).map(tuple),
        forward_profile=st.none() | profile,
        equations=st.lists(st.builds(LayerCost, layer=words, output=words), max_size=2).map(tuple),
        distributions=st.lists(distribution, max_size=2).map(tuple),
        routing=st.lists(routing, max_size=2).map(tuple),
        data=st.dictionaries(words, st.builds(SplitFacts, count=..., full_count=..., sha256=words), max_size=2),
        notes=st.lists(words, max_size=3).map(tuple),
        fingerprint=...,
    )


def record(case_id="em-tiny.mnist.torch-eager.b8.i2.s0-01234567", status="ok", **changes):
    """A small record."""
    key = CaseKey(
        id=case_id,
        network="em-tiny",
        dataset="mnist",
        backend="torch",
        mode="eager",
        device="cpu",
        batch=8,
        routing_iterations=2,
        seed=0,
        threads=2,
        precision="float32",
        allocator="heap",
    )
    return Record(
        run="r", case=key, status=status, fingerprint=Fingerprint(network="a", protocol="b", environment="c"), **changes
    )


@pytest.fixture
def store(tmp_path):
    """An empty run."""
    return create(tmp_path, {"suites": []})


@given(records(st.floats(allow_nan=False, allow_infinity=False) | st.integers(), finite))
def test_what_is_written_is_read_back(record):
    """A record with finite numbers comes back equal."""
    assert decode(encode(record), "here") == record


@given(records())
def test_lines_are_strict_json_within_the_published_schema(record):
    """Any record, NaN and infinities included, is one line of strict JSON that fits the schema and reads back."""
    line = encode(record)

    def refuse(name):
        raise AssertionError(f"bare {name}")

    data = json.loads(line, parse_constant=refuse)
    jsonschema.Draft202012Validator(record_schema()).validate(data)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert encode(decode(line, "here")) == line


@settings(max_examples=30)
@given(kept=st.lists(records(), max_size=4), data=st.data())
def test_finished_agrees_with_a_full_reading(tmp_path, kept, data):
    """The quick look at a line's two ends finds what parsing it in full finds, wherever the last line was torn."""
    store = create(tmp_path, {})
    for each in kept:
        store.append(each)
    path = store.folder / "records.jsonl"
    if kept:
        whole = path.read_bytes()
        last = len(whole) - len(encode(kept[-1]))
        path.write_bytes(whole[: data.draw(st.integers(last, len(whole)))])
    latest = {each.case.id: each.status for each in store.records()}
    assert store.finished() == {case for case, status in latest.items() if status != "crash"}


def test_finished_reads_lines_of_another_make(store):
    """A line with its keys in another order, as another program may write it, counts as well."""
    data = json.loads(encode(record()))
    (store.folder / "records.jsonl").write_text(json.dumps(dict(reversed(data.items())), indent=None) + "\n")
    assert store.finished() == {record().case.id}


def test_a_crash_does_not_finish_a_case_and_a_later_record_replaces_it(store):
    """A case that crashed runs again, and then its last record counts, at the place of the first."""
    store.append(record("a", "crash"))
    store.append(record("b", "oom", reason="too large"))
    assert store.finished() == {"b"}
    store.append(record("a"))
    assert store.finished() == {"a", "b"}
    assert [(each.case.id, each.status) for each in store.latest_records()] == [("a", "ok"), ("b", "oom")]
    store.append(record("b", "crash"))
    assert store.finished() == {"a"}


@pytest.mark.parametrize("torn", [1, 20, -30, -2, -1])
def test_a_torn_last_line_harms_no_other(store, torn):
    """A line that a crash cut short is skipped and counted; the next record begins on a line of its own."""
    store.append(record("a"))
    path = store.folder / "records.jsonl"
    path.write_bytes(path.read_bytes() + encode(record("b"))[:-1][:torn])
    store.append(record("c"))
    assert [each.case.id for each in store.records()] == ["a", "c"]
    assert store.damaged_lines == (2,)
    assert store.finished() == {"a", "c"}


def test_a_line_that_lacks_only_its_end_of_line_is_whole(store):
    """A crash between the last byte and the line's end costs nothing."""
    store.append(record("a"))
    path = store.folder / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    store.append(record("b"))
    assert [each.case.id for each in store.records()] == ["a", "b"]
    assert store.damaged_lines == ()


@pytest.mark.parametrize("line", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b'{"schema":1}', b'"' + b"[" * 100_000])
def test_a_corrupt_line_is_never_fatal(store, line):
    """Whatever stands on a line, the others are read."""
    (store.folder / "records.jsonl").write_bytes(line + b"\n" + encode(record("a")))
    assert [each.case.id for each in store.records()] == ["a"]
    assert store.damaged_lines == ((1,) if line else ())
    assert store.finished() == {"a"}


@pytest.mark.parametrize("read", [lambda store: list(store.records()), RunStore.finished, RunStore.latest_records])
def test_a_newer_schema_is_refused_in_words(store, read):
    """A record of a newer capsbench is bad input that names file and line, not a damaged line."""
    path = store.folder / "records.jsonl"
    path.write_bytes(encode(record("a")) + encode(replace(record("b"), schema=SCHEMA + 1)))
    with pytest.raises(BadInput, match=r"records\.jsonl:2: a newer capsbench wrote this"):
        read(store)


def test_a_run_of_schema_1_stays_readable(store):
    """Lines that an older capsbench wrote, one of a failed case, come back whole; what it did not know is empty."""
    lines = SCHEMA_1.read_bytes().splitlines(keepends=True)
    (store.folder / "records.jsonl").write_bytes(b"".join(lines))
    failed, fine = store.latest_records()
    assert store.damaged_lines == ()
    assert store.finished() == {failed.case.id, fine.case.id}
    assert (failed.schema, failed.status, failed.reason) == (1, "oom", "fake: cannot allocate 12 GiB")
    assert fine.metrics["train_step_seconds"].interval == (0.020338411666666667, 0.020585172333333332)
    assert [(event.op, event.allocated_bytes, event.live_bytes_at_peak) for event in fine.ops] == [
        ("MatMul", 6272, 0),
        ("MatMul", 320, 0),
        ("Softmax", 320, 0),
        ("Sub", 64, 0),
    ]
    for old, line in zip((failed, fine), lines, strict=True):
        known = json.loads(line)
        again = json.loads(encode(old))
        (again["parity"] or {}).pop("rounding", None)
        del again["case"]["devices"]
        assert {key: again[key] for key in known if key != "ops"} == {k: v for k, v in known.items() if k != "ops"}
        unknown = {field.name for field in fields(old)} - set(known)
        assert unknown == {"step_bare_seconds", "alive_at_peak", "forward_profile"} | {
            "equations",
            "distributions",
            "routing",
            "data_parallel",
        }
        assert not any(getattr(old, name) for name in unknown)


def test_a_run_of_schema_2_stays_readable(store):
    """A line that knew nothing of rounding comes back whole, and says nothing of it."""
    (store.folder / "records.jsonl").write_bytes(SCHEMA_2.read_bytes())
    [found] = store.latest_records()
    assert (found.schema, found.status) == (2, "ok")
    assert found.parity.rounding is None
    known, again = json.loads(SCHEMA_2.read_bytes()), json.loads(encode(found))
    assert again["parity"].pop("rounding") is None
    assert (again["case"].pop("devices"), again.pop("data_parallel")) == (1, None)
    assert again == known


def test_a_run_of_schema_3_stays_readable(store):
    """A line that knew nothing of several devices comes back whole, as one of a case on one device."""
    (store.folder / "records.jsonl").write_bytes(SCHEMA_3.read_bytes())
    [found] = store.latest_records()
    assert (found.schema, found.status, found.case.devices, found.data_parallel) == (3, "ok", 1, None)
    known, again = json.loads(SCHEMA_3.read_bytes()), json.loads(encode(found))
    assert (again["case"].pop("devices"), again.pop("data_parallel")) == (1, None)
    assert again == known


def test_old_and_new_records_share_a_run(store):
    """A run begun with schema 1 is gone on with in the present one; a case that runs again has its new record."""
    (store.folder / "records.jsonl").write_bytes(SCHEMA_1.read_bytes())
    first, second = store.latest_records()
    store.append(record(first.case.id))
    store.append(record("new"))
    assert [(each.case.id, each.schema) for each in store.latest_records()] == [
        (first.case.id, SCHEMA),
        (second.case.id, 1),
        ("new", SCHEMA),
    ]


def test_a_run_appears_whole(tmp_path):
    """Nothing but the run's own folder is left, with run.json in it and the run's id in that."""
    store = create(tmp_path / "deep" / "results", {"suites": [{"name": "x"}], "noise": float("nan")})
    assert [path.name for path in (tmp_path / "deep" / "results" / "runs").iterdir()] == [store.run_id]
    assert [path.name for path in store.folder.iterdir()] == ["run.json"]
    assert store.header() == {"run": store.run_id, "suites": [{"name": "x"}], "noise": "NaN"}


def test_results_that_cannot_be_written_are_bad_input(tmp_path):
    """A file where the folder should be is named, whoever runs this."""
    (tmp_path / "results").write_text("a file")
    with pytest.raises(BadInput, match=r"results: cannot write results there"):
        create(tmp_path / "results", {})


def test_runs_are_found_by_folder_id_prefix_and_latest(tmp_path):
    """All four ways of naming a run lead to the same folder."""
    first, second = create(tmp_path, {}), create(tmp_path, {})
    os.utime(first.folder / "run.json", ns=(1, 1))
    assert open_run(tmp_path, "latest").folder == second.folder
    assert open_run(tmp_path, str(first.folder)).run_id == first.run_id
    assert open_run(tmp_path, first.run_id).folder == first.folder
    assert open_run(tmp_path, first.run_id[:-1]).folder == first.folder


@pytest.mark.parametrize(("run", "message"), [("2", "any of 2"), ("x", "unknown run 'x'"), ("", "unknown run ''")])
def test_a_run_that_is_not_one_is_bad_input(tmp_path, run, message):
    """An ambiguous beginning and an unknown name are refused, with what there is."""
    store, _ = create(tmp_path, {}), create(tmp_path, {})
    with pytest.raises(BadInput, match=message) as caught:
        open_run(tmp_path, run)
    assert store.run_id in str(caught.value)


def test_no_run_at_all_is_bad_input(tmp_path):
    """`latest` of nothing says where nothing is."""
    with pytest.raises(BadInput, match=r"no run 'latest'.*runs"):
        open_run(tmp_path, "latest")


@pytest.mark.parametrize("text", [None, "[1]", "{"])
def test_a_broken_header_is_bad_input(store, text):
    """run.json that is missing, no object or no JSON is named."""
    path = store.folder / "run.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(BadInput, match=r"run\.json: "):
        store.header()


@pytest.mark.parametrize("case_id", ["", "..", ".", "a/b", "/etc", "a\\b", "a\0b"])
def test_artifacts_stay_in_the_run(store, case_id):
    """No case id leads out of the run's folder."""
    with pytest.raises(BadInput, match="cannot name a folder"):
        store.artifacts(case_id)


def test_artifacts_are_made_and_an_empty_run_can_be_removed(store):
    """A case's folder is there when asked for; a run in which no case ended leaves nothing, one with records stays."""
    assert store.artifacts("a").is_dir()
    store.append(record("a"))
    store.discard_empty()
    assert store.folder.is_dir()
    (store.folder / "records.jsonl").unlink()
    store.discard_empty()
    assert not store.folder.exists()


def test_finished_takes_many_lines_in_stride(store, monkeypatch):
    """Lines that capsbench wrote are not parsed in full: 5,000 of them need no decoding at all."""
    line = encode(record("CASE", ops=(OpEvent("Mul", "mul", None, "forward", None, 1, 0.1, 1),) * 40))
    with (store.folder / "records.jsonl").open("wb") as file:
        file.writelines(line.replace(b"CASE", b"case %d" % number) for number in range(5_000))
    monkeypatch.setattr("capsbench.record.store.decode", lambda *_: pytest.fail("a line was parsed in full"))
    assert len(store.finished()) == 5_000
