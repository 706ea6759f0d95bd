"""The ledger of published numbers: sound, strictly read, and found wherever capsbench runs."""

import json
import re
from pathlib import Path

import pytest

from capsbench.dataset import protocols
from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.record.claims import TIMES, UNITS, ledger_path, packaged_ledger, packaged_path, read_ledger

CHECKOUT = Path(__file__).parents[2] / "results" / "claims.yaml"
SOURCE = "{citation: Somebody and others 2018, url: 'https://example.org/paper', read_in: the paper}"
CLAIM = {
    "id": "some-error",
    "network": "a net",
    "metric": "error_rate",
    "value": 1.8,
    "unit": "%",
    "resolution": 0.1,
    "dataset": "mnist",
    "source": "paper",
    "place": "table 1",
    "kind": "paper table",
}
CLAIMS = packaged_ledger().claims


def written(tmp_path, *claims, sources=f"{{paper: {SOURCE}}}"):
    """A ledger with these claims, a line each."""
    path = tmp_path / "claims.yaml"
    lines = "".join(f"- {json.dumps(claim)}\n" for claim in claims)
    path.write_text(f"sources: {sources}\nclaims:\n{lines}", encoding="utf-8")
    return path


def without(key):
    return {name: value for name, value in CLAIM.items() if name != key}


def test_a_ledger_is_read(tmp_path):
    """A claim comes out as it was written, with its source, and with the decimals it was published with."""
    ledger = read_ledger(written(tmp_path, {**CLAIM, "value": 2, "deviation": 0.25, "trials": 3}))
    [claim] = ledger.claims
    assert (claim.text, claim.slack, ledger.source(claim).quoted) == ("2.0", 0.25, False)
    assert ledger.claim("some-error") is claim


@pytest.mark.parametrize(
    ("value", "resolution", "text"), [(99.3, 0.01, "99.30"), (84.5, 1.0, "84.5"), (310_000, 10_000, "310,000")]
)
def test_a_number_keeps_its_digits(value, resolution, text, tmp_path):
    """Zeros that were published are printed, and no digit that was told is lost."""
    unit = {"metric": "parameters", "unit": "1"} if value > 100 else {"metric": "accuracy"}
    claim = {**CLAIM, **unit, "value": value, "resolution": resolution}
    assert read_ledger(written(tmp_path, claim)).claims[0].text == text


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (without("place"), "claims.yaml:3:claims[0].place: this key is required but missing"),
        ({**CLAIM, "tabel": 1}, "claims[0].tabel: unknown key 'tabel'"),
        ({**CLAIM, "metric": "acuracy"}, "claims[0].metric: 'acuracy' is not legal, legal are 'accuracy'"),
        ({**CLAIM, "value": "1.8"}, "claims[0].value"),
        ({**CLAIM, "value": 0}, "claims[0].value"),
        ({**CLAIM, "unit": "s"}, "claims.yaml:3:claims[0]: error_rate is told in '%', not in 's'"),
        ({**CLAIM, "value": 101.0}, "101 % is more than all images"),
        ({**CLAIM, "metric": "parameters", "unit": "1"}, "parameters are whole, 1.8 are not"),
        ({**CLAIM, "metric": "epoch_seconds", "unit": "s"}, "a time needs the device"),
        ({**CLAIM, "op": "Mul"}, "the key op names the op of op_bytes"),
        ({**CLAIM, "metric": "op_bytes", "unit": "MB"}, "the key op names the op of op_bytes"),
        ({**CLAIM, "trials": 3}, "there is none"),
        ({**CLAIM, "comparable": False}, "such a claim needs one"),
        ({**CLAIM, "reasons": ["it was tested on training data"]}, "reasons say why a claim is not comparable"),
        ({**CLAIM, "source": "other"}, "'some-error' is from 'other', which is none of the sources"),
        ({**CLAIM, "id": "Some Error"}, "claims[0].id"),
    ],
)
def test_a_bad_claim_is_refused(claim, says, tmp_path):
    """At file, line and key, in one sentence."""
    with pytest.raises(BadInput) as caught:
        read_ledger(written(tmp_path, claim))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_claim_comes_once(tmp_path):
    """Two under one id are refused, and so is a source that nothing is from."""
    with pytest.raises(BadInput, match="'some-error' comes twice"):
        read_ledger(written(tmp_path, CLAIM, CLAIM))
    with pytest.raises(BadInput, match="no claim is from the source 'idle'"):
        read_ledger(written(tmp_path, CLAIM, sources=f"{{paper: {SOURCE}, idle: {SOURCE}}}"))


@pytest.mark.parametrize("url", ["http://example.org", "example.org/paper", "https://exam ple.org"])
def test_a_source_is_one_that_can_be_opened(url, tmp_path):
    """A URL is https and has no gaps."""
    with pytest.raises(BadInput, match=re.escape("sources.paper.url")):
        read_ledger(written(tmp_path, CLAIM, sources=f"{{paper: {SOURCE.replace('https://example.org/paper', url)}}}"))


def test_a_results_folder_may_have_its_own(tmp_path):
    """Its ledger goes before capsbench's; a folder without one, or none at all, has capsbench's."""
    assert ledger_path(tmp_path) == ledger_path(tmp_path / "nowhere") == packaged_path()
    path = written(tmp_path, CLAIM)
    assert ledger_path(tmp_path) == path


def test_an_install_has_the_ledger_of_the_checkout():
    """Where capsbench is installed from a wheel, the ledger in it is the one kept under results."""
    assert packaged_path().read_bytes() == CHECKOUT.read_bytes()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claim_can_be_looked_up(claim):
    """It has a citation, a place, a URL and what was read, and its value is one that its unit can have."""
    source = packaged_ledger().source(claim)
    assert source.citation
    assert claim.place
    assert source.url.startswith("https://")
    assert source.read_in
    assert claim.unit == UNITS[claim.metric]
    assert claim.resolution <= claim.value
    assert (claim.metric in TIMES) <= bool(claim.device)


def test_no_number_is_entered_twice():
    """Ids differ, and so does what the claims say: no source tells one thing of one network under two ids."""
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    said = [
        (c.source, c.place, c.network, c.variant, c.metric, c.op, c.dataset, c.routing_iterations, c.device, c.value)
        for c in CLAIMS
    ]
    assert len(set(said)) == len(said)


def test_networks_are_those_of_the_zoo():
    """What stands under `zoo` is in the zoo; nobody would ever find the others."""
    assert {claim.zoo for claim in CLAIMS if claim.zoo} - set(zoo.names()) == set()


def test_protocols_are_those_of_suites():
    """What a claim on a network of the zoo was tested on has a suite's name for it, or says what capsbench lacks."""
    named = {claim.protocol or claim.dataset for claim in CLAIMS if claim.zoo}
    others = {name for name in named if " " not in name} - set(protocols.names())
    assert others == set()


def test_the_known_flaws_are_told():
    """What is wrong with a number that many have quoted stands beside it."""
    ledger = packaged_ledger()
    assert "training images" in ledger.claim("shin-smallnorb").reasons[0]
    assert "files of MNIST" in ledger.claim("seed-fashion").reasons[0]
    assert "crops" in ledger.claim("official-smallnorb-crops").reasons[0]
    assert ledger.claim("seed-mnist").tested_on == 1_000
    assert ledger.claim("upstream-mnist").tested_on == 1_000
    assert all("cancel" in claim.caveats[0] for claim in CLAIMS if re.match(r"yl-(mnist|smallnorb)", claim.id))
