"""A contact sheet: one picture in which a person sees what the toys are."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capsbench.dataset.atomic import whole_file
from capsbench.dataset.smallnorb import AZIMUTHS, CATEGORIES, LIGHTINGS
from capsbench.dataset.toys import render
from capsbench.errors import BadInput

_INSTANCES = (0, 2, 6, 9)  # two that test and two that train, of each build one at least
_ELEVATIONS = (30, 50, 70, 40, 60)


def draw_sheet(path: Path) -> str:
    """Draw toys into a grey PNG: a row an instance, four of each category, and a column an azimuth.

    Elevations and lightings change from column to column; the left eye sees.

    Returns:
        What rows and columns show.

    Raises:
        BadInput: the file cannot be written, or its name does not end in `.png`.
    """
    if path.suffix.lower() != ".png":
        raise BadInput(f"cannot write {path}: the contact sheet is a PNG, name a file that ends in .png")
    rows = [(category, instance) for category in range(len(CATEGORIES)) for instance in _INSTANCES]
    sheet = np.vstack([np.hstack(_row(category, instance)) for category, instance in rows])
    try:
        with whole_file(path) as file:
            file.write(grey_png(sheet))
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    instances = ", ".join(map(str, _INSTANCES))
    return (
        f"synthetic toys; rows are {', '.join(f'{name}s' for name in CATEGORIES)}, of each the instances {instances}; "
        f"columns are azimuths 0 to {AZIMUTHS[-1]} degrees at changing elevations and lightings"
    )


def _row(category: int, instance: int) -> list[NDArray[np.uint8]]:
    """Return one toy from all sides, uint8 [96, 96] each."""
    return [
        render(category, instance, _ELEVATIONS[i % len(_ELEVATIONS)], azimuth, [i % LIGHTINGS])[0, 0]
        for i, azimuth in enumerate(AZIMUTHS)
    ]


def grey_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 [h, w] as a PNG file (W3C, Portable Network Graphics, third edition): 8 bits of grey a pixel."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    unfiltered = np.pad(pixels, ((0, 0), (1, 0)))  # each row begins with the number of its filter, 0 for none
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
