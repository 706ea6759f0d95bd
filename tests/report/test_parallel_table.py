"""The table of cases on several devices."""

from dataclasses import replace

from printing import printed_tables
from reading import by_name
from sample_records import case, failed, record, sampled

from capsbench.record.schema import DataParallel, Drift
from capsbench.report.parallel import parallel_tables
from capsbench.report.tables import report

FOUND = DataParallel(devices=2, steps=20, loss_max_relative_deviation=3e-6, limit=1e-4, passed=True)
DRIFT = Drift(float32_steps=4, float64_steps=12, float64_deviation=1e-12)


def on_several(devices, found, efficiencies=(0.9, 0.95, 0.8), network="em-seed"):
    """A record of a case on several devices."""
    plain = record(case(network, devices=devices))
    metrics = {
        **plain.metrics,
        "one_device_images_per_second": sampled([130.0], "images/s", "higher"),
        "scaling_efficiency": sampled(efficiencies, "1", "higher"),
    }
    return replace(plain, data_parallel=replace(found, devices=devices), metrics=metrics)


def texts(table, header):
    """The cells of a column, by network."""
    return {name: cell.text for name, cell in by_name(table, header).items()}


def test_it_says_what_several_devices_gain():
    """Throughput, efficiency with its range, and how the losses were judged; a failed case is a row too."""
    drifted = replace(FOUND, loss_max_relative_deviation=3e-3, drift=DRIFT)
    broken = failed(case("em-yl", devices=2), "parity_failed", "losses are off")
    broken = replace(broken, data_parallel=replace(FOUND, passed=False))
    records = [record(), on_several(2, FOUND), on_several(4, drifted, network="em-paper"), broken]
    (table,) = parallel_tables(records)
    assert texts(table, "backend:mode") == {
        "em-seed": "torch:eager ×2",
        "em-paper": "torch:eager ×4",
        "em-yl": "torch:eager ×2",
    }
    assert texts(table, "efficiency\n%")["em-seed"] == "90.00"
    assert texts(table, "its\nrange")["em-seed"] == "80.00–95.00"
    assert texts(table, "on one\ndevice") == {"em-seed": "130", "em-paper": "130", "em-yl": "—"}
    assert texts(table, "of\nlosses") == {"em-seed": "passed", "em-paper": "rounding", "em-yl": "failed"}
    assert texts(table, "loss\ndeviation")["em-paper"] == "3.0e-03"
    assert "rounding: beyond the limit" in printed_tables([table])


def test_it_is_there_where_it_is_needed():
    """Among the tables of a run, which is also what is exported; never without a case on several devices."""
    assert "Data parallel" in [table.title for table in report([record(), on_several(2, FOUND)]).tables]
    assert "Data parallel" not in [table.title for table in report([record()]).tables]
