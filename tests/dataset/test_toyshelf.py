import json
import threading
import tracemalloc

import numpy as np
import pytest

from capsbench.dataset import rendering, toys, toyshelf
from capsbench.dataset.norb import is_mapped, read_matrix, write_matrix
from capsbench.dataset.smallnorb import FILES, read_pairs
from capsbench.errors import BadInput


@pytest.fixture
def quick(monkeypatch):
    """Rendering that takes no time and still tells viewpoints apart; returns the viewpoints rendered."""
    rendered = []

    def render(category, instance, elevation, azimuth, lightings=range(6)):
        rendered.append((category, instance, elevation, azimuth))
        rng = np.random.default_rng(rendered[-1])
        return rng.integers(0, 256, (6, 2, 96, 96), dtype=np.uint8)[list(lightings)]

    monkeypatch.setattr(rendering, "render", render)
    return rendered


def only_shelf(cache):
    (shelf,) = cache.iterdir()
    return shelf


def test_make_is_a_beginning_of_a_longer_make(tmp_path):
    """A smaller limit gives the first images of a larger one, as channels-last pairs with labels and factors."""
    small, large = (toyshelf.make("test", limit, cache=tmp_path) for limit in (20, 36))
    assert small.images.shape == (20, 96, 96, 2)
    assert small.images.dtype == np.uint8
    assert small.labels.dtype == np.int64
    np.testing.assert_array_equal(small.images, large.images[:20])
    np.testing.assert_array_equal(large.labels, np.repeat([0, 1, 2, 3, 4, 0], 6))
    view = next(toys.viewpoints("test"))
    expected = toys.render(view.category, view.instance, view.elevation, view.azimuth)
    np.testing.assert_array_equal(large.images[:6].transpose(0, 3, 1, 2), expected)
    np.testing.assert_array_equal(large.factors.lighting, np.tile(np.arange(6), 6))
    factors = (large.factors.instance, large.factors.elevation_degrees, large.factors.azimuth_degrees)
    assert [int(factor[0]) for factor in factors] == [view.instance, view.elevation, view.azimuth]
    assert all(factor.dtype == np.int64 for factor in factors)


def test_the_files_are_smallnorbs(tmp_path, quick):
    """A shelf holds smallNORB's three files under their names, in its layout and types, memory-mapped when read."""
    made = toyshelf.make("train", 12, cache=tmp_path)
    shelf = only_shelf(tmp_path)
    assert shelf.name == f"toys-v{toys.GENERATOR_VERSION}-12"
    assert set(FILES["train"]) < {path.name for path in shelf.iterdir()}
    dat, cat, info = (read_matrix(shelf / name) for name in FILES["train"])
    assert (dat.dtype, dat.shape) == (np.uint8, (12, 2, 96, 96))
    assert (cat.dtype, cat.shape) == (np.int32, (12,))
    assert (info.dtype, info.shape) == (np.int32, (12, 4))
    assert info[0].tolist() == [4, (quick[0][2] - 30) // 5, quick[0][3] // 10, 0]
    assert is_mapped(made.images)


def test_progress_ends_at_the_count_and_the_cache_is_silent(tmp_path, quick):
    """Progress grows to the number of images; a cached split makes none."""
    calls = []
    first = toyshelf.make("train", 15, cache=tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [(6, 15), (12, 15), (15, 15)]
    again = toyshelf.make("train", 15, cache=tmp_path, progress=lambda *_: pytest.fail("made again"))
    np.testing.assert_array_equal(first.images, again.images)


def test_a_larger_set_serves_a_smaller_limit(tmp_path, quick):
    """What lies in a larger shelf is not made again, whether the limit ends a block of checksums or not."""
    whole = toyshelf.make("train", 330, cache=tmp_path, processes=1)
    quick.clear()
    for limit in (1, 60, 61, 329):
        part = toyshelf.make("train", limit, cache=tmp_path)
        np.testing.assert_array_equal(part.images, whole.images[:limit])
        np.testing.assert_array_equal(part.factors.instance, whole.factors.instance[:limit])
        assert len(part.labels) == limit
    assert not quick
    toyshelf.make("test", 6, cache=tmp_path)
    assert len(quick) == 1


@pytest.mark.parametrize("part", ["dat", "cat", "info", "sums"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "gone"])
def test_a_damaged_cache_is_made_again(tmp_path, quick, part, damage):
    """A cached file that is cut, altered, empty, something else or gone is named, and replaced by a sound one."""
    made = toyshelf.make("train", 6, cache=tmp_path).images.copy()
    assert toyshelf.problems(tmp_path) == []
    path = next(only_shelf(tmp_path).glob(f"*{part}.*" if part == "sums" else f"*-{part}.mat"))
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": whole[:middle], "flip": flipped, "empty": b"", "text": b"hello"}[damage])
    (problem,) = toyshelf.problems(tmp_path)
    assert "made again" in problem
    np.testing.assert_array_equal(toyshelf.make("train", 6, cache=tmp_path).images, made)
    assert path.read_bytes() == whole
    assert toyshelf.problems(tmp_path) == []


@pytest.mark.parametrize("sums", [[], {}, 3, [1, 2]])
def test_foreign_checksums_are_no_checksums(tmp_path, quick, sums):
    """Checksums of another shape do not make a shelf whole."""
    toyshelf.make("train", 6, cache=tmp_path)
    next(only_shelf(tmp_path).glob("*.json")).write_text(json.dumps(sums), encoding="utf-8")
    assert len(toyshelf.problems(tmp_path)) == 1


def test_toys_of_another_order_are_not_taken(tmp_path, quick):
    """Sound files that hold other viewpoints than this generator makes are named and made again."""
    made = toyshelf.make("train", 12, cache=tmp_path)
    cat = only_shelf(tmp_path) / FILES["train"][1]
    write_matrix(cat, read_matrix(cat)[::-1])
    assert "does not hold the first 12 toys of the train split" in toyshelf.problems(tmp_path)[0]
    np.testing.assert_array_equal(toyshelf.make("train", 12, cache=tmp_path).labels, made.labels)
    assert toyshelf.problems(tmp_path) == []


@pytest.mark.parametrize("end", [1, 2, 5])
def test_an_interrupted_make_leaves_no_half_file(tmp_path, monkeypatch, quick, end):
    """Whenever it is interrupted, no file of pairs is there under its name, and the next make is whole."""

    def interrupt(done, _):
        if done == 6 * end:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toyshelf.make("train", 30, cache=tmp_path, progress=interrupt)
    names = {path.name for path in only_shelf(tmp_path).iterdir()}
    assert not any(name.endswith(("-dat.mat", ".json", ".tmp")) for name in names)
    assert len(toyshelf.problems(tmp_path)) == 1
    assert len(toyshelf.make("train", 30, cache=tmp_path).labels) == 30


def test_processes_change_nothing(tmp_path, monkeypatch):
    """One process, two, and two that cannot start give the same files byte for byte."""

    def broken(*_):
        raise rendering.BrokenProcessPool
        yield

    def made(name, processes):
        toyshelf.make("test", 66, cache=tmp_path / name, processes=processes)
        return [path.read_bytes() for path in sorted(only_shelf(tmp_path / name).iterdir())]

    alone = made("alone", 1)
    assert alone == made("two", 2)
    monkeypatch.setattr(rendering, "_in_processes", broken)
    assert alone == made("broken", 2)


def test_images_are_written_as_they_are_made(tmp_path, quick):
    """Making takes the memory of a few viewpoints, not of all images."""
    tracemalloc.start()
    toyshelf.make("train", 330, cache=tmp_path, processes=1)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 330 * 2 * 96 * 96 // 3


def test_two_makers_at_once(tmp_path):
    """Two that make the same split at once both get it and leave one sound shelf."""
    results = []

    def make():
        results.append(toyshelf.make("test", 12, cache=tmp_path))

    makers = [threading.Thread(target=make) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    np.testing.assert_array_equal(results[0].images, results[1].images)
    assert len(list(only_shelf(tmp_path).iterdir())) == 4
    assert toyshelf.problems(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_refused(tmp_path):
    """A cache folder that is a file is refused by name."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match=r"cannot keep the toys in .*file"):
        toyshelf.make("train", 1, cache=tmp_path / "file")


def test_unknown_split_and_impossible_limits(tmp_path):
    """A split or limit that does not exist is refused with what is legal."""
    with pytest.raises(BadInput, match="did you mean 'train'"):
        toyshelf.make("trian", 6, cache=tmp_path)
    for limit in (0, -1, 24_301):
        with pytest.raises(BadInput, match="legal is 1 to 24,300"):
            toyshelf.make("train", limit, cache=tmp_path)


def test_the_shelf_is_readable_as_smallnorb(tmp_path, quick):
    """Whoever reads smallNORB reads the toys."""
    made = toyshelf.make("test", 60, cache=tmp_path)
    read = read_pairs(*(only_shelf(tmp_path) / name for name in FILES["test"]))
    np.testing.assert_array_equal(read.images, made.images)
    np.testing.assert_array_equal(read.labels, made.labels)
