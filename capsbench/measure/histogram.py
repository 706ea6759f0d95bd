"""Counting values into bins that fit any range, as they come: see `capsbench.measure.distribution`."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.errors import BadInput
from capsbench.measure.distribution import QUANTILES, SPARSE_BELOW, Distribution, Quantity

_BINS = 1 << 16
_NEGATIVE = 1 << 15  # the sign is the first bit of the 16
_INFINITE = 0x7F80  # all bits of the exponent
_LARGEST = float(np.finfo(np.float32).max)
# Values that are looked at together: few enough for the processor's caches, many enough to hide NumPy's calls.
_PIECE = 1 << 17
_FIELDS = {"low": np.dtype(np.float64), "high": np.dtype(np.float64), "counts": np.dtype(np.int64)}


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of values in the bins that hold any.

    Attributes:
        low: float64 [k], where each bin begins; ascending, the first at the least value.
        high: float64 [k], where each ends, the next one's `low` at most; the last at the greatest value. A bin that
            ends where it begins holds one value again and again.
        counts: int64 [k], above 0.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    counts: NDArray[np.int64]

    def over(self, edges: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts over other bins, a bin that lies in several being shared out by overlap.

        As in `numpy.histogram` a bin holds its left edge, the last one both, and what lies outside is left out.

        Args:
            edges: ascending, [m + 1].

        Returns:
            Counts [m].
        """
        whole = np.searchsorted(self.high, edges, side="left")  # bins that end below the edge
        whole[-1] = np.searchsorted(self.high, edges[-1], side="right")
        low, high = np.append(self.low, _LARGEST), np.append(self.high, np.inf)  # a bin after the last, with nothing
        counts, below = np.append(self.counts, 0), np.append(0, np.cumsum(self.counts))
        width = high[whole] - low[whole]
        inside = np.clip(edges - low[whole], 0.0, _LARGEST) / np.where(width > 0.0, width, np.inf)
        shares: NDArray[np.float64] = np.diff(below[whole] + inside * counts[whole])
        return shares

    def quantile(self, share: float) -> float:
        """The least value that at least `share` of the values do not exceed, to the width of its bin.

        The two bins beside zero, which hold nothing of a magnitude above 1e-40, are zero.

        Raises:
            ValueError: nothing was counted.
        """
        below = np.cumsum(self.counts)
        if not len(below):
            raise ValueError("a quantile of no values")
        rank = min(max(1, math.ceil(share * int(below[-1]))), int(below[-1]))
        at = int(np.searchsorted(below, rank))
        if self.low[at] <= 0.0 <= self.high[at]:
            return 0.0
        within = (rank - 0.5 - (below[at] - self.counts[at])) / self.counts[at]
        return float(self.low[at] + within * (self.high[at] - self.low[at]))


@dataclass(slots=True)
class Counter:
    """Counts what a layer gives out, batch by batch, and keeps no value.

    Attributes:
        types: capsule types or channels, whose values alternate in an image; None where none is to be found dead.
        images: whose values were counted.
        count: values.
        refused: images that were left out, because not all of their values are finite in float32.
    """

    types: int | None = None
    images: int = 0
    count: int = 0
    refused: int = 0
    _bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    _sum: float = 0.0
    _squares: float = 0.0
    _hoyer: float = 0.0
    _sparse: int = 0
    _least: float = math.inf
    _greatest: float = -math.inf
    _peaks: NDArray[np.float64] | None = None

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Count the values [images, ...]; they are rounded to float32, and every sum is kept in float64."""
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        if not flat.size:
            return
        with np.errstate(invalid="ignore"):  # NaN is what is looked for
            least, greatest = flat.min(axis=1), flat.max(axis=1)
            fine = (least >= -_LARGEST) & (greatest <= _LARGEST)
        if not fine.all():
            self.refused += int((~fine).sum())
            flat, least, greatest = flat[fine], least[fine], greatest[fine]
            if not flat.size:
                return
        self._least = min(self._least, float(np.float32(least.min())))
        self._greatest = max(self._greatest, float(np.float32(greatest.max())))
        together = max(1, _PIECE // flat.shape[1])
        for first in range(0, len(flat), together):
            self._add_images(flat[first : first + together])

    def histogram(self) -> Histogram:
        """Counts over the bins, cut off at the least and the greatest value."""
        order = np.concatenate([np.arange(_INFINITE - 1, -1, -1) + _NEGATIVE, np.arange(_INFINITE)])
        full = order[self._bins[order] > 0]
        near, far = _magnitudes(full & ~_NEGATIVE)
        negative = full >= _NEGATIVE
        low, high = np.where(negative, -far, near), np.where(negative, -near, far)
        return Histogram(np.maximum(low, self._least), np.minimum(high, self._greatest), self._bins[full])

    def distribution(self, layer: str, quantity: Quantity) -> Distribution:
        """What was counted, in numbers.

        Raises:
            ValueError: nothing was counted.
        """
        histogram = self.histogram()
        quantiles = tuple(histogram.quantile(share) for share in QUANTILES)
        mean = self._sum / self.count
        return Distribution(
            layer=layer,
            quantity=quantity,
            images=self.images,
            count=self.count,
            mean=mean,
            deviation=math.sqrt(max(0.0, self._squares / self.count - mean * mean)),
            least=self._least + 0.0,  # no negative zero
            greatest=self._greatest + 0.0,
            quantiles=quantiles,
            sparse_share=self._sparse / self.count,
            hoyer=self._hoyer / self.images,
            dead_share=self._dead_share(),
        )

    def _add_images(self, images: NDArray[np.floating[Any]]) -> None:
        """Count finite values [images, n], of which only those of a single image may be many."""
        size = images.shape[1]
        if self.types is not None and self._peaks is None:
            self._peaks = np.zeros(size)
        sums, squares = np.zeros(len(images)), np.zeros(len(images))
        for start in range(0, size, _PIECE):
            piece = np.add(images[:, start : start + _PIECE], 0.0, dtype=np.float32, casting="same_kind")  # -0.0 is 0.0
            self._bins += np.bincount((piece.view(np.uint32) >> np.uint32(16)).reshape(-1), minlength=_BINS)
            wide = piece.astype(np.float64)
            self._sum += float(wide.sum())
            squares += np.einsum("ij,ij->i", wide, wide)
            np.abs(wide, out=wide)
            sums += wide.sum(axis=1)
            self._sparse += int(np.count_nonzero(wide < SPARSE_BELOW))
            if self._peaks is not None:
                peaks = self._peaks[start : start + _PIECE]
                np.maximum(peaks, wide.max(axis=0), out=peaks)
        self._squares += float(squares.sum())
        self._hoyer += float(_hoyer(sums, squares, size).sum())
        self.images += len(images)
        self.count += images.size

    def _dead_share(self) -> float | None:
        if self.types is None or self._peaks is None:
            return None
        return float((self._peaks.reshape(-1, self.types).max(axis=0) < SPARSE_BELOW).mean())


def write_histograms(path: Path, histograms: Mapping[tuple[str, Quantity], Histogram]) -> None:
    """Write histograms by layer and quantity as an npz archive of arrays `layer.quantity.field`.

    Raises:
        OSError: the file cannot be written; none is left behind.
    """
    arrays = {
        f"{layer}.{quantity}.{name}": getattr(histogram, name)
        for (layer, quantity), histogram in histograms.items()
        for name in _FIELDS
    }
    with whole_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


_DAMAGE = (
    OSError, ValueError, EOFError, KeyError, RuntimeError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
"""What reading a damaged or forged .npz file raises; MemoryError where its header claims more than memory holds."""


def read_histograms(path: Path) -> dict[tuple[str, Quantity], Histogram]:
    """Histograms by layer and quantity, in the order in which they were written.

    Raises:
        BadInput: there is no such file, or it is none that `write_histograms` has written.
    """
    try:
        return _histograms(_arrays(path))
    except FileNotFoundError:
        raise BadInput("there is no such file of histograms", str(path)) from None
    except _DAMAGE as error:
        text = "this is no file of histograms, or it is damaged; run the case again, or take the file away"
        raise BadInput(text, str(path)) from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _histograms(arrays: Mapping[str, NDArray[Any]]) -> dict[tuple[str, Quantity], Histogram]:
    legal: dict[str, Quantity] = {quantity: quantity for quantity in get_args(Quantity)}
    found: dict[tuple[str, Quantity], dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        layer, quantity, part = name.split(".")
        if quantity not in legal or _FIELDS.get(part) != array.dtype or array.ndim != 1:
            raise ValueError(f"{name!r} is no part of a histogram")
        found.setdefault((layer, legal[quantity]), {})[part] = array
    histograms = {key: Histogram(**parts) for key, parts in found.items() if len(parts) == len(_FIELDS)}
    if len(histograms) < len(found) or not all(map(_is_sound, histograms.values())):
        raise ValueError("a histogram is incomplete or out of order")
    return histograms


def _is_sound(histogram: Histogram) -> bool:
    low, high, counts = histogram.low, histogram.high, histogram.counts
    if not len(low) == len(high) == len(counts):
        return False
    return bool((low <= high).all() and (high[:-1] <= low[1:]).all() and (counts > 0).all())


def _magnitudes(bins: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least magnitude in each of the bins without their sign, and the one where the next begins."""
    edges = (np.arange(_INFINITE + 1, dtype=np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    edges[_INFINITE] = 2.0**128  # where float32 has infinity
    return edges[bins], edges[bins + 1]


def _hoyer(sums: NDArray[np.float64], squares: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Hoyer's sparsity (2004) of images with `size` values, from the sums of their magnitudes and squares.

    Nought where it is undefined: for a single value, and for zeros only, which are all equal.
    """
    norms = np.sqrt(squares)
    if size == 1:
        return np.zeros_like(norms)
    ratio = np.where(norms > 0.0, sums / np.where(norms > 0.0, norms, 1.0), math.sqrt(size))
    return np.clip((math.sqrt(size) - ratio) / (math.sqrt(size) - 1.0), 0.0, 1.0)
