import hashlib
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from capsbench.dataset import toys
from capsbench.dataset.smallnorb import AZIMUTHS, CATEGORIES, ELEVATIONS, FULL_COUNT, INSTANCES
from capsbench.dataset.toybox import build
from capsbench.errors import BadInput

# A change of any of these is a new generator: raise GENERATOR_VERSION.
GOLDEN = {
    (0, 0, 30, 0): "b331becb178b3b6812c9f8bcb56a630a04c780f26b61279e6b7f267a534c11a5",
    (1, 7, 45, 120): "817720e26345d210e33401b60567a438d7fff43460cb483bcb450c3bfe180251",
    (2, 4, 70, 340): "1eb5ddf62007e799220eb58de075a526d74acb28a9fc38174d5df4f812653e03",
    (3, 3, 50, 200): "4c93c550986cbb0d7be61b7a4b5eb4efbdf4c61247d55f5c065e64e020888ba2",
    (4, 9, 60, 80): "75aac9b18faf18ed3f0de0c73e9b4086e1e2c0289b97a913c33d360e88c7f800",
}


@pytest.mark.parametrize("viewpoint", GOLDEN)
def test_pictures_are_the_same_everywhere(viewpoint):
    """Each viewpoint has the bytes it had when this version of the generator was made."""
    assert toys.GENERATOR_VERSION == 2
    pairs = toys.render(*viewpoint)
    assert pairs.shape == (6, 2, 96, 96)
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == GOLDEN[viewpoint]


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
