"""Novel viewpoints: which cases have a table, and at which epoch networks are compared."""

from dataclasses import replace

from printing import approved, printed_tables
from reading import column as cells
from sample_records import case, exact, metrics, record

from capsbench.report.history import CheckResult, EpochResult, read_histories
from capsbench.report.matched import matched_tables
from capsbench.report.tables import report


def column(table, header):
    """The texts of a column."""
    return [cell.text for cell in cells(table, header)]


def trained(network, seed, epochs, dataset="toys-novel-azimuth"):
    """A record of one seed and its epochs, of (familiar, novel) accuracies."""
    history = tuple(
        EpochResult(
            epoch=number,
            train_loss=0.1,
            test_accuracy=novel,
            familiar_accuracy=familiar,
            learning_rate=0.1,
            margin=0.2,
            seconds=1.0,
            evaluation_seconds=1.0,
        )
        for number, (familiar, novel) in enumerate(epochs, 1)
    )
    key = replace(case(network=network, seed=seed, dataset=dataset), id=f"{network}.{dataset}.{seed}")
    familiar, novel = epochs[-1]
    return record(key, metrics=metrics(accuracy=novel) | {"familiar_accuracy": exact(familiar, "1", "higher")}), {
        key.id: history
    }


def table_of(*cases):
    """The table of some cases, the only one."""
    [table] = matched_tables(
        [found for found, _ in cases], {key: h for _, epochs in cases for key, h in epochs.items()}
    )
    return table


def test_networks_are_compared_where_they_are_equally_good():
    """The better one is read at its first epoch as good as the worse one's end, each seed at its own."""
    table = table_of(
        trained("em-68k", 0, [(0.80, 0.70), (0.90, 0.80)]),
        trained("cnn-paper", 0, [(0.85, 0.60), (0.91, 0.70), (0.97, 0.85)]),
    )
    assert column(table, "familiar\n%") == ["90.00", "97.00"]
    assert column(table, "novel\n%") == ["80.00", "85.00"]
    assert column(table, "matched\nepoch") == ["2", "2"]
    assert column(table, "familiar\nmatched %") == ["90.00", "91.00"]
    assert column(table, "novel\nmatched %") == ["80.00", "70.00"]


def test_evaluations_within_an_epoch_are_matched_too():
    """A network that is past the other one's accuracy after its first epoch is read within it."""
    better, history = trained("cnn-paper", 0, [(0.95, 0.85), (0.97, 0.86)])
    checks = (
        CheckResult(step=1, test_accuracy=0.30, familiar_accuracy=0.40),
        CheckResult(step=2, test_accuracy=0.62, familiar_accuracy=0.81),
        CheckResult(step=3, test_accuracy=0.70),
    )
    first, second = history[better.case.id]
    epochs = (replace(first, losses=(0.1,) * 8, checks=checks), second)
    table = table_of(trained("em-68k", 0, [(0.80, 0.70)]), (better, {better.case.id: epochs}))
    assert column(table, "matched\nepoch") == ["1", "0.25"]
    assert column(table, "novel\nmatched %") == ["70.00", "62.00"]


def test_seeds_have_an_interval():
    """The mean over seeds decides what is matched, ± is half of Student's interval, a seed below ends."""
    table = table_of(
        trained("em-68k", 0, [(0.90, 0.80)]),
        trained("em-68k", 1, [(0.94, 0.82)]),
        trained("cnn-paper", 0, [(0.93, 0.70), (0.95, 0.71)]),
        trained("cnn-paper", 1, [(0.91, 0.72), (0.96, 0.74)]),
    )
    assert column(table, "familiar\n%") == ["92.00 ± 25.41", "95.50 ± 6.35"]
    assert column(table, "matched\nepoch") == ["1", "1–2"]
    assert column(table, "novel\nmatched %") == ["81.00 ± 12.71", "72.00 ± 25.41"]
    assert approved("matched", printed_tables([table])) == printed_tables([table])


def test_each_data_set_has_a_table_of_its_own():
    """Accuracies on different images are never matched."""
    azimuth, elevation = trained("em-68k", 0, [(0.9, 0.8)]), trained("em-68k", 0, [(0.5, 0.4)], "toys-novel-elevation")
    tables = matched_tables([azimuth[0], elevation[0]], azimuth[1] | elevation[1])
    assert [table.title for table in tables] == [
        "Novel viewpoints, toys-novel-azimuth",
        "Novel viewpoints, toys-novel-elevation",
    ]
    assert "Novel viewpoints, toys-novel-azimuth" in [
        table.title for table in report([azimuth[0]], histories=azimuth[1]).tables
    ]


def test_without_familiar_images_or_epochs_there_is_no_table():
    """A case of another protocol, and one whose epochs are not there, have nothing to match."""
    found, _ = trained("em-68k", 0, [(0.9, 0.8)])
    assert matched_tables([found], {}) == ()
    assert matched_tables([record()], {record().case.id: ()}) == ()


def test_damaged_epochs_are_left_out(tmp_path):
    """`show` goes on without a history that is not as training writes it, and reads none that it does not need."""
    found, _ = trained("em-68k", 0, [(0.9, 0.8)])
    (tmp_path / "history.json").write_text("{", encoding="utf-8")
    assert read_histories([found, record()], lambda _: tmp_path) == {}
