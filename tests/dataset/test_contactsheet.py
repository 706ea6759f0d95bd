import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from capsbench.dataset import contactsheet
from capsbench.dataset.contactsheet import draw_sheet, grey_png
from capsbench.dataset.toys import render
from capsbench.errors import BadInput


def pixels_of(png):
    """Read a grey PNG without filters, checking every length and checksum."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        (length,), name = struct.unpack(">I", png[at : at + 4]), png[at + 4 : at + 8]
        data, checksum = png[at + 8 : at + 8 + length], png[at + 8 + length : at + 12 + length]
        assert checksum == struct.pack(">I", zlib.crc32(name + data))
        chunks[name] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 0, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


@given(pixels=arrays.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_a_png_holds_its_pixels(pixels):
    """What is written is what a reader of PNG finds."""
    np.testing.assert_array_equal(pixels_of(grey_png(pixels)), pixels)


def test_rows_are_instances_and_columns_azimuths(tmp_path, monkeypatch):
    """The sheet has a row an instance of each category and a column an azimuth, and says so."""
    monkeypatch.setattr(contactsheet, "_INSTANCES", (5,))
    legend = draw_sheet(tmp_path / "sheet.png")
    sheet = pixels_of((tmp_path / "sheet.png").read_bytes())
    assert sheet.shape == (5 * 96, 18 * 96)
    np.testing.assert_array_equal(sheet[96:192, 192:288], render(1, 5, 70, 40, [2])[0, 0])
    assert legend.startswith("synthetic toys; rows are animals, humans, airplanes, trucks, cars")


def test_a_sheet_is_a_png(tmp_path):
    """Another kind of file, or one that cannot be written, is refused and not begun."""
    with pytest.raises(BadInput, match=r"name a file that ends in \.png"):
        draw_sheet(tmp_path / "sheet.jpg")
    assert not list(tmp_path.iterdir())
