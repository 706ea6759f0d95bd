"""The data sets by name: what they are, where their files lie, and how they are loaded and checked."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset import toys
from capsbench.dataset.camera import SIDE
from capsbench.dataset.idx import read_idx
from capsbench.dataset.toybox import CATEGORIES
from capsbench.errors import BadInput, unknown_name

SplitName = Literal["train", "test"]

DEFAULT_ROOT = Path("data")
"""Where data sets are looked for when no `--data DIR` is given."""

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set before any file is opened.

    Attributes:
        name: as written in a suite.
        title: as written in a table.
        classes: how many.
        class_names: one a class, by label.
        image_shape: (height, width, channels).
        full_counts: images in the complete `train` and `test` split.
        synthetic: whether it is made here instead of read from files.
        source: citation.
    """

    name: str
    title: str
    classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    full_counts: Mapping[str, int]
    synthetic: bool
    source: str


@dataclass(frozen=True, slots=True)
class Split:
    """One half of a data set, checked.

    Attributes:
        images: uint8 [n, h, w, c].
        labels: int64 [n], each in [0, classes).
        full_count: how many images the complete split has.
        sha256: over shapes and bytes of labels and images, as they are here.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    full_count: int
    sha256: str


_MNIST_COUNTS = MappingProxyType({"train": 60_000, "test": 10_000})

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({
    "toys": DatasetInfo(
        name="toys",
        title="Toys",
        classes=len(CATEGORIES),
        class_names=CATEGORIES,
        image_shape=(SIDE, SIDE, 2),
        full_counts=MappingProxyType({"train": toys.FULL_COUNT, "test": toys.FULL_COUNT}),
        synthetic=True,
        source=f"rendered by capsbench, generator version {toys.GENERATOR_VERSION}, with the factors of smallNORB",
    ),
    "mnist": DatasetInfo(
        name="mnist",
        title="MNIST",
        classes=10,
        class_names=tuple("0123456789"),
        image_shape=(28, 28, 1),
        full_counts=_MNIST_COUNTS,
        synthetic=False,
        source="LeCun, Bottou, Bengio and Haffner, Proceedings of the IEEE 86(11), 1998",
    ),
    "fashion-mnist": DatasetInfo(
        name="fashion-mnist",
        title="Fashion-MNIST",
        classes=10,
        class_names=(
            "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
        ),
        image_shape=(28, 28, 1),
        full_counts=_MNIST_COUNTS,
        synthetic=False,
        source="Xiao, Rasul and Vollgraf, arXiv:1708.07747, 2017",
    ),
})  # fmt: skip


def info(name: str) -> DatasetInfo:
    """Return what is known of data set `name`.

    Raises:
        BadInput: there is no such data set.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def load(
    name: str,
    root: Path | None,
    *,
    split: SplitName,
    limit: int | None = None,
    cache: Path | None = None,
    progress: toys.Progress | None = None,
) -> Split:
    """Load and check one split.

    Args:
        name: of the data set.
        root: the folder that holds a folder of this name; `data` if None. The toys need none.
        split: `train` or `test`.
        limit: load so many images: the first ones of a file, or a balanced selection of the toys.
        cache: where generated data sets are kept, by default the user's cache folder.
        progress: is called with the images generated so far and their final number.

    Raises:
        BadInput: an unknown name or split, a missing or broken file, images of another size, labels out of range,
            images and labels that differ in number, or a limit beyond what is there.
    """
    about = info(name)
    if split not in about.full_counts:
        raise unknown_name("split", split, about.full_counts)
    if limit is not None and limit < 1:
        raise BadInput(f"the {split} split of {name} cannot be limited to {limit} images, legal is 1 or more")
    if about.synthetic:
        made = toys.make(split, limit, cache=cache, progress=progress)
        images, labels = made.images, made.labels
    else:
        images, labels = _read_split(about, root, split)
        if limit is not None and limit > len(images):
            raise BadInput(
                f"the {split} split of {name} has only {len(images):,} images here, {limit:,} were asked for"
            )
        if limit is not None and limit < len(images):
            images, labels = images[:limit].copy(), labels[:limit].copy()  # a view would keep the rest in memory
    return Split(images, labels, about.full_counts[split], _sha256(images, labels))


def describe_count(split: Split) -> str:
    """Say how much of a split is here: `60,000`, or `10,000 of 60,000`."""
    count = len(split.labels)
    return f"{count:,}" if count == split.full_count else f"{count:,} of {split.full_count:,}"


def locate(name: str, root: Path | None) -> list[tuple[Path, bool]]:
    """List the files of a data set and whether each is there; none for a data set that is generated.

    A file that is there is listed under the name it has, a missing one under its name without `.gz`.

    Raises:
        BadInput: there is no such data set.
    """
    if info(name).synthetic:
        return []
    folder = _folder(name, root)
    found = [_find(folder, file) for files in _FILES.values() for file in files]
    return [(path, path.is_file()) for path in found]


def verify(name: str, root: Path | None) -> list[str]:
    """Read everything and list the problems; an empty list means that the data set is sound.

    Beside what `load` refuses, it is a problem if a class has no image, if there are more images than the complete
    split has, or if a split is byte for byte that of another data set (a folder copied under a second name). A part
    of a data set is no problem: every table says how many images it stands on.

    Raises:
        BadInput: there is no such data set.
    """
    about = info(name)
    problems: list[str] = []
    if about.synthetic:
        return problems  # made from code, and checked against it whenever it is read
    for split in _FILES:
        try:
            images, labels = _read_split(about, root, split)
        except BadInput as error:
            problems.append(str(error))
            continue
        missing = np.flatnonzero(np.bincount(labels, minlength=about.classes) == 0)
        if len(missing):
            problems.append(f"the {split} split of {name} has no image of class {', '.join(map(str, missing))}")
        if len(images) > about.full_counts[split]:
            problems.append(
                f"the {split} split of {name} has {len(images):,} images, more than the {about.full_counts[split]:,} "
                "of the complete split"
            )
        twins = _same_elsewhere(name, root, split, images)
        problems += [f"the {split} images of {name} are those of {twin}, byte for byte" for twin in twins]
    return problems


def _same_elsewhere(name: str, root: Path | None, split: str, images: NDArray[np.uint8]) -> list[str]:
    """Name the other data sets whose images of this split are the same; broken ones are their own verification's."""
    twins = []
    for other, about in DATASETS.items():
        if other == name or about.synthetic or not _find(_folder(other, root), _FILES[split][0]).is_file():
            continue
        try:
            theirs, _ = _read_split(about, root, split)
        except BadInput:
            continue
        if np.array_equal(images, theirs):
            twins.append(other)
    return twins


def _folder(name: str, root: Path | None) -> Path:
    return (DEFAULT_ROOT if root is None else root) / name


def _find(folder: Path, file: str) -> Path:
    """Return the path of a file, compressed or not; the uncompressed name if it is missing."""
    compressed = folder / f"{file}.gz"
    return compressed if compressed.is_file() and not (folder / file).is_file() else folder / file


def _read_split(about: DatasetInfo, root: Path | None, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read and check images [n, h, w, c] and labels [n] of an IDX data set."""
    folder = _folder(about.name, root)
    if not folder.is_dir():
        raise BadInput(
            f"no folder {folder}; expected the four IDX files of {about.title} there, plain or .gz; "
            f"name the folder that holds {about.name}/ with --data DIR"
        )
    images_path, labels_path = (_find(folder, file) for file in _FILES[split])
    for path in (images_path, labels_path):
        if not path.is_file():
            raise BadInput(
                f"no file {path} or {path.name}.gz, which {about.title} needs; "
                f"name the folder that holds {about.name}/ with --data DIR"
            )
    images, labels = read_idx(images_path), read_idx(labels_path)
    _check(about, images, labels, images_path, labels_path)
    return images.reshape(-1, *about.image_shape), labels.astype(np.int64)


def _check(
    about: DatasetInfo, images: NDArray[Any], labels: NDArray[Any], images_path: Path, labels_path: Path
) -> None:
    """Refuse arrays that cannot be images and labels of this data set."""
    height, width, _ = about.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (height, width):
        raise BadInput(
            f"{images_path} holds {images.dtype} of shape {images.shape}; "
            f"{about.title} has uint8 images of {height}x{width}"
        )
    if labels.dtype != np.uint8 or labels.ndim != 1:
        raise BadInput(f"{labels_path} holds {labels.dtype} of shape {labels.shape}; labels are uint8 in one dimension")
    if len(images) != len(labels):
        raise BadInput(f"{images_path} holds {len(images):,} images but {labels_path.name} {len(labels):,} labels")
    wrong = np.flatnonzero(labels >= about.classes)
    if len(wrong):
        raise BadInput(
            f"{labels_path} has the label {labels[wrong[0]]} at index {wrong[0]}; "
            f"{about.title} has labels 0 to {about.classes - 1}"
        )


def _sha256(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Hash shapes and bytes of labels and images, on every machine alike."""
    digest = hashlib.sha256()
    for array in (labels.astype("<i8", copy=False), images):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
