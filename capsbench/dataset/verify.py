"""What is wrong with a data set, beyond what keeps it from being loaded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from capsbench.dataset import toyshelf
from capsbench.dataset.catalog import DATASETS, DatasetInfo, info, split_paths
from capsbench.dataset.loading import Split, read_split
from capsbench.dataset.smallnorb import INSTANCES, Factors
from capsbench.dataset.toys import render
from capsbench.errors import BadInput


def verify(name: str, root: Path | None, *, cache: Path | None = None) -> list[str]:
    """Read everything and list the problems; an empty list means that the data set is sound.

    Beside what `load` refuses, it is a problem if a class has no image, if there are more images than the complete
    split has, or if a split is byte for byte that of another data set (a folder copied under a second name). In
    smallNORB it is a problem if a toy belongs to the other split, if one is there twice under the same factors, or if
    the pairs are the synthetic toys. A part of a data set is no problem: every table says how many images it stands
    on. Toys are made from code; what of them lies in the cache is checked against its checksums.

    Raises:
        BadInput: there is no such data set.
    """
    about = info(name)
    if about.synthetic:
        return toyshelf.problems(cache)
    problems: list[str] = []
    for split_name in about.files:
        try:
            split = read_split(about, root, split_name)
        except BadInput as error:
            problems.append(str(error))
            continue
        problems += _content(about, split, split_name)
        if split.factors is None:
            twins = _same_elsewhere(name, root, split_name, split)
            problems += [f"the {split_name} images of {name} are those of {twin}, byte for byte" for twin in twins]
        else:
            problems += _factors(about, split, split.factors, split_name)
    return problems


def _content(about: DatasetInfo, split: Split, split_name: str) -> Iterator[str]:
    """Find missing classes and images too many."""
    missing = np.flatnonzero(np.bincount(split.labels, minlength=about.classes) == 0)
    if len(missing):
        yield f"the {split_name} split of {about.name} has no image of class {', '.join(map(str, missing))}"
    if len(split.labels) > split.full_count:
        yield (
            f"the {split_name} split of {about.name} has {len(split.labels):,} images, more than the "
            f"{split.full_count:,} of the complete split"
        )


def _factors(about: DatasetInfo, split: Split, factors: Factors, split_name: str) -> Iterator[str]:
    """Find toys of the other split, toys that are there twice, and toys that were rendered here."""
    foreign = np.flatnonzero(~np.isin(factors.instance, INSTANCES[split_name]))
    if len(foreign):
        legal = ", ".join(map(str, INSTANCES[split_name]))
        yield (
            f"the {split_name} split of {about.name} has instance {factors.instance[foreign[0]]} at index "
            f"{foreign[0]}, which belongs to the other split; legal are {legal}"
        )
    columns = (
        split.labels, factors.instance, factors.elevation_degrees, factors.azimuth_degrees, factors.lighting,
    )  # fmt: skip
    distinct = len(np.unique(np.stack(columns, axis=1), axis=0))
    if distinct < len(split.labels):
        yield (
            f"the {split_name} split of {about.name} has {len(split.labels):,} images of only {distinct:,} "
            "different categories, instances, elevations, azimuths and lightings"
        )
    category, instance, elevation, azimuth, lighting = (int(column[0]) for column in columns)
    toy = render(category, instance, elevation, azimuth, [lighting])[0]
    if np.array_equal(split.images[0], toy.transpose(1, 2, 0)):
        yield f"the {split_name} images of {about.name} are the synthetic toys of capsbench, not photographs"


def _same_elsewhere(name: str, root: Path | None, split_name: str, split: Split) -> list[str]:
    """Name the other data sets whose images of this split are the same; broken ones are their own verification's."""
    twins = []
    for other, about in DATASETS.items():
        alike = about.files == info(name).files and other != name
        if not alike or not split_paths(other, root, split_name)[0].is_file():
            continue
        try:
            theirs = read_split(about, root, split_name)
        except BadInput:
            continue
        if np.array_equal(split.images, theirs.images):
            twins.append(other)
    return twins
