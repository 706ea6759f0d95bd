"""A run on disk: nothing that was recorded is lost, whatever happened to the file."""

import json
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsbench.errors import BadInput, Unwritten
from capsbench.measure.distribution import Distribution, RoutingIteration
from capsbench.measure.optable import LiveTensor, OpEvent, StepProfile
from capsbench.network.cost import LayerCost
from capsbench.record.codec import decode, encode, record_schema
from capsbench.record.schema import SCHEMA, CaseKey, Fingerprint, Metric, Parity, Record, SplitFacts
from capsbench.store.run import RunStore
from capsbench.store.runs import create, open_run

LATER_PARTS = ("perturbed", "train_steps", "failure")
"""What parity has since been asked beside forward and gradient."""
SCHEMA_1 = Path(__file__).parent / "records-schema-1.jsonl"
SCHEMA_2 = Path(__file__).parent / "records-schema-2.jsonl"
SCHEMA_3 = Path(__file__).parent / "records-schema-3.jsonl"

any_float = st.floats()
unsigned_zero = any_float.map(lambda number: number + 0.0)  # SQLite does not keep the sign of a zero
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


@pytest.fixture
def lines(store, tmp_path, monkeypatch):
    """The records.jsonl of a run that an older capsbench wrote."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (store.folder / "run.sqlite").unlink()
    return store.folder / "records.jsonl"


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


@settings(max_examples=60)
@given(kept=st.lists(records(unsigned_zero | st.integers(), unsigned_zero), max_size=4))
def test_what_is_stored_is_read_back(tmp_path, kept):
    """Any record comes back as it was appended, NaN and infinities included; the last one of a case counts."""
    store = create(tmp_path, {})
    latest = {}
    for each in kept:
        with suppress(BadInput):  # a whole number beyond 64 bits
            store.append(each)
            latest[each.case.id.encode("utf-8", "replace").decode()] = encode(each)
    assert {each.case.id: encode(each) for each in store.records()} == latest
    stored = [replace_metrics(each) for each in store.stored_records()]
    assert [encode(each) for each in stored] == list(latest.values())
    assert store.finished() == {each.case.id for each in store.records() if each.status != "crash"}


def replace_metrics(stored):
    """A stored record as an ordinary one."""
    told = {field.name: getattr(stored, field.name) for field in fields(Record)}
    return Record(**{**told, "metrics": dict(told["metrics"])})


def test_lines_of_another_order_are_read(store, lines):
    """A line with its keys in another order, as another program may write it, counts as well."""
    data = json.loads(encode(record()))
    lines.write_text(json.dumps(dict(reversed(data.items())), indent=None) + "\n")
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


@pytest.mark.parametrize("torn", [1, 20, -30, -2])
def test_a_torn_last_line_harms_no_other(store, lines, torn):
    """A line of an older run that a crash cut short is skipped and counted, also once the run is resumed."""
    lines.write_bytes(encode(record("a")) + encode(record("b"))[:-1][:torn])
    assert store.finished() == {"a"}
    with store.writing():
        store.append(record("c"))
    assert [each.case.id for each in store.records()] == ["a", "c"]
    assert store.damaged_lines == (2,)


def test_duplicate_keys_are_read_alike(store, lines):
    """Where a key stands twice on a line of an older run, every reader takes the last."""
    line = encode(record("a")).replace(b'"status":"ok"', b'"status":"ok","stat\\u0075s":"crash"')
    lines.write_bytes(line)
    assert [each.status for each in store.records()] == [each.status for each in store.stored_records()] == ["crash"]
    assert store.finished() == set()
    assert [each.status for each in store.glimpses("accuracy")] == ["crash"]


@pytest.mark.parametrize("key", ["batch", "seed", "threads"])
def test_a_number_of_400_digits_damages_its_line_only(store, lines, key):
    """The other records of the run stay readable."""
    line = encode(record("a")).replace(f'"{key}":'.encode(), f'"{key}":{"9" * 400}'.encode())
    lines.write_bytes(line + encode(record("b")))
    assert [each.case.id for each in store.stored_records()] == ["b"]
    assert store.damaged_lines == (1,)


def test_a_database_beside_the_lines_is_no_cache(store, lines):
    """Lines are imported again when they change, and never from a file that came with the run's folder."""
    lines.write_bytes(encode(record("a")))
    assert store.finished() == {"a"}
    assert [path.name for path in store.folder.iterdir() if path.suffix != ".json"] == ["records.jsonl"]
    lines.write_bytes(encode(record("b")))
    assert store.finished() == {"b"}


def test_a_foreign_database_is_bad_input(store):
    """A run.sqlite that is no database, none of ours, or of a newer capsbench is refused in a sentence."""
    path = store.folder / "run.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(BadInput, match="a newer capsbench wrote this"):
        store.stored_records()
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(BadInput, match="not a run of capsbench"):
        store.finished()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(BadInput, match="cannot read the run's records"):
        list(store.records())


@pytest.mark.parametrize("gone", ["run.sqlite", "."])
def test_a_run_that_is_deleted_while_it_runs_is_noticed(store, gone):
    """The next record cannot be written, and nothing is made anew in the place of what was there."""
    with store.writing():
        store.append(record("a"))
        target = store.folder / gone
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        with pytest.raises(Unwritten, match="the file is gone"):
            store.append(record("b"))
    assert not (store.folder / "run.sqlite").exists()


def test_each_record_says_which_start_measured_it(store):
    """A resume is a row of its own in `start`, with its time, commit and machine."""
    environment = {"commit": {"hash": "c" * 40, "dirty": False}, "machine": {"cores": 2}, "packages": {"numpy": "2"}}
    for case_id, started in (("a", "2026-12-01T08:00:00+00:00"), ("b", "2026-12-02T08:00:00+00:00")):
        with store.writing({"started": started, "environment": environment, "suites": []}):
            store.append(record(case_id))
    query = "SELECT case_id, started, commit_hash, machine FROM record JOIN start ON start.id = start_id"
    with closing(sqlite3.connect(store.folder / "run.sqlite")) as connection:
        assert connection.execute(query).fetchall() == [
            ("a", "2026-12-01T08:00:00+00:00", "c" * 40, '{"cores":2}'),
            ("b", "2026-12-02T08:00:00+00:00", "c" * 40, '{"cores":2}'),
        ]


def test_a_run_from_years_ahead_does_not_stay_the_latest(store, tmp_path):
    """A run begun while the clock was wrong is placed by when its files were written."""
    ahead = store.folder.rename(store.folder.with_name("20360101T000000Z-abcdef"))
    os.utime(ahead / "run.json", ns=(1, 1))
    assert open_run(tmp_path, "latest").folder == ahead
    assert open_run(tmp_path, create(tmp_path, {}).run_id).run_id == open_run(tmp_path, "latest").run_id


@pytest.mark.parametrize("line", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b'{"schema":1}', b'"' + b"[" * 100_000])
def test_a_corrupt_line_is_never_fatal(store, lines, line):
    """Whatever stands on a line, the others are read."""
    lines.write_bytes(line + b"\n" + encode(record("a")))
    assert [each.case.id for each in store.records()] == ["a"]
    assert store.damaged_lines == ((1,) if line else ())
    assert store.finished() == {"a"}


@pytest.mark.parametrize("read", [lambda store: list(store.records()), RunStore.finished, RunStore.latest_records])
def test_a_newer_schema_is_refused_in_words(store, lines, read):
    """A record of a newer capsbench is bad input that names file and line, not a damaged line."""
    lines.write_bytes(encode(record("a")) + encode(replace(record("b"), schema=SCHEMA + 1)))
    with pytest.raises(BadInput, match=r"records\.jsonl:2: a newer capsbench wrote this"):
        read(store)


def test_a_run_of_schema_1_stays_readable(store, lines):
    """Lines that an older capsbench wrote, one of a failed case, come back whole; what it did not know is empty."""
    lines.write_bytes(SCHEMA_1.read_bytes())
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
    for old, line in zip((failed, fine), SCHEMA_1.read_bytes().splitlines(), strict=True):
        known = json.loads(line)
        again = json.loads(encode(old))
        for unknown in ("rounding", *LATER_PARTS):
            (again["parity"] or {}).pop(unknown, None)
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


def test_a_run_of_schema_2_stays_readable(store, lines):
    """A line that knew nothing of rounding comes back whole, and says nothing of it."""
    lines.write_bytes(SCHEMA_2.read_bytes())
    [found] = store.latest_records()
    assert (found.schema, found.status) == (2, "ok")
    assert found.parity.rounding is None
    known, again = json.loads(SCHEMA_2.read_bytes()), json.loads(encode(found))
    assert [again["parity"].pop(name) for name in ("rounding", *LATER_PARTS)] == [None, None, None, ""]
    assert (again["case"].pop("devices"), again.pop("data_parallel")) == (1, None)
    assert again == known


def test_a_run_of_schema_3_stays_readable(store, lines):
    """A line that knew nothing of several devices comes back whole, as one of a case on one device."""
    lines.write_bytes(SCHEMA_3.read_bytes())
    [found] = store.latest_records()
    assert (found.schema, found.status, found.case.devices, found.data_parallel) == (3, "ok", 1, None)
    known, again = json.loads(SCHEMA_3.read_bytes()), json.loads(encode(found))
    assert (again["case"].pop("devices"), again.pop("data_parallel")) == (1, None)
    assert [again["parity"].pop(name) for name in LATER_PARTS] == [None, None, ""]
    assert again == known


def test_old_and_new_records_share_a_run(store, lines):
    """A run begun with schema 1 is gone on with in the present one; a case that runs again has its new record."""
    lines.write_bytes(SCHEMA_1.read_bytes())
    first, second = store.latest_records()
    with store.writing():
        store.append(record(first.case.id))
        store.append(record("new"))
    assert [(each.case.id, each.schema) for each in store.latest_records()] == [
        (first.case.id, SCHEMA),
        (second.case.id, 1),
        ("new", SCHEMA),
    ]


def test_a_run_appears_whole(tmp_path):
    """Nothing but the run's own folder is left, with run.json and run.sqlite in it, and the run's id in that."""
    store = create(tmp_path / "deep" / "results", {"suites": [{"name": "x"}], "noise": float("nan")})
    assert [path.name for path in (tmp_path / "deep" / "results" / "runs").iterdir()] == [store.run_id]
    assert {path.name for path in store.folder.iterdir()} == {"run.json", "run.sqlite"}
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


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("2", "any of 2"),
        ("x" * 300, "unknown run"),
        ("a\0b", "unknown run"),
        ("x", "unknown run 'x'"),
        ("", "unknown run ''"),
    ],
)
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


@pytest.mark.parametrize("text", [None, "[1]", "{", "[" * 100_000])
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


def test_artifacts_are_made_and_a_run_with_records_stays(store):
    """A case's folder is there when asked for; a run in which a case ended is not discarded."""
    assert store.artifacts("a").is_dir()
    store.append(record("a"))
    store.discard_empty()
    assert store.folder.is_dir()


def test_an_empty_run_can_be_removed(store):
    """A run in which no case ended leaves nothing."""
    store.discard_empty()
    assert not store.folder.exists()
