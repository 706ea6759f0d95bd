"""The toys as files: true smallNORB files in the user's cache, made once by all cores and memory-mapped from then on.

A folder is keyed by the generator's version and by how many pairs a split has. Beside the three files of a split lies
a fourth with the checksums of its pairs, written last: without it, or where it does not fit, the split is made again.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.dataset.rendering import render_all
from capsbench.dataset.smallnorb import (
    FILES,
    FULL_COUNT,
    INSTANCES,
    LIGHTINGS,
    SIDE,
    Factors,
    Pairs,
    read_pairs,
    write_pairs,
)
from capsbench.dataset.toys import GENERATOR_VERSION, Viewpoint, viewpoints
from capsbench.errors import BadInput, unknown_name

_PAIR_BYTES = 2 * SIDE * SIDE
_BLOCK = 10 * LIGHTINGS  # pairs under one checksum

Progress = Callable[[int, int], None]


def make(
    split: str,
    limit: int | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    processes: int | None = None,
) -> Pairs:
    """Return the toys of a split, from the cache where as many or more are already made.

    The images are in one fixed order, of which `limit` takes the beginning: whole viewpoints under all six lightings
    (but for the last, if `limit` is no multiple of six), balanced over categories and instances to within one
    viewpoint. The images are a view of the memory map.

    Args:
        split: `train` or `test`.
        limit: how many pairs, or None for all 24,300.
        cache: the folder to keep them in, by default the user's cache folder.
        progress: is called with the pairs made so far and their final number; not for a cached split.
        processes: that render, by default one a core; the result is the same.

    Raises:
        BadInput: there is no such split, too few toys for the limit, or the cache cannot be written.
    """
    if split not in INSTANCES:
        raise unknown_name("split", split, INSTANCES)
    if limit is not None and not 1 <= limit <= FULL_COUNT:
        raise BadInput(f"the {split} split of toys cannot be limited to {limit:,}, legal is 1 to {FULL_COUNT:,}")
    count = FULL_COUNT if limit is None else limit
    folder = cache or _cache()
    for made, shelf in _shelves(folder):
        if made >= count:
            with suppress(BadInput):
                return _read(shelf, split, count)
    shelf = folder / f"toys-v{GENERATOR_VERSION}-{count}"
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        _write(shelf, split, count, progress, processes)
    except OSError as error:
        raise BadInput(
            f"cannot keep the toys in {folder}: {error.strerror or error}; name another folder in XDG_CACHE_HOME"
        ) from error
    return _read(shelf, split, count)


def factors(split: str) -> Factors:
    """The factors of all 24,300 toys of a split, in their order, without making any."""
    views = list(viewpoints(split))
    return _described(views, len(views) * LIGHTINGS)[1]


def problems(cache: Path | None = None) -> list[str]:
    """Name what is wrong with the toys in the cache; an empty list where nothing is, or nothing is there.

    Every one of them is put right when the toys are next used.
    """
    found = []
    for made, shelf in _shelves(cache or _cache()):
        for split in INSTANCES:
            if not any(path.exists() for path in (*_paths(shelf, split), _sums_path(shelf, split))):
                continue
            try:
                _read(shelf, split, made)
            except BadInput as error:
                found.append(f"{error}; it is made again when next used")
    return found


def _cache() -> Path:
    """The user's cache folder."""
    import pooch  # type: ignore[import-untyped]  # noqa: PLC0415 - it takes long, and every worker imports this module

    return Path(pooch.os_cache("capsbench"))


def _shelves(folder: Path) -> list[tuple[int, Path]]:
    """List what this version of the generator has in the cache, the smallest first, by number of pairs a split."""
    found = []
    for shelf in folder.glob(f"toys-v{GENERATOR_VERSION}-*"):
        count = shelf.name.rpartition("-")[2]
        if count.isascii() and count.isdigit() and 1 <= int(count) <= FULL_COUNT:
            found.append((int(count), shelf))
    return sorted(found)


def _paths(shelf: Path, split: str) -> tuple[Path, Path, Path]:
    dat, cat, info = (shelf / name for name in FILES[split])
    return dat, cat, info


def _sums_path(shelf: Path, split: str) -> Path:
    return _paths(shelf, split)[0].with_suffix(".sums.json")


def _read(shelf: Path, split: str, count: int) -> Pairs:
    """Return the first `count` pairs of a shelf.

    Raises:
        BadInput: the files are not all there, broken, or not what this version of the generator makes.
    """
    paths = _paths(shelf, split)
    pairs = read_pairs(*paths)
    labels, factors = _described(list(islice(viewpoints(split), -(-count // LIGHTINGS))), count)
    here = pairs.first(count)
    columns = ("instance", "elevation_degrees", "azimuth_degrees", "lighting")
    same = [np.array_equal(getattr(here.factors, name), getattr(factors, name)) for name in columns]
    if len(here.labels) < count or not np.array_equal(here.labels, labels) or not all(same):
        raise BadInput(f"{shelf} does not hold the first {count:,} toys of the {split} split in their order")
    try:
        sums = json.loads(_sums_path(shelf, split).read_bytes())
        matches = sums[: -(-count // _BLOCK)] == list(_sums(paths[0], count, len(pairs.labels)))
    except (OSError, ValueError, TypeError, KeyError) as error:  # a slice is a key since Python 3.12
        raise BadInput(f"{_sums_path(shelf, split)} holds no checksums of {paths[0].name}") from error
    if not matches:
        raise BadInput(f"{paths[0]} does not match its checksums in {_sums_path(shelf, split).name}")
    return here


def _sums(path: Path, count: int, total: int) -> Iterator[int]:
    """Return the checksum of every block that the first `count` of `total` pairs touch; read, not mapped."""
    with path.open("rb") as file:
        file.seek(-total * _PAIR_BYTES, 2)
        for start in range(0, count, _BLOCK):
            yield zlib.crc32(file.read(min(_BLOCK, total - start) * _PAIR_BYTES))


def _write(shelf: Path, split: str, count: int, progress: Progress | None, processes: int | None) -> None:
    """Make `count` pairs and write their files, the checksums last."""
    views = list(islice(viewpoints(split), -(-count // LIGHTINGS)))
    sums: list[int] = []

    def chunks() -> Iterator[NDArray[np.uint8]]:
        done = 0
        for rendered in render_all(views, processes):
            pairs = rendered[: count - done]
            sums[done // _BLOCK :] = [zlib.crc32(pairs.data, sums[-1] if done % _BLOCK else 0)]
            done += len(pairs)
            yield pairs
            if progress is not None:
                progress(done, count)

    dat, cat, info = _paths(shelf, split)
    labels, factors = _described(views, count)
    write_pairs(dat, cat, info, labels, factors, chunks())
    with whole_file(_sums_path(shelf, split)) as file:
        file.write(json.dumps(sums).encode())


def _described(views: Sequence[Viewpoint], count: int) -> tuple[NDArray[np.int64], Factors]:
    """Return labels and factors of the first `count` pairs of some viewpoints."""
    table = np.array([(view.category, view.instance, view.elevation, view.azimuth) for view in views], np.int64)
    category, instance, elevation, azimuth = np.repeat(table, LIGHTINGS, axis=0)[:count].T
    lighting = np.arange(count, dtype=np.int64) % LIGHTINGS
    return category, Factors(instance, elevation, azimuth, lighting)
