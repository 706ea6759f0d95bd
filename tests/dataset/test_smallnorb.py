import numpy as np
import pytest

from capsbench.dataset.catalog import locate
from capsbench.dataset.guard import identical_images
from capsbench.dataset.loading import describe_count, load, split_sha256
from capsbench.dataset.norb import is_mapped, write_matrix
from capsbench.dataset.smallnorb import FILES, INSTANCES, Factors, read_pairs, write_pairs
from capsbench.dataset.toys import render
from capsbench.dataset.verify import verify
from capsbench.errors import BadInput


def pairs(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 2, 96, 96), dtype=np.uint8)


def labels(count):
    return (np.arange(count) % 5).astype(np.int32)


def columns(count, split):
    """Factors as smallNORB's info file holds them, all different."""
    n = np.arange(count)
    return np.stack([np.array(INSTANCES[split])[n // 5 % 5], n % 9, n % 18 * 2, n % 6], axis=1).astype(np.int32)


def write_split(root, split, suffix="", count=30, **changes):
    parts = {"dat": pairs(count, len(split)), "cat": labels(count), "info": columns(count, split)} | changes
    for name, array in zip(FILES[split], (parts["dat"], parts["cat"], parts["info"]), strict=True):
        write_matrix(root / "smallnorb" / (name + suffix), array)


@pytest.fixture
def root(tmp_path):
    """A folder with a sound small smallNORB: 30 training pairs in plain files, 30 test pairs in compressed ones."""
    write_split(tmp_path, "train")
    write_split(tmp_path, "test", ".gz")
    return tmp_path


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_is_loaded_with_factors(root, split):
    """Pairs come as channels, with int64 labels and factors in degrees, from plain files without a copy."""
    found = load("smallnorb", root, split=split)
    np.testing.assert_array_equal(found.images, pairs(30, len(split)).transpose(0, 2, 3, 1))
    assert found.labels.tolist() == labels(30).tolist()
    assert describe_count(found) == "30 of 24,300"
    assert is_mapped(found.images) == (split == "train")
    at = 13
    assert found.factors.instance[at] == INSTANCES[split][2]
    assert found.factors.elevation_degrees[at] == 30 + 5 * (13 % 9)
    assert found.factors.azimuth_degrees[at] == 20 * 13
    assert found.factors.lighting[at] == 1
    assert {found.factors.instance.dtype, found.factors.azimuth_degrees.dtype, found.labels.dtype} == {np.dtype("i8")}


def test_a_limit_takes_the_first_pairs(root):
    """A limit cuts images, labels and factors alike; one beyond the end is refused with the number there."""
    for split in ("train", "test"):
        found = load("smallnorb", root, split=split, limit=7)
        np.testing.assert_array_equal(found.images, pairs(30, len(split)).transpose(0, 2, 3, 1)[:7])
        assert len(found.labels) == len(found.factors.instance) == len(found.factors.lighting) == 7
    with pytest.raises(BadInput, match="only 30 images here, 31 were"):
        load("smallnorb", root, split="train", limit=31)


def test_either_eye_is_an_image_or_only_the_left(root):
    """`each` makes two images of a pair, left before right, and counts them; `left` takes one; neither copies."""
    whole = load("smallnorb", root, split="train")
    left = load("smallnorb", root, split="train", eyes="left")
    each = load("smallnorb", root, split="train", eyes="each", limit=7)
    np.testing.assert_array_equal(left.images, whole.images[..., :1])
    assert left.full_count == 24_300
    assert each.images.shape == (7, 96, 96, 1)
    np.testing.assert_array_equal(each.images[::2, ..., 0], whole.images[:4, ..., 0])
    np.testing.assert_array_equal(each.images[1::2, ..., 0], whole.images[:3, ..., 1])
    assert each.labels.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert each.factors.azimuth_degrees.tolist() == [0, 0, 20, 20, 40, 40, 60]
    assert each.full_count == 48_600
    assert is_mapped(left.images)
    assert is_mapped(each.images)


def test_each_eye_of_toys_needs_half_the_pairs(tmp_path):
    """A limit counts images: seven of them are four pairs."""
    each = load("toys", None, split="test", limit=7, eyes="each", cache=tmp_path)
    assert len(each.labels) == 7
    assert [path.name.rpartition("-")[2] for path in tmp_path.iterdir()] == ["4"]


def test_images_that_are_no_pairs_have_no_eyes(root):
    """A choice of eyes is refused for single images, and an unknown one for all."""
    with pytest.raises(BadInput, match="images of mnist are no stereo pairs"):
        load("mnist", root, split="train", eyes="left")
    with pytest.raises(BadInput, match="did you mean 'left'"):
        load("smallnorb", root, split="train", eyes="lef")


def test_views_are_hashed_and_compared_as_copies(root):
    """The hash and the guard see the pixels, wherever they lie."""
    mapped = load("smallnorb", root, split="train")
    (root / "smallnorb" / FILES["train"][0]).unlink()
    write_split(root, "train", ".gz")
    unpacked = load("smallnorb", root, split="train")
    assert split_sha256(mapped) == split_sha256(unpacked)
    assert identical_images(mapped.images, unpacked.images) == 30


@pytest.mark.parametrize(
    ("part", "array", "says"),
    [
        ("cat", labels(29), "holds 30 stereo pairs but .*-cat.mat 29 categories .*-info.mat factors of 30"),
        ("info", columns(31, "train"), "factors of 31"),
        ("cat", labels(30) + 1, "category 5 at index 4, legal are 0 to 4"),
        ("cat", labels(30) - 1, "category -1 at index 0, legal are 0 to 4"),
        ("cat", labels(30).astype(np.uint8), "categories are int32"),
        ("cat", labels(30).reshape(15, 2), "categories are int32 of \\[n\\]"),
        ("info", columns(30, "train") + np.array([6, 0, 0, 0], np.int32), "instance 10 at index 0, legal are 0 to 9"),
        ("info", columns(30, "train") + np.array([0, 1, 0, 0], np.int32), "elevation 9 at index 8, legal are 0 to 8"),
        ("info", columns(30, "train") + np.array([0, 0, 1, 0], np.int32), "azimuth 1 .* 0 to 34 in steps of 2"),
        ("info", columns(30, "train") + np.array([0, 0, 0, 1], np.int32), "lighting 6 at index 5, legal are 0 to 5"),
        ("info", columns(30, "train")[:, :3].copy(), "factors are int32 of \\[n, 4\\]"),
        ("dat", pairs(30, 0)[:, :1].copy(), "stereo pairs are uint8 of \\[n, 2, 96, 96\\]"),
        ("dat", pairs(30, 0).astype(np.int16), "holds int16"),
    ],
)
def test_files_that_do_not_fit_are_refused(root, part, array, says):
    """Counts that differ, values out of range and arrays of another type or shape are refused where they stand."""
    write_split(root, "train", **{part: array})
    with pytest.raises(BadInput, match=says):
        load("smallnorb", root, split="train")
    assert any("smallnorb" in problem for problem in verify("smallnorb", root))


def test_missing_folder_and_file(root, tmp_path):
    """What is missing is named with the place, what was expected, and the option that puts it right."""
    with pytest.raises(BadInput, match=r"no folder .*expected the six \.mat files of smallNORB there.*--data DIR"):
        load("smallnorb", tmp_path / "elsewhere", split="train")
    (root / "smallnorb" / FILES["train"][2]).unlink()
    with pytest.raises(BadInput, match=r"no file .*training-info\.mat or .*\.gz, which smallNORB needs"):
        load("smallnorb", root, split="train")
    assert [there for _, there in locate("smallnorb", root)] == [True, True, False, True, True, True]


def test_verify_finds_nothing_wrong_with_a_sound_part(root):
    """A sound part of a data set has no problem."""
    assert verify("smallnorb", root) == []


def test_verify_finds_toys_of_the_other_split_and_repetitions(root):
    """An instance of the other split, and a pair that is there twice by its factors, are found."""
    write_split(root, "train", info=columns(30, "test"))
    write_split(root, "test", ".gz", info=np.repeat(columns(30, "test")[:1], 30, axis=0))
    problems = verify("smallnorb", root)
    assert len(problems) == 2
    assert "train split of smallnorb has instance 0 at index 0, which belongs to the other split" in problems[0]
    assert "30 images of only 5 different" in problems[1]


def test_verify_finds_synthetic_toys_under_the_name_of_smallnorb(root):
    """Toys in smallNORB's folder are found out."""
    toy = render(0, 4, 30, 0, [0])
    write_split(root, "train", dat=np.concatenate([toy, pairs(29, 1)]))
    assert verify("smallnorb", root) == [
        "the train images of smallnorb are the synthetic toys of capsbench, not photographs"
    ]


def test_a_split_is_written_as_it_is_read(root, tmp_path):
    """Reading a split and writing it gives the same three files, whatever the pieces."""
    paths = [root / "smallnorb" / name for name in FILES["train"]]
    copies = [tmp_path / "copy" / path.name for path in paths]
    found = read_pairs(*paths)
    images = found.images.transpose(0, 3, 1, 2)
    write_pairs(*copies, found.labels, found.factors, (images[i : i + 7] for i in range(0, 30, 7)))
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in paths]


def test_factors_are_taken_by_place():
    """Some places of factors are those places of each factor."""
    n = np.arange(10)
    taken = Factors(n, n + 10, n + 20, n + 30)[np.array([3, 1])]
    rows = (taken.instance, taken.elevation_degrees, taken.azimuth_degrees, taken.lighting)
    assert [row.tolist() for row in rows] == [[3, 1], [13, 11], [23, 21], [33, 31]]
