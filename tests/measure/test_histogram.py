import io
import math
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from capsbench.errors import BadInput
from capsbench.measure import histogram as module
from capsbench.measure.distribution import QUANTILES, SPARSE_BELOW
from capsbench.measure.histogram import Counter, Histogram, read_histograms, write_histograms

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)
USUAL = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]) | st.floats(-2.0, 2.0, width=32)
BATCH = arrays(np.float32, array_shapes(min_dims=2, max_dims=3, max_side=12), elements=ANY | USUAL)
EDGES = st.lists(st.floats(-3.0, 3.0), min_size=2, max_size=8, unique=True).map(sorted).map(np.array)


def counter_of(*batches, types=None):
    counter = Counter(types=types)
    for batch in batches:
        counter.add(batch)
    return counter


def hoyer(values):
    """As Hoyer (2004) writes it, for one image."""
    n, wide = values.size, values.astype(np.float64).ravel()
    norm = math.sqrt(math.fsum(wide * wide))
    if n == 1 or norm == 0.0:
        return 0.0
    return (math.sqrt(n) - math.fsum(abs(wide)) / norm) / (math.sqrt(n) - 1.0)


@given(BATCH)
def test_the_bins_are_the_leading_bits(values):
    """A bin holds exactly the values whose float32 has its sign, exponent and first seven bits."""
    histogram = counter_of(values).histogram()
    clean = np.sort((values + np.float32(0.0)).ravel())
    _, wanted = np.unique(clean.view(np.uint32) >> 16, return_counts=True)
    assert sorted(histogram.counts) == sorted(wanted)
    start = 0
    for low, high, count in zip(histogram.low, histogram.high, histogram.counts, strict=True):
        inside = clean[start : start + count]
        assert low <= inside.min()
        assert inside.max() <= high
        assert high - low <= max(abs(inside[0]) / 128, SMALLEST_NORMAL / 128)
        start += count
    assert (histogram.low[0], histogram.high[-1]) == (clean[0], clean[-1])
    assert (histogram.high[:-1] <= histogram.low[1:]).all()


@given(BATCH)
def test_quantiles_lie_in_the_right_bin(values):
    """A quantile differs from that of all the sorted values by 1/128 of it at most."""
    histogram, whole = counter_of(values).histogram(), np.sort(values.astype(np.float64).ravel())
    for share in (*QUANTILES, 0.0, 1.0):
        exact = whole[max(0, math.ceil(share * len(whole)) - 1)]
        assert histogram.quantile(share) == pytest.approx(exact, rel=1 / 128, abs=SMALLEST_NORMAL / 128)


@given(BATCH)
def test_moments_are_those_of_all_values(values):
    """Count, extremes, mean, deviation, sparse share and Hoyer are NumPy's in float64 on the whole array."""
    found, wide = counter_of(values).distribution("layer", "poses"), values.astype(np.float64)
    size = np.abs(wide).max()
    assert (found.images, found.count) == (len(values), values.size)
    assert (found.least, found.greatest) == (wide.min(), wide.max())
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12, abs=1e-12 * size)
    assert found.deviation == pytest.approx(wide.std(), rel=1e-6, abs=1e-6 * size)
    assert found.sparse_share == (np.abs(wide) < SPARSE_BELOW).mean()
    assert found.hoyer == pytest.approx(np.mean([hoyer(image) for image in values]), abs=1e-6)
    assert found.dead_share is None


@given(BATCH, st.data())
def test_batches_do_not_matter(values, data):
    """Batches of any size add up to the same as all images at once."""
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=4).map(sorted))
    whole, parts = counter_of(values), counter_of(*np.split(values, cuts))
    for name in ("low", "high", "counts"):
        np.testing.assert_array_equal(getattr(whole.histogram(), name), getattr(parts.histogram(), name))
    one, other = whole.distribution("layer", "votes"), parts.distribution("layer", "votes")
    assert (one.images, one.count, one.quantiles) == (other.images, other.count, other.quantiles)
    size = np.abs(values.astype(np.float64)).max()
    assert one.mean == pytest.approx(other.mean, rel=1e-12, abs=1e-12 * size)
    assert one.hoyer == pytest.approx(other.hoyer, abs=1e-9)


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_pieces_do_not_matter(monkeypatch, piece):
    """Images larger than what is looked at together, and batches cut at any place, count the same."""
    values = np.random.default_rng(0).standard_normal((5, 3, 8)).astype(np.float32)
    whole = counter_of(values, types=4)
    monkeypatch.setattr(module, "_PIECE", piece)
    cut = counter_of(values, types=4)
    np.testing.assert_array_equal(whole.histogram().counts, cut.histogram().counts)
    one, other = whole.distribution("layer", "activations"), cut.distribution("layer", "activations")
    assert one.hoyer == pytest.approx(other.hoyer, rel=1e-12)
    assert one.deviation == pytest.approx(other.deviation, rel=1e-12)
    assert one.dead_share == other.dead_share


def test_memory_does_not_grow():
    """Many batches take no more memory than a few, and no more than a few pieces and the bins."""
    values = np.random.default_rng(0).standard_normal((50, 20_000)).astype(np.float32)
    peaks = []
    for batches in (2, 20):
        counter = Counter(types=8)
        tracemalloc.start()
        for _ in range(batches):
            counter.add(values)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 8 << 20


def test_special_values():
    """Negative zero is zero, the smallest and the largest float32 have their bins, negative ones are mirrored."""
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    histogram = counter_of(np.array([[-0.0, 0.0, 0.0, tiny, -tiny, huge, -huge]], np.float32)).histogram()
    assert list(histogram.counts) == [1, 1, 4, 1]
    assert (histogram.low[0], histogram.high[-1]) == (-huge, huge)
    assert (histogram.high[1], histogram.low[2]) == (0.0, 0.0)
    found = counter_of(np.array([[-0.0]], np.float32)).distribution("layer", "activations")
    assert math.copysign(1.0, found.least) == math.copysign(1.0, found.greatest) == 1.0


@given(ANY, st.integers(1, 5), st.integers(1, 5))
def test_a_constant_is_known_exactly(value, images, size):
    """Of one value all over, every quantile is that value, and it is not sparse by Hoyer."""
    found = counter_of(np.full((images, size), value, np.float32)).distribution("layer", "poses")
    assert set(found.quantiles) == {found.least} == {found.greatest}
    assert found.least == value
    assert found.hoyer == pytest.approx(0.0, abs=1e-6)


def test_hoyer_at_its_ends():
    """One value among zeros is as sparse as can be, equal values and zeros only are not sparse."""
    one = np.zeros((1, 9), np.float32)
    one[0, 4] = -3.0
    assert counter_of(one).distribution("layer", "poses").hoyer == pytest.approx(1.0)
    assert counter_of(np.full((1, 9), 2.0, np.float32)).distribution("layer", "poses").hoyer == pytest.approx(0.0)
    assert counter_of(np.zeros((1, 9), np.float32)).distribution("layer", "poses").hoyer == 0.0


def test_nothing_has_no_distribution():
    """Without values there are no bins, no counts over other bins, and no quantile."""
    counter = counter_of(np.zeros((0, 4), np.float32), np.zeros((3, 0), np.float32))
    assert (counter.images, counter.count) == (0, 0)
    histogram = counter.histogram()
    assert len(histogram.low) == len(histogram.high) == len(histogram.counts) == 0
    assert list(histogram.over(np.array([0.0, 1.0, 2.0]))) == [0.0, 0.0]
    with pytest.raises(ValueError, match="no values"):
        counter.distribution("layer", "poses")


@given(arrays(np.float64, (6, 4), elements=st.floats(allow_subnormal=False)))
def test_images_that_are_not_finite_are_left_out(values):
    """An image with a NaN, an infinity or what float32 has no room for counts for nothing, the others as ever."""
    fine = (np.abs(values) <= np.finfo(np.float32).max).all(axis=1)
    counter, wanted = counter_of(values), counter_of(values[fine])
    assert counter.refused == (~fine).sum()
    assert (counter.images, counter.count) == (wanted.images, wanted.count)
    np.testing.assert_array_equal(counter.histogram().counts, wanted.histogram().counts)


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6)))
def test_float64_counts_as_its_float32(values):
    """Values of a float64 network fall into the bins of their float32, also where rounding crosses a bin's edge."""
    wide, narrow = counter_of(values).histogram(), counter_of(values.astype(np.float32)).histogram()
    for name in ("low", "high", "counts"):
        np.testing.assert_array_equal(getattr(wide, name), getattr(narrow, name))


def test_dead_types():
    """A type is dead only if it stays small in every image, at every position, with either sign."""
    values = np.full((3, 2, 4), 0.001, np.float32)  # images, positions, types
    values[0, 1, 0] = 0.5
    values[2, 0, 2] = -0.5
    counter = counter_of(values[:2].reshape(2, -1), values[2:].reshape(1, -1), types=4)
    assert counter.distribution("layer", "activations").dead_share == 0.5


@given(arrays(np.float32, (2, 30), elements=USUAL), EDGES)
def test_counts_over_other_bins(values, edges):
    """Counts over other bins differ from NumPy's by no more than the bins that an edge cuts, and add up the same."""
    histogram = counter_of(values).histogram()
    counts, wanted = histogram.over(edges), np.histogram(values, edges)[0]
    cut = (histogram.low[:, None] <= edges) & (edges <= histogram.high[:, None])
    doubt = np.array([histogram.counts[cut[:, i] | cut[:, i + 1]].sum() for i in range(len(edges) - 1)])
    assert (np.abs(counts - wanted) <= doubt + 1e-9).all()
    assert (counts >= -1e-9).all()
    everything = np.concatenate([[values.min() - 1.0], edges, [values.max() + 1.0]])
    everything.sort()
    assert histogram.over(everything).sum() == pytest.approx(values.size)


def test_ends_are_counted_as_numpy_does():
    """A value on an inner edge belongs to the right, one on the last edge to the left: none between 0 and 1 is lost."""
    values = np.array([[0.0, 0.0, 1.0, 1.0, 1.0]], np.float32)
    assert list(counter_of(values).histogram().over(np.array([0.0, 0.5, 1.0]))) == [2.0, 3.0]
    assert list(counter_of(values[:, 2:]).histogram().over(np.array([0.0, 1.0, 2.0]))) == [0.0, 3.0]
    assert list(counter_of(values[:, 2:]).histogram().over(np.array([-np.inf, 1.0, np.inf]))) == [0.0, 3.0]


def test_overlap_is_shared_out():
    """A bin that an edge cuts in two gives each part what lies in it."""
    histogram = Histogram(np.array([0.0, 2.0]), np.array([2.0, 3.0]), np.array([8, 5]))
    assert list(histogram.over(np.array([0.5, 1.0, 2.5]))) == [2.0, 4.0 + 2.5]


@given(BATCH, BATCH)
def test_files_give_back_what_was_written(tmp_path_factory, first, second):
    """Histograms read from a file are those written, in their order."""
    path = tmp_path_factory.getbasetemp() / "written" / "histograms.npz"
    written = {
        ("primary", "poses"): counter_of(first).histogram(),
        ("primary", "activations"): counter_of(second).histogram(),
        ("conv1", "votes"): Counter().histogram(),
    }
    write_histograms(path, written)
    found = read_histograms(path)
    assert list(found) == list(written)
    for key, histogram in written.items():
        for name in ("low", "high", "counts"):
            np.testing.assert_array_equal(getattr(found[key], name), getattr(histogram, name))
    assert [each.name for each in path.parent.iterdir()] == ["histograms.npz"]


def saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


npz = partial(saved, np.savez)


ONE, TWO = np.array([1.0]), np.array([2.0])
GOOD = {"a.poses.low": ONE, "a.poses.high": TWO, "a.poses.counts": np.array([3])}
BAD = {
    "empty": b"",
    "text": b"low,high,counts\n",
    "array": saved(np.save, ONE),
    "pickle": npz(**{"a.poses.low": np.array([{}], object)}),
    "cut off": npz(**GOOD)[:200],
    "other names": npz(weights=ONE),
    "other quantity": npz(**{"a.moods.low": ONE}),
    "other type": npz(**{**GOOD, "a.poses.counts": ONE}),
    "missing": npz(**{"a.poses.low": ONE, "a.poses.high": TWO}),
    "lengths": npz(**{**GOOD, "a.poses.low": np.array([0.0, 1.0])}),
    "order": npz(**{**GOOD, "a.poses.low": np.array([5.0])}),
    "not a number": npz(**{**GOOD, "a.poses.low": np.array([math.nan])}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_other_files_are_refused(tmp_path, content):
    """A file that is no file of histograms is bad input, in one sentence that names it."""
    path = tmp_path / "histograms.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="no file of histograms") as error:
        read_histograms(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="there is no such file"):
        read_histograms(tmp_path / "other.npz")


@given(st.integers(0, 600), st.integers(0, 255))
def test_damaged_files_are_refused(tmp_path_factory, at, byte):
    """A file with one byte changed reads the same or is bad input."""
    path = tmp_path_factory.getbasetemp() / "damaged" / "histograms.npz"
    write_histograms(path, {("conv1", "poses"): counter_of(np.ones((1, 4), np.float32)).histogram()})
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content)
    try:
        (found,) = read_histograms(path).values()
    except BadInput:
        return
    assert list(found.counts) == [4]
    assert zipfile.is_zipfile(path)


def test_a_header_that_claims_too_much_is_bad_input(tmp_path):
    """An array said to be larger than memory is refused in a sentence."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "histograms.npz", "w") as archive:
        archive.writestr("conv.activations.low.npy", header.getvalue())
    with pytest.raises(BadInput, match="no file of histograms"):
        read_histograms(tmp_path / "histograms.npz")
