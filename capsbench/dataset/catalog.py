"""The data sets by name: what is known of each before any file is opened, and where its files lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from capsbench.dataset import smallnorb
from capsbench.dataset.toys import GENERATOR_VERSION
from capsbench.errors import unknown_name

SplitName = Literal["train", "test"]

DEFAULT_ROOT = Path("data")
"""Where data sets are looked for when no `--data DIR` is given."""
SYSTEM_ROOT = Path("/usr/share/datasets")
"""Where they are looked for after that: distributions install data sets there. Nothing is written there."""


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
        synthetic: whether it is made here instead of read from the user's files.
        source: citation.
        files: names of the `train` and `test` files without `.gz`: two in IDX format, images and labels, or three of
            smallNORB's; none for a synthetic data set.
    """

    name: str
    title: str
    classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    full_counts: Mapping[str, int]
    synthetic: bool
    source: str
    files: Mapping[str, tuple[str, ...]]


_MNIST_COUNTS = MappingProxyType({"train": 60_000, "test": 10_000})
_MNIST_FILES = MappingProxyType(
    {
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    }
)
_NORB_COUNTS = MappingProxyType({"train": smallnorb.FULL_COUNT, "test": smallnorb.FULL_COUNT})
_NORB_SHAPE = (smallnorb.SIDE, smallnorb.SIDE, 2)

DATASETS: Mapping[str, DatasetInfo] = MappingProxyType({
    "toys": DatasetInfo(
        name="toys",
        title="Toys",
        classes=len(smallnorb.CATEGORIES),
        class_names=smallnorb.CATEGORIES,
        image_shape=_NORB_SHAPE,
        full_counts=_NORB_COUNTS,
        synthetic=True,
        source=f"rendered by capsbench, generator version {GENERATOR_VERSION}, with the factors of smallNORB",
        files=MappingProxyType({}),
    ),
    "smallnorb": DatasetInfo(
        name="smallnorb",
        title="smallNORB",
        classes=len(smallnorb.CATEGORIES),
        class_names=smallnorb.CATEGORIES,
        image_shape=_NORB_SHAPE,
        full_counts=_NORB_COUNTS,
        synthetic=False,
        source="LeCun, Huang and Bottou, CVPR 2004",
        files=MappingProxyType(smallnorb.FILES),
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
        files=_MNIST_FILES,
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
        files=_MNIST_FILES,
    ),
    "kmnist": DatasetInfo(
        name="kmnist",
        title="Kuzushiji-MNIST",
        classes=10,
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        image_shape=(28, 28, 1),
        full_counts=_MNIST_COUNTS,
        synthetic=False,
        source="Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto and Ha, arXiv:1812.01718, 2018",
        files=_MNIST_FILES,
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


def locate(name: str, root: Path | None) -> list[tuple[Path, bool]]:
    """List the files of a data set and whether each is there; none for a data set that is generated.

    A file that is there is listed under the name it has, a missing one under its name without `.gz`.

    Raises:
        BadInput: there is no such data set.
    """
    found = [path for split in info(name).files for path in split_paths(name, root, split)]
    return [(path, path.is_file()) for path in found]


def split_paths(name: str, root: Path | None, split: str) -> list[Path]:
    """Return where the files of a split are, or, without `.gz`, where they should be."""
    folder = folder_of(name, root)
    return [_find(folder, file) for file in info(name).files[split]]


def folder_of(name: str, root: Path | None) -> Path:
    """Return the first folder that has all files of a data set; where none has, the one below `root`."""
    files = [file for split in info(name).files.values() for file in split]
    own, installed = (DEFAULT_ROOT if root is None else root) / name, SYSTEM_ROOT / name
    is_whole = [all(_find(folder, file).is_file() for file in files) for folder in (own, installed)]
    return installed if is_whole == [False, True] else own


def _find(folder: Path, file: str) -> Path:
    """Return the path of a file, compressed or not; the uncompressed name if it is missing."""
    compressed = folder / f"{file}.gz"
    return compressed if compressed.is_file() and not (folder / file).is_file() else folder / file
