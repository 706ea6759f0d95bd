import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capsbench.dataset import batches
from capsbench.dataset.batches import augmentation_generator, epoch_order, fixed_batch, training_batches
from capsbench.dataset.loading import Split
from capsbench.dataset.transform import Transform, augment, prepare
from capsbench.errors import BadInput

FULL = Transform(resize=8, crop=6, standardise=True, brightness=0.1, contrast=0.2, shift=1)


@pytest.fixture
def split():
    """23 images whose labels are their places."""
    images = np.random.default_rng(0).integers(0, 256, (23, 12, 12, 2), dtype=np.uint8)
    return Split(images, np.arange(23), 100)


def assert_same(a, b):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)


@given(count=st.integers(0, 300), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_an_order_is_a_permutation(count, seed, epoch):
    """Every order visits each image once and is the same when asked again."""
    order = epoch_order(count, seed, epoch)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, epoch_order(count, seed, epoch))


def test_orders_differ_by_seed_and_epoch():
    """Other seeds and epochs give other orders, also where seed and epoch change places."""
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_order_is_pinned():
    """The order of an epoch never changes, for runs of different versions are compared."""
    assert epoch_order(10, 0, 0).tolist() == [9, 2, 4, 7, 5, 0, 8, 6, 3, 1]


def test_training_drops_the_last_part(split):
    """An epoch has whole batches only, follows the order, and shows no image twice."""
    seen = list(training_batches(split, FULL, batch=5, seed=3, epoch=1))
    assert [batch.images.shape for batch in seen] == [(5, 6, 6, 2)] * 4
    assert all(batch.images.dtype == np.float32 and batch.labels.dtype == np.int64 for batch in seen)
    labels = np.concatenate([batch.labels for batch in seen])
    np.testing.assert_array_equal(labels, epoch_order(23, 3, 1)[:20])


def test_training_is_repeatable(split):
    """The same seed and epoch give the same bytes; the next epoch does not."""
    first, again, later = (list(training_batches(split, FULL, batch=5, seed=3, epoch=epoch)) for epoch in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert (first[0].images != later[0].images).any()


def test_a_batch_can_be_made_alone(split):
    """Batch 2 follows from seed, epoch and its index, without the batches before it."""
    wanted = list(training_batches(split, FULL, batch=5, seed=3, epoch=1))[2]
    which = epoch_order(23, 3, 1)[10:15]
    alone = augment(prepare(split.images[which], FULL), FULL, augmentation_generator(3, 1, 2), training=True)
    np.testing.assert_array_equal(wanted.images, alone)


def test_augmentation_differs_between_batches():
    """Every (seed, epoch, index) has numbers of its own."""
    keys = [(seed, epoch, index) for seed in range(4) for epoch in range(4) for index in range(4)]
    assert len({augmentation_generator(*key).random() for key in keys}) == len(keys)


def test_the_last_test_batch_is_padded(split):
    """Test batches keep the order and one shape; the last is filled with its first image and says how many count."""
    seen = list(batches.test_batches(split, FULL, batch=10))
    assert [real for _, real in seen] == [10, 10, 3]
    assert {batch.images.shape for batch, _ in seen} == {(10, 6, 6, 2)}
    last = seen[-1][0]
    assert last.labels.tolist() == [20, 21, 22] + [20] * 7
    np.testing.assert_array_equal(last.images[3:], last.images[[0] * 7])
    labels = np.concatenate([batch.labels[:real] for batch, real in seen])
    np.testing.assert_array_equal(labels, split.labels)


@pytest.mark.parametrize("batch", [1, 7, 23, 50])
def test_an_image_looks_the_same_in_every_test_batch(split, batch):
    """The size of the batch changes no test image."""
    whole = fixed_batch(split, FULL, batch=23)
    parts = [part.images[:real] for part, real in batches.test_batches(split, FULL, batch=batch)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.images)


def test_the_fixed_batch_wraps_around(split):
    """A fixed batch larger than the split begins again from its first image."""
    fixed = fixed_batch(split, FULL, batch=30)
    assert fixed.labels.tolist() == [*range(23), *range(7)]
    np.testing.assert_array_equal(fixed.images[23:], fixed.images[:7])
    assert_same(fixed, fixed_batch(split, FULL, batch=30))


def test_the_split_is_left_as_it_is(split):
    """Changing a batch in place changes nothing in the split."""
    before = split.images.copy()
    batch = fixed_batch(split, Transform(), batch=5)
    batch.images[:] = 0.0
    batch.labels[:] = 0
    np.testing.assert_array_equal(split.images, before)
    assert split.labels[4] == 4


def test_impossible_batches_are_refused_at_once(split):
    """A batch below one, or in training above the split, is refused before the first is asked for."""
    with pytest.raises(BadInput, match="batch of 24 is larger than the training split of 23"):
        training_batches(split, FULL, batch=24, seed=0, epoch=0)
    for make in (
        lambda: training_batches(split, FULL, batch=0, seed=0, epoch=0),
        lambda: batches.test_batches(split, FULL, batch=0),
        lambda: fixed_batch(split, FULL, batch=-1),
    ):
        with pytest.raises(BadInput, match="legal is 1 or more"):
            make()


def test_views_give_the_batches_of_copies():
    """Images that lie in another order in memory, as smallNORB's do, give bit for bit the same batches."""
    rng = np.random.default_rng(3)
    view = rng.integers(0, 256, (23, 2, 12, 12), dtype=np.uint8).transpose(0, 2, 3, 1)
    splits = [Split(images, np.arange(23), 23) for images in (view, np.ascontiguousarray(view))]
    transform = Transform(resize=9, crop=7, standardise=True, brightness=0.1, contrast=0.2)
    for of_view, of_copy in zip(
        *(training_batches(split, transform, batch=5, seed=1, epoch=2) for split in splits), strict=True
    ):
        assert of_view.images.tobytes() == of_copy.images.tobytes()
        assert of_view.images.flags.c_contiguous
    fixed = [fixed_batch(split, transform, batch=8).images.tobytes() for split in splits]
    assert fixed[0] == fixed[1]
