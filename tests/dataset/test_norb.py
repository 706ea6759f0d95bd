import gzip
import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from capsbench.dataset.norb import is_mapped, read_matrix, write_chunks, write_matrix
from capsbench.errors import BadInput

ELEMENTS = st.sampled_from(["u1", "i2", "i4", "f4", "f8"])
SMALL = arrays.array_shapes(max_dims=5, max_side=4)
BYTE, SHORT, PACKED = 0x1E3D4C55, 0x1E3D4C56, 0x1E3D4C52


def norb_bytes(shape, payload, magic=BYTE, rank=None, order="<"):
    dimensions = (*shape, *(1,) * (3 - len(shape)))
    rank = len(shape) if rank is None else rank
    return struct.pack(f"{order}Ii{len(dimensions)}i", magic, rank, *dimensions) + payload


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_matrix(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@given(array=arrays.arrays(ELEMENTS, SMALL), name=st.sampled_from(["a.mat", "a.mat.gz"]))
def test_round_trip(tmp_path, array, name):
    """What is written is read back with the same bytes, shape and element type, and written again as the same file."""
    path, again = tmp_path / name, tmp_path / f"again-{name}"
    write_matrix(path, array)
    back = read_matrix(path)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    write_matrix(again, back)
    assert again.read_bytes() == path.read_bytes()


def test_the_layout_is_the_published_one(tmp_path):
    """A file begins with magic number, rank and at least three dimensions, all little-endian, the missing ones 1."""
    write_matrix(tmp_path / "a", np.array([1, -2], np.int16))
    assert (tmp_path / "a").read_bytes() == bytes.fromhex("564c3d1e 01000000 02000000 01000000 01000000 0100 feff")
    write_matrix(tmp_path / "b", np.arange(16, dtype=np.uint8).reshape(2, 2, 2, 2))
    assert (tmp_path / "b").read_bytes() == bytes.fromhex("554c3d1e 04000000" + "02000000" * 4) + bytes(range(16))


def test_big_endian_arrays_are_written_little_endian(tmp_path):
    """The byte order of the array in memory does not show in the file."""
    write_matrix(tmp_path / "a", np.array([1, 2, 3], ">i4"))
    assert read_matrix(tmp_path / "a").tolist() == [1, 2, 3]


def test_a_plain_file_is_mapped_and_a_compressed_one_is_not(tmp_path):
    """A plain file is mapped, read-only and seen as such through views; the content decides, not the name."""
    array = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    write_matrix(tmp_path / "plain", array)
    (tmp_path / "plain").rename(tmp_path / "plain.gz")
    mapped = read_matrix(tmp_path / "plain.gz")
    assert isinstance(mapped, np.memmap)
    assert is_mapped(np.asarray(mapped).transpose(2, 0, 1)[1:, :1])
    with pytest.raises(ValueError, match="read-only"):
        mapped[0, 0, 0] = 1
    (tmp_path / "packed").write_bytes(gzip.compress((tmp_path / "plain.gz").read_bytes()))
    packed = read_matrix(tmp_path / "packed")
    assert not is_mapped(packed)
    np.testing.assert_array_equal(packed, mapped)


def test_a_large_plain_file_opens_at_once(tmp_path):
    """50 MB are mapped, and take no memory before they are looked at."""
    with (tmp_path / "large").open("wb") as file:
        file.write(norb_bytes((2700, 2, 96, 96), b""))
        file.truncate(24 + 2700 * 2 * 96 * 96)
    tracemalloc.start()
    array = read_matrix(tmp_path / "large")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.nbytes == 49_766_400
    assert is_mapped(array)
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\x55\x4c\x3d", "no smallNORB matrix"),
        (b"PK\3\4 and more", "no smallNORB matrix"),
        (norb_bytes((2,), b"\1\2", magic=PACKED), "packed"),
        (norb_bytes((2,), b"\1\2", order=">"), "big-endian"),
        (norb_bytes((2,), b"\1\2", rank=0), "claims 0 dimensions, legal are 1 to 32"),
        (norb_bytes((2,), b"\1\2", rank=-1), "claims -1 dimensions"),
        (norb_bytes((1,) * 40, b"\1"), "claims 40 dimensions"),
        (norb_bytes((2, 1, 1), b"", rank=5), "inside its header"),
        (struct.pack("<I", BYTE), "inside its header"),
        (norb_bytes((0, 2, 96, 96), b""), "at least 1"),
        (norb_bytes((-4, 1), b"\1\2\3\4"), "at least 1"),
        (norb_bytes((2, 3, 2), b"\1" * 12, rank=2), r"2 dimensions but \(2,\) after them"),
        (norb_bytes((4,), b"\1\2\3"), "holds only 3"),
        (norb_bytes((2,), b"\1\2\3"), "holds more"),
        (norb_bytes((2**31 - 1,) * 3, b"\1"), "more than its size can hold"),
        (norb_bytes((9,), b"\1" * 9, magic=SHORT), "holds only 9"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_broken_files_are_refused(tmp_path, content, says, pack):
    """Every kind of broken file is refused with a sentence that names the file and the fault."""
    path = tmp_path / "file"
    path.write_bytes(pack(content))
    with pytest.raises(BadInput, match=says) as caught:
        read_matrix(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    """A path that is missing or a folder is refused by name."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="no file"):
            read_matrix(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_truncated_files(tmp_path, pack):
    """A file cut anywhere is refused, compressed or not."""
    whole = pack(norb_bytes((4, 4, 4), bytes(range(64))))
    for end in range(len(whole)):
        refused(tmp_path / "cut", whole[:end])


def test_corrupt_gzip(tmp_path):
    """A gzip file whose content does not match its checksum is refused."""
    whole = bytearray(gzip.compress(norb_bytes((64,), bytes(range(64))), compresslevel=0))
    whole[-20] ^= 0xFF
    assert "corrupt" in refused(tmp_path / "bad", bytes(whole))


def test_bombs_and_liars_cost_no_memory(tmp_path):
    """What unpacks to far more than promised, or promises gigabytes, is refused without asking for them."""
    broken = (
        gzip.compress(norb_bytes((10,), bytes(64 << 20))),
        gzip.compress(norb_bytes((50_000,), b"\1") + bytes(20)),
        norb_bytes((1 << 30, 16), b"\1"),
    )
    tracemalloc.start()
    for content in broken:
        refused(tmp_path / "broken", content)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20


@given(bit=st.integers(0, 8 * 20 - 1), packed=st.booleans())
def test_a_flipped_bit_of_the_header_is_found(tmp_path, bit, packed):
    """With any one bit of a header flipped, a file is refused, or holds the same elements (its rank alone changed)."""
    content = bytearray(norb_bytes((2, 3, 5), bytes(range(30))))
    content[bit // 8] ^= 1 << bit % 8
    path = tmp_path / "flipped"
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        array = read_matrix(path)
    except BadInput:
        return
    assert array.tobytes() == bytes(range(30))


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_compressed_file_is_found(tmp_path, position, bit):
    """With any bit flipped, a compressed file is refused or holds the same array."""
    content = bytearray(gzip.compress(norb_bytes((2, 3, 5), bytes(range(30))), mtime=0))
    content[position % len(content)] ^= 1 << bit
    path = tmp_path / "flipped"
    path.write_bytes(content)
    try:
        array = read_matrix(path)
    except BadInput:
        return
    assert array.shape == (2, 3, 5)
    assert array.tobytes() == bytes(range(30))


@given(
    flips=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 80),
    packed=st.booleans(),
)
@example(flips=[(0, 0x1F), (1, 0x8B)], end=80, packed=False)
def test_mutated_files_never_crash(tmp_path, flips, end, packed):
    """A file with any bytes changed and any tail cut off is read or refused as bad input, nothing else."""
    content = norb_bytes((2, 3, 4), bytes(range(24)))
    mutated = bytearray(gzip.compress(content, mtime=0) if packed else content)
    for position, value in flips:
        mutated[position % len(mutated)] = value
    path = tmp_path / "mutated"
    path.write_bytes(mutated[:end])
    try:
        array = read_matrix(path)
    except BadInput:
        return
    assert array.nbytes == math.prod(array.shape) * array.itemsize <= 1032 * len(mutated)


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros((0, 2), np.uint8), np.ones((), np.uint8)])
def test_what_the_format_cannot_hold_is_not_written(tmp_path, array):
    """An element type or shape that the format does not know is refused and leaves no file."""
    with pytest.raises(BadInput, match="cannot write"):
        write_matrix(tmp_path / "file", array)
    assert not list(tmp_path.iterdir())


def test_pieces_are_written_as_a_whole_or_not_at_all(tmp_path):
    """Pieces give the file that the whole gives; an error between two of them leaves the old file and no other."""
    array = np.arange(60, dtype=np.int32).reshape(5, 3, 4)
    write_matrix(tmp_path / "whole", array)
    write_chunks(tmp_path / "pieces", array.dtype, array.shape, (array[i : i + 2] for i in (0, 2, 4)))
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()

    def interrupted():
        yield array[:2] + 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_chunks(tmp_path / "pieces", array.dtype, array.shape, interrupted())
    np.testing.assert_array_equal(read_matrix(tmp_path / "pieces"), array)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "pieces"}
