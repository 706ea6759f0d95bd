import shutil

import numpy as np
import pytest

from capsbench.dataset import catalog
from capsbench.dataset.catalog import DATASETS, folder_of, info, locate
from capsbench.dataset.idx import write_idx
from capsbench.dataset.loading import describe_count, load, split_sha256
from capsbench.dataset.verify import verify
from capsbench.errors import BadInput

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels(count):
    return np.arange(count, dtype=np.uint8) % 10


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a sound small MNIST: 30 training and 20 test images, some files compressed; none is installed."""
    monkeypatch.setattr(catalog, "SYSTEM_ROOT", tmp_path / "installed")
    for file, array in zip(FILES, (images(30), labels(30), images(20, 1), labels(20)), strict=True):
        write_idx(tmp_path / "mnist" / (file + (".gz" if "labels" in file else "")), array)
    return tmp_path


@pytest.mark.parametrize("name", DATASETS)
def test_the_catalogue_is_consistent(name):
    """Each data set is listed under its own name, with a name for every class and both splits counted."""
    about = info(name)
    assert about.name == name
    assert len(about.class_names) == len(set(about.class_names)) == about.classes
    assert set(about.full_counts) == {"train", "test"}
    assert len(about.image_shape) == 3
    assert set(about.files) == (set() if about.synthetic else {"train", "test"})


def test_unknown_names_are_refused(root):
    """A misspelt data set or split is refused with the nearest name."""
    with pytest.raises(BadInput, match="did you mean 'mnist'"):
        info("mnits")
    with pytest.raises(BadInput, match="did you mean 'test'"):
        load("mnist", root, split="tset")


def test_a_split_is_loaded_with_channels_and_counts(root):
    """Images come as [n, 28, 28, 1] with int64 labels, and the count says what part of the full split it is."""
    split = load("mnist", root, split="train")
    np.testing.assert_array_equal(split.images[..., 0], images(30))
    assert split.images.dtype == np.uint8
    assert split.images.shape == (30, 28, 28, 1)
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == labels(30).tolist()
    assert describe_count(split) == "30 of 60,000"


def test_a_limit_takes_the_first_images(root):
    """A limit gives the beginning of the file, and a limit beyond the end is refused with the number there."""
    np.testing.assert_array_equal(load("mnist", root, split="test", limit=7).images[..., 0], images(20, 1)[:7])
    assert len(load("mnist", root, split="test", limit=20).labels) == 20
    with pytest.raises(BadInput, match="only 20 images here, 21 were"):
        load("mnist", root, split="test", limit=21)
    with pytest.raises(BadInput, match="legal is 1 or more"):
        load("mnist", root, split="test", limit=0)


def test_the_hash_tells_splits_apart(root):
    """Equal content has an equal hash; another limit, another pixel or another label changes it."""
    first = split_sha256(load("mnist", root, split="train"))
    assert first == split_sha256(load("mnist", root, split="train", limit=30))
    assert first != split_sha256(load("mnist", root, split="train", limit=29))
    changed = images(30)
    changed[5, 3, 3] ^= 1
    write_idx(root / "mnist" / FILES[0], changed)
    second = split_sha256(load("mnist", root, split="train"))
    write_idx(root / "mnist" / (FILES[1] + ".gz"), labels(30)[::-1])
    third = split_sha256(load("mnist", root, split="train"))
    assert len({first, second, third}) == 3


def test_the_hash_is_pinned(tmp_path):
    """The hash of known content never changes, for records of different versions are compared by it."""
    write_idx(tmp_path / "mnist" / FILES[0], np.arange(28 * 28 * 2).astype(np.uint8).reshape(2, 28, 28))
    write_idx(tmp_path / "mnist" / FILES[1], np.array([3, 9], np.uint8))
    digest = split_sha256(load("mnist", tmp_path, split="train"))
    assert digest == "859d20ad4241011053ca3de6590813debcf179fd581d2ac08fe72936f2c72460"


@pytest.mark.parametrize(
    ("file", "array", "says"),
    [
        (FILES[1], labels(29), "holds 30 images but .* 29 labels"),
        (FILES[1], np.where(np.arange(30) == 17, 10, labels(30)).astype(np.uint8), "label 10 at index 17; .* 0 to 9"),
        (FILES[1], labels(30).reshape(5, 6), "in one dimension"),
        (FILES[0], np.zeros((30, 32, 32), np.uint8), "28x28"),
        (FILES[0], np.zeros((30, 28, 28), np.int16), "int16"),
        (FILES[0], np.zeros(30, np.uint8), "28x28"),
    ],
)
def test_files_that_do_not_fit_are_refused(root, file, array, says):
    """Counts that differ, labels out of range and images of another size are refused where they stand."""
    write_idx(root / "mnist" / file, array)
    with pytest.raises(BadInput, match=says):
        load("mnist", root, split="train")
    assert any("mnist" in problem for problem in verify("mnist", root))


def test_missing_folder_and_file(root):
    """What is missing is named with the place, what was expected, and the option that puts it right."""
    with pytest.raises(BadInput, match=r"no folder .*fashion-mnist; expected the four IDX files .*--data DIR"):
        load("fashion-mnist", root, split="train")
    (root / "mnist" / FILES[2]).unlink()
    with pytest.raises(BadInput, match=r"no file .*t10k-images-idx3-ubyte or .*\.gz.*--data DIR"):
        load("mnist", root, split="test")
    assert len(load("mnist", root, split="train").labels) == 30


def test_the_default_folder_is_data_here(root, monkeypatch):
    """Without a root, data sets are looked for in the folder `data` of the working directory."""
    (root / "data").mkdir()
    (root / "mnist").rename(root / "data" / "mnist")
    monkeypatch.chdir(root)
    assert len(load("mnist", None, split="train").labels) == 30


def test_installed_data_sets_come_after_the_users_own(root):
    """A data set that is whole below the system's folder is read from there, unless the user's own is whole too."""
    shutil.copytree(root / "mnist", root / "installed" / "mnist")
    assert folder_of("mnist", root) == root / "mnist"
    (root / "mnist" / FILES[0]).unlink()
    assert folder_of("mnist", root) == root / "installed" / "mnist"
    assert all(there for _, there in locate("mnist", root))
    (root / "installed" / "mnist" / FILES[0]).unlink()
    assert folder_of("mnist", root) == root / "mnist"


def test_locate_says_what_is_there(root):
    """All four files are listed, found under the name they have, missing under the plain name."""
    (root / "mnist" / FILES[0]).unlink()
    found = [(path.name, there) for path, there in locate("mnist", root)]
    assert found == [(FILES[0], False), (FILES[1] + ".gz", True), (FILES[2], True), (FILES[3] + ".gz", True)]
    assert [there for _, there in locate("fashion-mnist", root)] == [False] * 4
    assert locate("toys", root) == []


def test_verify_finds_nothing_wrong_with_a_sound_part(root):
    """A sound part of a data set has no problem."""
    assert verify("mnist", root) == []
    assert verify("toys", root, cache=root / "cache") == []


def test_verify_lists_every_problem(root):
    """Problems of both splits are listed: a missing class, and a file cut short."""
    write_idx(root / "mnist" / (FILES[1] + ".gz"), np.minimum(labels(30), 8))
    path = root / "mnist" / (FILES[3] + ".gz")
    path.write_bytes(path.read_bytes()[:-5])
    problems = verify("mnist", root)
    assert len(problems) == 2
    assert "no image of class 9" in problems[0]
    assert "truncated" in problems[1]


def test_verify_finds_a_copied_data_set(root):
    """MNIST under the name of Fashion-MNIST is found out."""
    (root / "fashion-mnist").mkdir()
    for path in (root / "mnist").iterdir():
        (root / "fashion-mnist" / path.name).write_bytes(path.read_bytes())
    assert verify("fashion-mnist", root) == [
        "the train images of fashion-mnist are those of mnist, byte for byte",
        "the test images of fashion-mnist are those of mnist, byte for byte",
    ]


def test_toys_are_made_and_limited(tmp_path):
    """Toys need no folder, are cached where asked, and a limit is balanced over the categories."""
    calls = []
    split = load("toys", None, split="train", limit=30, cache=tmp_path, progress=lambda *call: calls.append(call))
    assert split.images.shape == (30, *info("toys").image_shape)
    assert np.bincount(split.labels).tolist() == [6] * 5
    assert describe_count(split) == "30 of 24,300"
    assert calls[-1] == (30, 30)
    assert list(tmp_path.iterdir())
    again = load("toys", None, split="train", limit=30, cache=tmp_path)
    assert split_sha256(again) == split_sha256(split)


def test_kmnist_lies_in_files_named_as_mnists(root):
    """Kuzushiji-MNIST is read from MNIST's file names in its own folder, and told apart from MNIST's images."""
    (root / "mnist").rename(root / "kmnist")
    assert load("kmnist", root, split="test").images.shape == (20, 28, 28, 1)
    assert verify("kmnist", root) == []
    assert info("kmnist").class_names[2:4] == ("su", "tsu")
