import hashlib
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from capsbench.dataset import toys
from capsbench.dataset.smallnorb import AZIMUTHS, CATEGORIES, ELEVATIONS, FULL_COUNT, INSTANCES
from capsbench.dataset.toybox import _STYLES, build
from capsbench.errors import BadInput

# A change of any of these is a new generator: raise GENERATOR_VERSION.
GOLDEN = {
    (0, 0, 30, 0): "62106abf3af499ca2f0dda7e3b4429c4af20810fb4b5313c6976f9b07f0bba41",
    (1, 7, 45, 120): "8f71e5d64988c46319ca8fde35fe0f89e0758186a3788061622648a34147da17",
    (2, 4, 70, 340): "e1d7f90238f205dc0ca8dad8c244fb2d723ee8f72767ba5459767b22bc29cf26",
    (3, 3, 50, 200): "edddf97daf0cc31b4567cf0573297730d49f0438599f0e72b25f06db859e835d",
    (4, 9, 60, 80): "986658699d93c5d71e38fe68024bd7278c9b95d393827e3210b708dcbc5dddfd",
}


@pytest.mark.parametrize("viewpoint", GOLDEN)
def test_pictures_are_the_same_everywhere(viewpoint):
    """Each viewpoint has the bytes it had when this version of the generator was made."""
    assert toys.GENERATOR_VERSION == 3
    pairs = toys.render(*viewpoint)
    assert pairs.shape == (6, 2, 96, 96)
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == GOLDEN[viewpoint]


def test_no_part_of_a_picture_is_flat():
    """A camera's grain lies on the table too, another on each picture and eye, a few grey levels strong."""
    corner = toys.render(1, 2, 30, 40)[:, :, :12, :12].astype(int)
    grain = corner - np.median(corner, axis=(2, 3), keepdims=True)
    assert 1.5 < grain.std() < 4.0
    assert np.abs(np.corrcoef(grain.reshape(12, -1)) - np.eye(12)).max() < 0.4


def test_lightings_are_rendered_apart_as_together():
    """A lighting looks the same whether it is asked for alone, last, or with the others."""
    together = toys.render(2, 5, 40, 100)
    np.testing.assert_array_equal(toys.render(2, 5, 40, 100, [4, 1]), together[[4, 1]])


@pytest.mark.parametrize("category", range(5))
def test_every_factor_shows(category):
    """Changing the instance, elevation, azimuth, lighting or eye changes the picture."""
    base = toys.render(category, 1, 40, 60)
    others = [toys.render(category, 2, 40, 60), toys.render(category, 1, 55, 60), toys.render(category, 1, 40, 80)]
    assert all((other != base).mean() > 0.01 for other in others)
    assert len({pair.tobytes() for pair in base}) == 6
    assert (base[:, 0] != base[:, 1]).mean() > 0.01


def test_the_toy_is_dark_in_the_middle_of_a_bright_table():
    """Every toy of every category leaves the border to the table, which is brighter than the toy."""
    for category in range(len(CATEGORIES)):
        for instance in range(10):
            picture = toys.render(category, instance, 70, 20 * instance, [2])[0, 0].astype(int)
            border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert border.min() > 150
            assert picture[30:66, 30:66].mean() < border.mean() - 20


def test_instances_differ():
    """All fifty toys are built differently."""
    assert len({build(c, i) for c in range(len(CATEGORIES)) for i in range(10)}) == 50


def test_two_of_five_test_toys_are_of_a_style_that_training_never_saw():
    """What is asked of a network is the kind of toy, not the style: the test split has a style more."""
    trained, tested = ({instance: _STYLES[instance] for instance in INSTANCES[split]} for split in ("train", "test"))
    assert set(trained.values()) == {0, 1}
    assert sorted(tested.values()) == [0, 0, 1, 2, 2]


def test_factors_out_of_range_are_refused():
    """A factor the toys do not have is named with its legal values."""
    for wrong, what in (((5, 0, 30, 0), "category 5"), ((0, 0, 33, 0), "elevation 33"), ((0, 0, 30, 10), "azimuth 10")):
        with pytest.raises(BadInput, match=what):
            toys.render(*wrong)
    with pytest.raises(BadInput, match="lighting 6"):
        toys.render(0, 0, 30, 0, [6])


@pytest.mark.parametrize("split", ["train", "test"])
def test_viewpoints_are_all_and_each_once(split):
    """A split visits every viewpoint of its five instances exactly once."""
    seen = list(toys.viewpoints(split))
    assert len(set(seen)) == len(seen) == FULL_COUNT // 6 == 4050
    assert {view.instance for view in seen} == set(INSTANCES[split])


@pytest.mark.parametrize("count", [1, 7, 25, 60, 333])
def test_every_beginning_is_balanced(count):
    """Among the first viewpoints, categories and toys differ in number by one at most."""
    begin = list(islice(toys.viewpoints("train"), count))
    for counts in (
        Counter(dict.fromkeys(range(5), 0)) + Counter(view.category for view in begin),
        Counter((view.category, view.instance) for view in begin),
    ):
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_beginning_sees_toys_from_all_sides():
    """The first few viewpoints of a split already cover every elevation and azimuth, each toy in its own order."""
    begin = list(islice(toys.viewpoints("train"), 200))
    assert {view.elevation for view in begin} == set(ELEVATIONS)
    assert {view.azimuth for view in begin} == set(AZIMUTHS)
    assert len({(view.elevation, view.azimuth) for view in begin[:25]}) > 15


def test_train_and_test_share_no_instance():
    """No toy is in both splits."""
    assert not set(INSTANCES["train"]) & set(INSTANCES["test"])
