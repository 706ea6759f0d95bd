"""Distributions: every number of every case, data sets below each other."""

from reading import column
from sample_records import DISTRIBUTIONS, case, distribution, record, schema_1

from capsbench.report.distributions import distribution_tables
from capsbench.report.format import NOTHING


def test_rows_are_by_layer_then_quantity_then_case():
    """What is compared stands together: the same layer and quantity on two data sets."""
    [table] = distribution_tables([record(), record(case(dataset="toys"))])
    assert [tuple(cell.text for cell in row[:3]) for row in table.rows] == [
        ("conv_caps1", "activations", "mnist"),
        ("conv_caps1", "activations", "toys"),
        ("conv_caps1", "poses", "mnist"),
        ("conv_caps1", "poses", "toys"),
        ("conv_caps2", "activations", "mnist"),
        ("conv_caps2", "activations", "toys"),
    ]


def test_numbers_are_those_of_the_record():
    """Mean, deviation, quantiles, sparsity and dead share, exactly; what has no dead share says so."""
    [table] = distribution_tables([record()])
    for i, told in enumerate(DISTRIBUTIONS):
        wanted = (told.mean, told.deviation, told.quantiles[1], told.quantiles[3], told.quantiles[5])
        headers = ("mean", "deviation", "5 %", "50 %", "95 %")
        assert tuple(column(table, header)[i].value for header in headers) == wanted
        assert column(table, "% below\n0.01")[i].value == told.sparse_share
        assert column(table, "Hoyer")[i].value == told.hoyer
    assert [cell.text for cell in column(table, "dead %")] == ["6.25", NOTHING, "6.25"]


def test_what_holds_for_all_rows_is_said_once():
    """One data set, realization and seed leave the columns."""
    [table] = distribution_tables([record()])
    assert table.context[:2] == ("mnist", "torch:eager")
    assert [each.header for each in table.columns][:2] == ["layer", "quantity"]


def test_networks_have_tables_of_their_own_and_old_records_none():
    """A table a network; without distributions none."""
    other = record(case("em-tiny"), distributions=(distribution("caps", quantiles=()),))
    titles = [table.title for table in distribution_tables([record(), other, schema_1()])]
    assert titles == ["Activations and poses: em-seed", "Activations and poses: em-tiny"]
    assert column(distribution_tables([other])[0], "50 %")[0].text == NOTHING
