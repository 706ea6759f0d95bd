"""A large run is read from a catalog beside its records, which never says anything but what the lines say."""

import math
import os
import sys
from array import array
from dataclasses import fields, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))

from sample_records import case, failed, iteration_run, record, run

from capsbench.record import catalog, kept_catalog
from capsbench.record.codec import encode
from capsbench.record.schema import Record
from capsbench.record.store import create

_INDICES = ("setting_of", "checks_of", "kind_of", "layout_of")


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Catalogs of the smallest run are kept."""
    monkeypatch.setattr(kept_catalog, "_WORTH_KEEPING_BYTES", 1)


@pytest.fixture
def store(tmp_path):
    made = create(tmp_path, {})
    for each in (*run(), *iteration_run(), replace(record(case(seed=5)), reason="a \N{SNOWMAN}", notes=("n",))):
        made.append(each)
    return made


@pytest.fixture
def lines_read(monkeypatch):
    """The lines that are read rather than known."""
    read = []
    add = catalog.Catalog.add
    monkeypatch.setattr(catalog.Catalog, "add", lambda self, line: read.append(line) or add(self, line))
    return read


def beside(store):
    """The file of the catalog."""
    return store.folder / ".records.catalog"


def told(each):
    """Everything that a record says."""
    whole = {field.name: getattr(each, field.name) for field in fields(Record)}
    return encode(Record(**{**whole, "metrics": dict(whole["metrics"])}))


def says_the_truth(store):
    """Whether the records are those of the lines, read one by one."""
    return list(map(told, store.stored_records())) == list(map(told, store.latest_records()))


def test_the_second_reading_reads_no_line(store, lines_read):
    """And says the same, field by field, also of what has ended."""
    finished = store.finished()
    assert says_the_truth(store)
    assert beside(store).is_file()
    lines_read.clear()
    assert says_the_truth(store)
    assert store.finished() == finished
    assert not lines_read


def test_lines_added_since_are_all_that_is_read(store, lines_read):
    """Also where a case ran again; what is kept grows with them."""
    store.stored_records()
    more = [record(case(seed=77)), failed(case(seed=5), "crash", "killed")]
    for each in more:
        store.append(each)
    lines_read.clear()
    assert says_the_truth(store)
    assert lines_read == [encode(each) for each in more]
    lines_read.clear()
    assert says_the_truth(store)
    assert case(seed=5).id not in store.finished()
    assert not lines_read


def _touched(path):
    os.utime(path)


def _copied(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("change", [_touched, _copied])
def test_the_same_bytes_are_believed_wherever_they_lie(store, lines_read, change):
    """A run that was copied keeps its catalog."""
    store.stored_records()
    change(store.folder / "records.jsonl")
    lines_read.clear()
    assert says_the_truth(store)
    assert not lines_read


def test_an_edited_line_is_seen(store):
    """Though the file is as large as before and was given its old time."""
    before = store.stored_records()[-1].metrics["peak_bytes"].value
    path = store.folder / "records.jsonl"
    old, text = path.stat(), path.read_bytes()
    at = text.rindex(b'"value":%d' % before)
    path.write_bytes(text[:at] + b'"value":%d' % (before + 1) + text[at:].partition(b"%d" % before)[2])
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert path.stat().st_size == old.st_size
    assert says_the_truth(store)
    assert store.stored_records()[-1].metrics["peak_bytes"].value == before + 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spoil", ["cut", "flip"])
def test_a_damaged_catalog_is_made_again(store, lines_read, share, spoil):
    """Wherever it is cut or a bit of it is another."""
    store.stored_records()
    content = bytearray(beside(store).read_bytes())
    place = int(share * len(content))
    if spoil == "cut":
        del content[place:]
    else:
        content[place] ^= 16
    beside(store).write_bytes(content)
    lines_read.clear()
    assert says_the_truth(store)
    assert len(lines_read) == len(list(store.records()))
    lines_read.clear()
    store.stored_records()
    assert not lines_read


def test_a_catalog_of_another_version_is_made_again(store, lines_read, monkeypatch):
    """Whoever changes how lines are read counts the version up."""
    store.stored_records()
    monkeypatch.setattr(kept_catalog, "_VERSION", kept_catalog._VERSION + 1)
    lines_read.clear()
    assert says_the_truth(store)
    assert lines_read


def test_a_catalog_with_parts_that_do_not_fit_is_refused(store):
    """A checksum says that bytes are those written, not who wrote them."""
    made = kept_catalog.catalog_of(store.folder / "records.jsonl")
    columns, shared, numbers = made.columns, made.shared, made.numbers
    catalog.Catalog(made.covered, columns, shared, numbers)
    beyond, before = (array("q", [index] * len(columns.lines)) for index in (len(columns.lines), -1))
    far = dict.fromkeys(_INDICES, array("q", [-100] * len(columns.lines)))
    endless = tuple(((*each[0][:5], 2**62, each[0][6]), *each[1:]) if each else each for each in shared.layouts)
    spoiled = [
        (replace(columns, **far), replace(shared, ids=[None] * len(columns.lines)), array("d")),
        (columns, replace(shared, layouts=endless), numbers),
        *((replace(columns, **{name: beyond}), shared, numbers) for name in _INDICES),
        *((replace(columns, **{name: before}), shared, numbers) for name in _INDICES),
        (replace(columns, starts=before), shared, numbers),
        (replace(columns, seeds=columns.seeds[1:]), shared, numbers),
        (columns, replace(shared, ids=[None, *shared.ids[1:]]), numbers),
        (columns, replace(shared, layouts=shared.layouts[1:]), numbers),
        (columns, shared, numbers[1:]),
        (columns, shared, array("d", [math.nan, *numbers[1:]])),
    ]
    for parts in spoiled:
        with pytest.raises(ValueError):  # noqa: PT011 - of several makers, all of which count as damage
            catalog.Catalog(made.covered, *parts)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        (b'"contended":0', b'"contended":0.5'),
        (b'"samples":[', b'"samples":[NaN,'),
        (b'"samples":[', b'"samples":[1e999,'),
        (b'"value":', b'"value":1e999,"was":'),
        (b'"run":"', b'"run":"\xff'),
        (b'"run":"', b'"run":"\x01'),
    ],
)
def test_what_capsbench_does_not_write_is_left_to_the_parser(store, written, instead):
    """Parts of a sample, numbers that are none, and names that are no text: the whole line decides what they mean."""
    line = encode(record(case(seed=99)))
    assert written in line
    with (store.folder / "records.jsonl").open("ab") as file:
        file.write(line.replace(written, instead))
    for _ in range(2):
        assert says_the_truth(store)


def test_torn_blank_and_odd_lines_are_told_as_without(store):
    """A last line that is still being written is not kept, and read when it is whole."""
    path = store.folder / "records.jsonl"
    late = encode(record(case(seed=99)))
    with path.open("ab") as file:
        file.write(b'\n\n{"torn\n' + late.replace(b'{"schema"', b'{ "schema"').replace(b".s99", b".s98") + late[:700])
    for _ in range(2):
        assert says_the_truth(store)
        torn = store.damaged_lines
        assert len(torn) == 2
        assert not any(each.case.seed == 99 and ".s99" in each.case.id for each in store.stored_records())
    with path.open("ab") as file:
        file.write(late[700:])
    assert says_the_truth(store)
    assert store.damaged_lines == torn[:1]
    assert store.stored_records()[-1].case.id == record(case(seed=99)).case.id


@pytest.mark.skipif(os.name != "posix", reason="folders of no writing")
def test_a_run_that_cannot_be_written_is_read_all_the_same(store, monkeypatch):
    """Nothing is kept then, and nobody is told."""

    def refused(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kept_catalog, "whole_file", refused)
    assert says_the_truth(store)
    assert not beside(store).exists()


def test_small_runs_keep_no_catalog(store, monkeypatch):
    """Their lines are read in a moment."""
    monkeypatch.setattr(kept_catalog, "_WORTH_KEEPING_BYTES", 16 << 20)
    assert says_the_truth(store)
    assert not beside(store).exists()
