"""Several seeds and their interval, and time to accuracy: which cases have a table, and what stands in it."""

from dataclasses import replace

import pytest
from printing import printed_tables
from reading import column as cells
from sample_records import case, exact, failed, metrics, record

from capsbench.record.schema import SplitFacts
from capsbench.report.format import NOTHING
from capsbench.report.tables import report


def column(table, header):
    """The texts of a column."""
    return [cell.text for cell in cells(table, header)]


def of_seed(seed, accuracy, **changes):
    """A record of one seed."""
    return record(case(seed=seed, **changes), metrics=metrics(accuracy=accuracy))


def table(records, title="Accuracy over seeds"):
    """The table of this title; None where a report has none."""
    return next((each for each in report(records).tables if each.title == title), None)


def test_several_seeds_have_a_mean_and_an_interval():
    """0.93 ± 4.303 * 0.0361 / sqrt(3), kept below 100 %, and each seed's accuracy beside it."""
    found = table([of_seed(seed, value) for seed, value in enumerate((0.90, 0.92, 0.97))])
    assert column(found, "seeds") == ["3"]
    assert column(found, "mean %") == ["93.00"]
    assert column(found, "its 95 %\ninterval") == ["84.04–100.00"]
    assert [column(found, f"seed\n{seed}") for seed in range(3)] == [["90.00"], ["92.00"], ["97.00"]]
    [note] = found.notes
    assert "Student's t" in note


def test_of_many_seeds_the_ends_and_the_middle_are_told():
    """Eleven columns fit no screen, and the accuracy of each seed stands in the table of accuracies."""
    found = table([of_seed(seed, 0.80 + seed / 100) for seed in range(11)])
    assert column(found, "seeds") == ["11"]
    ends = [column(found, f"{name}\n%") for name in ("lowest", "median", "highest")]
    assert ends == [["80.00"], ["85.00"], ["90.00"]]
    assert not any(head.header.startswith("seed\n") for head in found.columns)


def test_one_seed_has_no_interval():
    """Neither a table of its own nor, beside others, a row; and two seeds of which one failed have no interval."""
    assert table([of_seed(0, 0.9), of_seed(0, 0.8, backend="tensorflow")]) is None
    diverged = replace(failed(case(seed=1), "diverged", "nan"), data=record().data)
    found = table([of_seed(0, 0.9), diverged, of_seed(3, 0.8, mode="tiled")])
    assert column(found, "seeds") == ["1 of 2"]
    assert column(found, "its 95 %\ninterval") == [NOTHING]
    assert column(found, "seed\n1") == [NOTHING]
    assert "the mean is too high" in found.notes[1]


def test_seeds_that_agree_leave_half_an_image_of_doubt():
    """The same accuracy three times, on 200 test images, is known to a quarter of a percent."""
    few = {"test": SplitFacts(count=200, full_count=200, sha256="f")}
    found = table([replace(of_seed(seed, 0.9), data=few) for seed in range(3)])
    assert column(found, "its 95 %\ninterval") == ["89.75–90.25"]


def test_only_the_seed_may_differ():
    """Another batch, mode, network file or other images are other groups."""
    other_network = of_seed(2, 0.5)
    other_network = replace(other_network, fingerprint=replace(other_network.fingerprint, network="other"))
    other_images = replace(of_seed(3, 0.5), data={"train": SplitFacts(count=1, full_count=2, sha256="f")})
    others = [of_seed(4, 0.5, batch=20), of_seed(5, 0.5, mode="tiled"), other_network, other_images]
    found = table([of_seed(0, 0.9), of_seed(1, 0.8), *others])
    assert column(found, "mean %") == ["85.00"]


def test_seeds_that_come_twice_are_no_sample():
    """Two suites may train one case differently, which a record does not tell: better no mean than a wrong one."""
    twice = [of_seed(0, 0.9), replace(of_seed(0, 0.5), case=replace(case(), id="of another suite")), of_seed(1, 0.8)]
    assert table(twice) is None
    fine = [of_seed(seed, 0.7, mode="tiled") for seed in (0, 1)]
    found = table([*twice, *fine])
    assert column(found, "mean %") == ["70.00"]
    assert found.notes[-1] == "em-seed, torch:eager, batch 50: left out, because seeds come twice."


@pytest.mark.parametrize("width", [80, 200])
def test_many_seeds_fit_the_screen(width):
    """The table is cut like any other, with the network in each of its parts."""
    text = printed_tables([table([of_seed(seed, 0.9 + seed / 1000) for seed in range(30)])], width)
    assert max(map(len, text.splitlines())) <= width
    assert "92.90" in text


def targeted(changes, notes=()):
    """A record of a case with a target."""
    values = {name: exact(value, "s" if "seconds" in name else "1") for name, value in changes.items()}
    return replace(record(notes=notes), metrics={**metrics(), **values})


def test_time_to_accuracy():
    """Steps, images and seconds, and a row without numbers for a case that did not reach the target."""
    took = {"steps_to_target": 1200, "images_to_target": 60_000, "seconds_to_target": 312.4}
    reached = targeted({**took, "evaluation_seconds_to_target": 12.0})
    missed = replace(
        targeted({}, ("the target of 98.5 % was not reached in 5 epochs",)), case=case(backend="tensorflow")
    )
    found = table([reached, missed, record(case(mode="tiled"))], "Time to accuracy")
    assert column(found, "steps") == [NOTHING, "1,200"]
    assert column(found, "images") == [NOTHING, "60,000"]
    assert column(found, "time") == [NOTHING, "312.4 s"]
    assert column(found, "of it\nevaluation") == [NOTHING, "12.0 s"]
    assert column(found, "status")[0].startswith("ok (")
    assert table([record()], "Time to accuracy") is None


def test_validation_accuracy_has_a_column_where_images_were_held_out():
    """Beside the test accuracy, not in its place."""
    held_out = targeted({"validation_accuracy": 0.961})
    accuracy = report([held_out, record(case(backend="tensorflow"))]).tables[0]
    assert column(accuracy, "validation %") == [NOTHING, "96.10"]
    assert "validation %" not in [each.header for each in report([record()]).tables[0].columns]
