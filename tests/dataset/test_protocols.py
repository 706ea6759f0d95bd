import re
from dataclasses import replace

import numpy as np
import pytest

from capsbench.dataset import catalog, parts, protocols, toyshelf
from capsbench.dataset.guard import Findings, examine
from capsbench.dataset.parts import load_part
from capsbench.dataset.protocol import DataUse, View, check_protocol
from capsbench.dataset.smallnorb import AZIMUTHS, ELEVATIONS
from capsbench.errors import BadInput

ALL = [protocols.load(name) for name in protocols.names()]


@pytest.mark.parametrize("protocol", ALL, ids=lambda protocol: protocol.name)
def test_protocols_are_sound(protocol):
    """Each is named after its file, uses a data set there is, and says what it asks for."""
    assert protocol.name in protocols.names()
    assert protocol.description.endswith(".")
    assert min(protocol.image_shape()) >= 1
    assert catalog.info(protocol.data).synthetic == protocol.name.startswith("toys")
    assert catalog.info(protocol.data).synthetic == bool(re.search("synthetic", protocol.description, re.IGNORECASE))


def test_every_data_set_has_a_protocol_of_its_name():
    """A data set alone is named like the protocol that uses it as its authors meant it."""
    assert set(catalog.DATASETS) <= set(protocols.names())


@pytest.mark.parametrize("name", ["smallnorb", "toys"])
def test_novel_viewpoints_are_those_of_the_paper(name):
    """Azimuths: six around the front against twelve; elevations: the three smallest against six; familiar as train."""
    azimuth, elevation = (protocols.load(f"{name}-novel-{factor}") for factor in ("azimuth", "elevation"))
    assert azimuth.train.azimuths_degrees == (300, 320, 340, 0, 20, 40)
    assert set(azimuth.test.azimuths_degrees) == set(AZIMUTHS) - set(azimuth.train.azimuths_degrees)
    assert elevation.train.elevations_degrees == ELEVATIONS[:3]
    assert elevation.test.elevations_degrees == ELEVATIONS[3:]
    assert (azimuth.familiar, elevation.familiar) == (azimuth.train, elevation.train)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("factor", ["azimuth", "elevation"])
def test_parts_are_chosen_by_viewpoint(factor, cache):
    """Each part has as many images as asked for, from its viewpoints only, and the guard finds nothing."""
    use = DataUse(protocol=protocols.load(f"toys-novel-{factor}"), train_limit=40, test_limit=25)
    splits = {part: load_part(use, part, None, cache=cache) for part in use.protocol.parts()}
    assert {part: len(split.labels) for part, split in splits.items()} == {"train": 40, "test": 25, "familiar": 25}
    assert all(parts.seen(use.protocol.view(part), split.factors).all() for part, split in splits.items())
    assert all(split.images.shape == (len(split.labels), 96, 96, 2) for split in splits.values())
    assert examine(use.protocol, splits) == Findings()
    thirds = {"train": 8_100, "test": 16_200, "familiar": 8_100}
    assert {part: split.full_count for part, split in splits.items()} == thirds


def test_no_more_toys_are_made_than_are_needed(cache, monkeypatch):
    """A limit counts chosen images, and just enough leading toys are made to have them."""
    asked = []
    made = toyshelf.make
    monkeypatch.setattr(
        toyshelf, "make", lambda split, limit, **more: asked.append(limit) or made(split, limit, **more)
    )
    use = DataUse(protocol=protocols.load("toys-novel-azimuth"), train_limit=7)
    split = load_part(use, "train", None, cache=cache)
    assert split.images.places[-1] == asked[0] - 1
    assert len(split.labels) == 7


def test_chosen_images_are_those_of_the_whole(cache):
    """Image by image, a part holds what its data set holds at these places."""
    use = DataUse(protocol=protocols.load("toys-novel-elevation"), test_limit=10)
    split = load_part(use, "test", None, cache=cache)
    whole = toyshelf.make("test", int(split.images.places[-1]) + 1, cache=cache)
    np.testing.assert_array_equal(split.images[np.arange(10)], whole.images[split.images.places])
    np.testing.assert_array_equal(split.labels, whole.labels[split.images.places])


def test_a_limit_beyond_what_is_there_is_refused(cache):
    """A part that has fewer images says how many; one that has none says so."""
    use = DataUse(protocol=protocols.load("toys-novel-azimuth"), train_limit=8_101)
    monkey = replace(use, protocol=replace(use.protocol, data="toys"))
    with pytest.raises(BadInput, match=r"cannot be limited|has only 8,100 images"):
        parts._chosen(_all_factors("train"), monkey, "train")


def _all_factors(split):
    from capsbench.dataset.loading import Split

    factors = toyshelf.factors(split)
    count = len(factors.instance)
    return Split(np.zeros((count, 1, 1, 2), np.uint8), np.zeros(count, np.int64), count, factors)


def test_contradictions_are_refused():
    """Viewpoints of a data set that knows none, and a novel factor that is not new, are refused where they stand."""
    mnist, azimuth = protocols.load("mnist"), protocols.load("toys-novel-azimuth")
    with pytest.raises(BadInput, match=r"x\.yaml:train: mnist has no viewpoints"):
        check_protocol(replace(mnist, train=View(azimuths_degrees=(0,))), "x.yaml")
    with pytest.raises(BadInput, match=r"x\.yaml: train and test share values of the novel factor azimuth"):
        check_protocol(replace(azimuth, test=azimuth.train), "x.yaml")
    with pytest.raises(BadInput, match=r"x\.yaml: transform: crop 99"):
        check_protocol(replace(mnist, transform=replace(mnist.transform, crop=99)), "x.yaml")
    with pytest.raises(BadInput, match="has no familiar part"):
        mnist.view("familiar")
    with pytest.raises(BadInput, match=r"unknown data set 'smallnorb-novel'.*did you mean"):
        protocols.load("smallnorb-novel")
