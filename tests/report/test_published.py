"""Published numbers beside measured ones: no verdict without correspondence, and the right one with it."""

import math
from dataclasses import replace

import pytest
from printing import approved, printed_tables
from sample_records import case, exact, record, run
from sample_seed import seed_run

from capsbench.dataset import protocols
from capsbench.dataset.transform import Transform
from capsbench.record.claims import Claim, Ledger, Source, packaged_ledger
from capsbench.record.schema import SplitFacts
from capsbench.report.claims import claims_table, published_tables
from capsbench.report.correspondence import compare, concerns, family, transforms_of

FULL = {
    "train": SplitFacts(count=60_000, full_count=60_000, sha256="a"),
    "test": SplitFacts(count=10_000, full_count=10_000, sha256="b"),
}
TOYS = protocols.load("toys").transform
PLAIN = {"mnist": Transform()}
CLAIM = Claim(
    id="some-error",
    network="theirs",
    zoo="em-seed",
    metric="error_rate",
    value=2.0,
    unit="%",
    resolution=0.1,
    dataset="mnist",
    tested_on=10_000,
    trained_on=60_000,
    routing_iterations=2,
    epochs=5,
    transform=Transform(),
    source="paper",
    place="table 1",
    kind="paper table",
)
SOURCE = Source(citation="Somebody and others 2018", url="https://example.org/paper", read_in="the paper")


def measured(error=0.02, seed=0, **changes):
    """A case trained for five epochs on all of MNIST."""
    metrics = {
        "error_rate": exact(error, "1"),
        "accuracy": exact(1 - error, "1", "higher"),
        "parameters": exact(317_194, "1", "none"),
        "epoch_seconds": record().metrics["epoch_seconds"],
    }
    return record(case(seed=seed, **changes.pop("key", {})), **{"data": FULL, "metrics": metrics, **changes})


def verdict(claim, *records, transforms=PLAIN):
    [found] = compare([claim], records, transforms)
    return found.verdict, found.why


@pytest.mark.parametrize(
    ("error", "wanted"),
    [(0.02, "agrees"), (0.0176, "agrees"), (0.0165, "differs"), (0.0236, "differs"), (0.5, "differs")],
)
def test_where_all_corresponds_the_intervals_decide(error, wanted):
    """Wilson's interval on 10,000 images against 2.0 % give or take half its last digit."""
    found, why = verdict(CLAIM, measured(error))
    assert found == wanted
    assert why == "one seed, by chance on 10,000 test images"


def test_the_published_deviation_widens_the_published_number():
    """What differs from a number may agree with it and its spread."""
    assert verdict(replace(CLAIM, deviation=0.2, trials=3), measured(0.0236))[0] == "agrees"


def test_several_seeds_have_the_span_of_their_intervals():
    """Their mean is told, and the interval reaches from the lowest end to the highest."""
    seeds = [measured(0.016, seed=0), measured(0.024, seed=1)]
    [found] = compare([CLAIM], seeds, PLAIN)
    [low], [high] = ([*compare([CLAIM], [each], PLAIN)] for each in seeds)
    assert found.value == pytest.approx(2.0)
    assert found.interval == (low.interval[0], high.interval[1])
    assert (found.verdict, found.why[:7]) == ("agrees", "2 seeds")


def test_accuracy_and_error_say_the_same():
    """A claim of 98 % accuracy is judged as one of 2 % error."""
    accuracy = replace(CLAIM, metric="accuracy", value=98.0)
    for error in (0.02, 0.0165, 0.0236):
        assert verdict(accuracy, measured(error)) == verdict(CLAIM, measured(error))


PART = {**FULL, "train": SplitFacts(count=5_000, full_count=60_000, sha256="c")}
PART_TEST = {**FULL, "test": SplitFacts(count=1_000, full_count=10_000, sha256="c")}


@pytest.mark.parametrize(
    ("claim", "ours", "why"),
    [
        ({"comparable": False, "reasons": ("tested on what it learnt",)}, {}, "tested on what it learnt"),
        ({"protocol": "mnist-c"}, {}, "on mnist-c, not on mnist"),
        ({"variant": "no decoder"}, {}, "another variant: no decoder"),
        ({"routing_iterations": 3}, {}, "routed 2 times, the claim's network 3 times"),
        ({"routing_iterations": None}, {}, "routed 2 times, the claim's network as often as it does not tell"),
        ({}, {"data": PART}, "trained on 5,000 of 60,000 images, the claim's on 60,000"),
        ({}, {"data": PART_TEST}, "tested on 1,000 of 10,000 images, the claim's on 10,000"),
        ({"tested_on": 1_000}, {}, "tested on 10,000 images, the claim's on 1,000"),
        ({"trained_on": None}, {}, "on how many images the claim's was trained is not told"),
        ({"transform": Transform(shift=2)}, {}, "images: as they are, the claim's: shift"),
        ({"transform": Transform(resize=48, crop=32)}, {}, "images: as they are, the claim's: resize 48, crop 32"),
        ({"transform": None}, {}, "the claim's images were prepared in a way that is not told"),
        ({"transform": None, "preparation": "flips"}, {}, "prepared in a way of its own (flips)"),
        ({"epochs": 50}, {}, "trained for 5 epochs, the claim's for 50"),
    ],
)
def test_what_does_not_correspond_is_not_compared(claim, ours, why):
    """However near the numbers are, and the reason is told."""
    found, told = verdict(replace(CLAIM, **claim), measured(**ours))
    assert found == "not comparable"
    assert why in told


def test_a_record_that_does_not_tell_is_not_compared():
    """Splits that were not recorded, and a transform that the run's header does not give."""
    assert verdict(CLAIM, measured(data={})) == (
        "not comparable",
        "on how many images this was tested is not recorded; on how many images this was trained is not recorded",
    )
    for transforms in ({}, {"mnist": None}):
        assert (
            verdict(CLAIM, measured(), transforms=transforms)[1]
            == "how this run's images were prepared is not recorded"
        )


def test_two_reasons_are_told_and_the_others_counted():
    """What weighs most comes first."""
    worse = replace(CLAIM, variant="no decoder", protocol="mnist-c", epochs=50, trained_on=None)
    assert verdict(worse, measured())[1] == "on mnist-c, not on mnist; another variant: no decoder; and 2 more"


def test_amounts_of_augmentation_are_left_open_but_not_its_kinds():
    """Shifts by one pixel and by two are the same kind; the size of the image is not left open."""
    shifted = replace(CLAIM, transform=Transform(shift=2))
    assert verdict(shifted, measured(), transforms={"mnist": Transform(shift=1)})[0] == "agrees"
    cropped = {"mnist": Transform(crop=24, shift=2)}
    assert verdict(shifted, measured(), transforms=cropped)[0] == "not comparable"


def test_times_of_another_device_are_never_compared():
    """Not even where batch and number are the same."""
    time = replace(CLAIM, metric="train_step_seconds", unit="s", value=0.2, device="TITAN Xp", batch=50)
    timed = measured(metrics=record().metrics)
    assert verdict(time, timed) == ("not comparable", "times of another device (TITAN Xp)")
    assert "batch 50, the claim's 128" in verdict(replace(time, batch=128), timed)[1]


@pytest.mark.parametrize(
    ("value", "resolution", "wanted"),
    [(317_194, 1, "agrees"), (317_193, 1, "differs"), (320_000, 10_000, "agrees"), (310_000, 10_000, "differs")],
)
def test_parameters_are_compared_as_exactly_as_they_were_published(value, resolution, wanted):
    """A rounded number agrees with whatever rounds to it; splits and iterations make no parameters."""
    claim = replace(CLAIM, metric="parameters", unit="1", value=float(value), resolution=resolution, epochs=None)
    found = [*compare([claim], [measured(data={}), measured(key={"backend": "tensorflow", "mode": "graph"})], {})]
    assert [(each.verdict, each.realization) for each in found] == [(wanted, "—")]


def test_what_is_not_comparable_for_the_same_reasons_is_one_row():
    """Realizations are told apart only where there is a verdict on each."""
    pair = [measured(0.02), measured(0.024, key={"backend": "tensorflow", "mode": "graph"})]
    assert [each.verdict for each in compare([CLAIM], pair, PLAIN)] == ["agrees", "differs"]
    [one] = compare([replace(CLAIM, variant="no decoder")], pair, PLAIN)
    assert (one.realization, one.value) == ("2 modes", pytest.approx(2.2))


@pytest.mark.parametrize(
    ("ours", "wanted"),
    [
        ({}, True),
        ({"network": "theirs"}, True),
        ({"network": "em-paper"}, False),
        ({"dataset": "fashion-mnist"}, False),
        ({"dataset": "toys"}, False),
    ],
)
def test_a_claim_concerns_its_network_and_data_set(ours, wanted):
    """By the name in the zoo or its own; a record of something else is none of its business."""
    assert concerns(CLAIM, record(case(**ours))) is wanted


@pytest.mark.parametrize(
    ("dataset", "wanted"),
    [
        ("smallnorb", "smallnorb"),
        ("smallnorb-novel-azimuth", "smallnorb"),
        ("smallnorb-single", "smallnorb"),
        ("toys-novel-elevation", "toys"),
        ("affine-mnist", "affnist"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_variants_of_a_data_set_belong_together(dataset, wanted):
    """A claim on smallNORB stands beside a run on a part of it, which is then not comparable."""
    assert family(dataset) == wanted


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_what_is_no_number_is_left_out(error):
    """As is a case that measured nothing."""
    assert [*compare([CLAIM], [measured(error), record(metrics={})], PLAIN)] == []


@pytest.mark.parametrize(
    ("suites", "wanted"),
    [
        ([{"suite": {"dataset": "mnist"}}], {"mnist": Transform()}),
        ([{"suite": {"dataset": {"name": "mnist", "transform": {"shift": 2}}}}], {"mnist": Transform(shift=2)}),
        ([{"suite": {"dataset": ["mnist", {"name": "toys"}]}}], {"mnist": Transform(), "toys": TOYS}),
        ([{"suite": {"dataset": ["mnist", {"name": "mnist", "transform": {"crop": 24}}]}}], {"mnist": None}),
        ([{"suite": {"dataset": {"name": "mnist", "transform": {"whirl": 2}}}}], {"mnist": None}),
        ([{"suite": {"dataset": {"name": "toys", "transform": None}}}], {"toys": TOYS}),
        ([{"suite": {"dataset": "unheard-of"}}], {"unheard-of": None}),
        ([{"suite": {"dataset": {"name": 3}}}, {"suite": None}, "mnist", {}], {}),
        ("mnist", {}),
        (None, {}),
    ],
)
def test_transforms_are_those_of_the_runs_suites(suites, wanted):
    """run.json has them; what is of another make, or told in two ways, is not known."""
    assert transforms_of({"suites": suites}) == wanted


def header(name="mnist", **transform):
    return {"suites": [{"suite": {"name": name, "dataset": {"name": "mnist", "transform": transform}}}]}


def test_the_table(monkeypatch):
    """One row a claim and verdict, numbers with their intervals, sources that are quoted marked."""
    quoted = replace(SOURCE, read_in="quoted in somebody's README")
    claims = (
        CLAIM,
        replace(CLAIM, id="wide", value=3.1, deviation=0.016, resolution=0.01, trials=3, source="readme"),
        replace(CLAIM, id="params", metric="parameters", unit="1", value=310_000.0, resolution=10_000),
        replace(CLAIM, id="step", metric="train_step_seconds", unit="s", value=1.05, device="TITAN Xp", batch=128),
        replace(CLAIM, id="parts", tested_on=1_000, variant="without a decoder", epochs=50),
    )
    ledger = Ledger(sources={"paper": SOURCE, "readme": quoted}, claims=claims)
    other = measured(0.024, key={"backend": "tensorflow", "mode": "graph"}, metrics={**record().metrics})
    tables = published_tables([measured(0.0193), measured(0.0201, seed=1), other], ledger, header())
    text = "".join(printed_tables(tables, width) for width in (120, 200))
    assert text == approved("published", text)
    text = printed_tables(claims_table([measured()], ledger), 100)
    assert text == approved("claims", text)


def test_no_table_without_claims():
    """A run of networks that nobody published anything on has neither table."""
    strangers = [record(case("linear"))]
    assert published_tables(strangers, packaged_ledger(), header()) == ()
    assert [*claims_table(strangers, packaged_ledger())] == []


def test_no_claim_is_printed_twice():
    """The 2018 study's own table has its accuracies, and then they are not in this one."""
    for name, wanted in (("mnist", True), ("seed", False)):
        [table] = published_tables(seed_run(), packaged_ledger(), header(name))
        assert any(row[0].text.startswith("seed-mnist") for row in table.rows) is wanted


def test_capsbenchs_own_ledger_concerns_its_own_networks():
    """A run of the 2018 network on MNIST stands beside the study and the code it took."""
    [table] = published_tables(run(), packaged_ledger(), header())
    ids = {row[0].text.partition(",")[0] for row in table.rows}
    assert {"seed-mnist", "upstream-mnist", "upstream-step-128"} <= ids
    assert {row[-1].text for row in table.rows} == {"not comparable"}
