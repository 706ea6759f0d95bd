"""A split of a data set, read or made, checked, and described by its hash."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset import toyshelf
from capsbench.dataset.catalog import DatasetInfo, SplitName, folder_of, info, split_paths
from capsbench.dataset.idx import read_idx
from capsbench.dataset.norb import is_mapped
from capsbench.dataset.smallnorb import Factors, Pairs, read_pairs
from capsbench.errors import BadInput, unknown_name

Eyes = Literal["pair", "left", "each"]
"""Stereo pairs as two channels, the left picture alone, or either picture as an image of its own, left before right."""

_EYES = ("pair", "left", "each")
_HASHED_AT_ONCE = 1024  # images


@dataclass(frozen=True, slots=True)
class Split:
    """One half of a data set, checked.

    Attributes:
        images: uint8 [n, h, w, c]; perhaps a read-only view of a file's memory map, in an order of axes that is not
            the memory's, or a `Chosen`: who needs values takes a batch of images at a time.
        labels: int64 [n], each in [0, classes).
        full_count: how many images the complete split has.
        factors: under which each image was taken, where that is known.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    full_count: int
    factors: Factors | None = None


def load(
    name: str,
    root: Path | None,
    *,
    split: SplitName,
    limit: int | None = None,
    eyes: Eyes = "pair",
    cache: Path | None = None,
    progress: toyshelf.Progress | None = None,
) -> Split:
    """Load and check one split.

    Args:
        name: of the data set.
        root: the folder that holds a folder of this name; `data` if None. The toys need none.
        split: `train` or `test`.
        limit: load so many images: the first ones of a file, or a balanced selection of the toys.
        eyes: how stereo pairs are used. With `each`, the two of a pair follow one another, and counts are twice as
            large, that of `limit` included.
        cache: where generated data sets are kept, by default the user's cache folder.
        progress: is called with the stereo pairs generated so far and their final number.

    Raises:
        BadInput: an unknown name or split, a missing or broken file, images of another size, labels or factors out
            of range, files that differ in the number of images, a limit beyond what is there, or a choice of eyes
            for images that are no stereo pairs.
    """
    about = info(name)
    if split not in about.full_counts:
        raise unknown_name("split", split, about.full_counts)
    if limit is not None and limit < 1:
        raise BadInput(f"the {split} split of {name} cannot be limited to {limit} images, legal is 1 or more")
    if eyes not in _EYES:
        raise unknown_name("choice of eyes", eyes, _EYES)
    if eyes != "pair" and about.image_shape[2] != 2:
        raise BadInput(f"the images of {name} are no stereo pairs, eyes {eyes!r} cannot be chosen; legal is pair")
    if about.synthetic:
        pairs = None if limit is None else -(-limit // 2) if eyes == "each" else limit
        found = _of_pairs(about, split, toyshelf.make(split, pairs, cache=cache, progress=progress))
    else:
        found = read_split(about, root, split)
    return _limited(_seen(found, eyes), limit, f"the {split} split of {name}")


def describe_count(split: Split) -> str:
    """Say how much of a split is here: `60,000`, or `10,000 of 60,000`."""
    count = len(split.labels)
    return f"{count:,}" if count == split.full_count else f"{count:,} of {split.full_count:,}"


def split_sha256(split: Split) -> str:
    """Hash shapes and bytes of labels and images, as they are here; on every machine alike, some images at a time."""
    digest = hashlib.sha256()
    for array in (split.labels.astype("<i8", copy=False), split.images):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), _HASHED_AT_ONCE):
            digest.update(np.ascontiguousarray(array[start : start + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


def read_split(about: DatasetInfo, root: Path | None, split: str) -> Split:
    """Read and check the files of one split.

    Raises:
        BadInput: a file is missing, broken, or does not fit the data set or the other files.
    """
    paths = split_paths(about.name, root, split)
    _check_presence(about, root, paths)
    if len(paths) == 3:
        return _of_pairs(about, split, read_pairs(*paths))
    images, labels = (read_idx(path) for path in paths)
    _check(about, images, labels, *paths)
    return Split(images.reshape(-1, *about.image_shape), labels.astype(np.int64), about.full_counts[split])


def _of_pairs(about: DatasetInfo, split: str, pairs: Pairs) -> Split:
    return Split(pairs.images, pairs.labels, about.full_counts[split], pairs.factors)


def _seen(split: Split, eyes: Eyes) -> Split:
    """Return the split as the eyes see it, without a copy of its images."""
    if eyes == "pair":
        return split
    if eyes == "left":
        return replace(split, images=split.images[..., :1])
    both = np.repeat(np.arange(len(split.labels)), 2)
    images = split.images.transpose(0, 3, 1, 2)  # as it lies in the file
    factors = None if split.factors is None else split.factors[both]
    return Split(images.reshape(-1, *images.shape[2:], 1), split.labels[both], 2 * split.full_count, factors)


def _limited(split: Split, limit: int | None, what: str) -> Split:
    """Return the first `limit` images of a split."""
    count = len(split.labels)
    if limit is None or limit == count:
        return split
    if limit > count:
        raise BadInput(f"{what} has only {count:,} images here, {limit:,} were asked for")
    images, labels = split.images[:limit], split.labels[:limit]
    if not is_mapped(images):
        images, labels = images.copy(), labels.copy()  # a view would keep the rest in memory
    return Split(images, labels, split.full_count, None if split.factors is None else split.factors[:limit])


def _check_presence(about: DatasetInfo, root: Path | None, paths: list[Path]) -> None:
    """Refuse a data set of which something is missing."""
    folder = folder_of(about.name, root)
    if not folder.is_dir():
        files = "six .mat files" if len(paths) == 3 else "four IDX files"
        raise BadInput(
            f"no folder {folder}; expected the {files} of {about.title} there, plain or .gz; "
            f"name the folder that holds {about.name}/ with --data DIR"
        )
    for path in paths:
        if not path.is_file():
            raise BadInput(
                f"no file {path} or {path.name}.gz, which {about.title} needs; "
                f"name the folder that holds {about.name}/ with --data DIR"
            )


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
