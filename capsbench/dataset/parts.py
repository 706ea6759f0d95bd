"""The images of a part of a protocol: loaded, chosen by viewpoint, never copied."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset import toyshelf
from capsbench.dataset.catalog import SplitName, info
from capsbench.dataset.chosen import choose
from capsbench.dataset.loading import Split, load
from capsbench.dataset.protocol import DataUse, Part, View
from capsbench.dataset.smallnorb import AZIMUTHS, ELEVATIONS, Factors
from capsbench.errors import BadInput


def load_part(
    use: DataUse, part: Part, root: Path | None, *, cache: Path | None = None, progress: toyshelf.Progress | None = None
) -> Split:
    """Load the images that a part uses; `full_count` is that of the viewpoints it chooses.

    Args:
        use: protocol and limits; a limit counts the images that are chosen.
        part: which.
        root: the folder that holds the data sets; None for the default.
        cache: where generated data sets are kept; None for the default.
        progress: is called with images made so far and their final number, where any must be made.

    Raises:
        BadInput: files missing or broken, or fewer images than the limit asks for.
    """
    protocol, view, limit = use.protocol, use.protocol.view(part), use.limit(part)
    split: SplitName = "train" if part == "train" else "test"
    chooses = bool(view.azimuths_degrees or view.elevations_degrees)
    first = limit
    if chooses:
        first = None if limit is None else _needed(use, split, view, limit)
    whole = load(protocol.data, root, split=split, limit=first, eyes=protocol.eyes, cache=cache, progress=progress)
    return _chosen(whole, use, part) if chooses else whole


def seen(view: View, factors: Factors) -> NDArray[np.bool_]:
    """Which images [n] a view chooses."""
    seen = np.ones(len(factors.instance), np.bool_)
    if view.azimuths_degrees:
        seen &= np.isin(factors.azimuth_degrees, view.azimuths_degrees)
    if view.elevations_degrees:
        seen &= np.isin(factors.elevation_degrees, view.elevations_degrees)
    return seen


def _chosen(whole: Split, use: DataUse, part: Part) -> Split:
    view, limit = use.protocol.view(part), use.limit(part)
    assert whole.factors is not None  # noqa: S101 - check_protocol has seen to it
    places = np.flatnonzero(seen(view, whole.factors))
    if limit is not None and len(places) < limit:
        raise BadInput(f"the {part} part of {use.name} has only {len(places):,} images here, {limit:,} were asked for")
    if not len(places):
        raise BadInput(f"the {part} part of {use.name} has no image here: none is seen from its viewpoints")
    places = places[:limit]
    # Every toy is seen from every viewpoint, so that the complete part is a share of the complete split.
    full = whole.full_count * _share(view.azimuths_degrees, AZIMUTHS) * _share(view.elevations_degrees, ELEVATIONS)
    return replace(
        whole,
        images=choose(whole.images, places),
        labels=whole.labels[places],
        factors=whole.factors[places],
        full_count=round(full),
    )


def _share(chosen: tuple[int, ...], of: tuple[int, ...]) -> float:
    return len(chosen) / len(of) if chosen else 1.0


def _needed(use: DataUse, split: SplitName, view: View, limit: int) -> int | None:
    """How many leading images hold `limit` chosen ones; None, for all, where files are only mapped."""
    if not info(use.protocol.data).synthetic:
        return None
    places = np.flatnonzero(seen(view, toyshelf.factors(split)))
    return int(places[limit - 1]) + 1 if limit <= len(places) else None
