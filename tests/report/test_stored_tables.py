"""Tables of records that lie in a file in columns are those of records that are held one by one."""

from dataclasses import replace

import pytest
from sample_records import case, exact, failed, iteration_run, metrics, record, run, sampled

from capsbench.measure.ceilings import Ceilings
from capsbench.record.ceilings import DeviceCeilings
from capsbench.report.export import write
from capsbench.report.sections import Sections, section_tables
from capsbench.report.tables import report
from capsbench.store.runs import create

CEILINGS = (
    DeviceCeilings(device="cpu", threads=2, precision="float32", backend="numpy", ceilings=Ceilings(1e11, 1e10, 2e11)),
)


def mixed():
    """Cases of every kind, some with whole numbers where others have parts, some whose lines must be read whole."""
    yield from (*run(), *iteration_run())
    for seed in range(12):
        accuracy = exact(1 if seed == 3 else 0.9 + seed / 1000, "1", "higher")
        known = metrics() | {"accuracy": accuracy}
        if seed == 5:
            known |= {"error_rate": exact(float("nan"), "1")}
        yield record(case("em-tiny", seed=seed, mode="tiled" if seed % 2 else "fused"), metrics=known)
    target = {"steps_to_target": exact(5, "1"), "seconds_to_target": sampled([2.5])}
    yield record(case("em-yl", seed=1), metrics=metrics() | target)
    yield replace(record(case("em-yl", seed=2)), notes=("the target of 0.9 was not reached",))
    yield record(case("em-yl", devices=2), metrics=metrics() | {"one_device_images_per_second": sampled([9.0])})
    yield failed(case("em-yl", seed=9), "oom", "too much")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = create(tmp_path_factory.mktemp("run"), {})
    for each in mixed():
        made.append(each)
    return made


def tables(records):
    """All tables of a run."""
    asked = Sections(ops="phase", layers=True, iterations=True, peak=True, histograms=True)
    yield from report(records, ceilings=CEILINGS).tables
    yield from section_tables(records, asked, CEILINGS)


@pytest.mark.parametrize("kind", ["csv", "json", "md", "latex"])
@pytest.mark.parametrize("glob", [None, "em-yl", "em-tiny"])
def test_every_table_is_the_same(store, kind, glob):
    """To the letter, in every format."""
    stored, held = (write(kind, tables(read(glob))) for read in (store.stored_records, store.latest_records))
    assert stored == held
    assert len(held) > 1_000


def test_notes_are_the_same(store):
    """With the same numbers."""
    stored, held = (report(read()) for read in (store.stored_records, store.latest_records))
    assert (stored.notes, stored.general) == (held.notes, held.general)
