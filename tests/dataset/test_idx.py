import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from capsbench.dataset.idx import read_idx, write_idx
from capsbench.errors import BadInput

ELEMENTS = st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"])
SMALL = arrays.array_shapes(max_dims=4, max_side=4)


def idx_bytes(shape, payload, code=0x08, rank=None, magic=b"\0\0"):
    header = magic + bytes([code, len(shape) if rank is None else rank])
    return header + struct.pack(f">{len(shape)}I", *shape) + payload


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@given(array=arrays.arrays(ELEMENTS, SMALL), name=st.sampled_from(["a.idx", "a.idx.gz"]))
def test_round_trip(tmp_path, array, name):
    """What is written is read back with the same bytes, shape and element type, compressed or not."""
    path = tmp_path / name
    write_idx(path, array)
    back = read_idx(path)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_the_content_decides_about_compression(tmp_path):
    """A gzip file without .gz and a plain file with it are both read."""
    plain = idx_bytes((2, 2), b"\1\2\3\4")
    (tmp_path / "plain.gz").write_bytes(plain)
    (tmp_path / "packed").write_bytes(gzip.compress(plain))
    assert read_idx(tmp_path / "plain.gz").tolist() == [[1, 2], [3, 4]]
    assert read_idx(tmp_path / "packed").tolist() == [[1, 2], [3, 4]]


def test_big_endian_elements(tmp_path):
    """Elements wider than a byte are big-endian in the file and native in memory."""
    (tmp_path / "a").write_bytes(idx_bytes((2,), struct.pack(">2i", 1, -2), code=0x0C))
    array = read_idx(tmp_path / "a")
    assert array.dtype == np.dtype("int32")
    assert array.tolist() == [1, -2]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\0\0\x08", "no IDX file"),
        (b"PK\3\4 and more", "no IDX file"),
        (idx_bytes((2,), b"\1\2", magic=b"\0\1"), "no IDX file"),
        (idx_bytes((2,), b"\1\2", code=0x0A), "unknown IDX element type 0a"),
        (idx_bytes((), b"", rank=0), "0 dimensions"),
        (idx_bytes((1,) * 40, b"\1"), "40 dimensions"),
        (idx_bytes((2,), b"", rank=3), "inside its header"),
        (idx_bytes((0, 28, 28), b""), "at least 1"),
        (idx_bytes((4,), b"\1\2\3"), "holds only 3"),
        (idx_bytes((2,), b"\1\2\3"), "holds more"),
        (idx_bytes((2**32 - 1,) * 3, b"\1"), "more than its size can hold"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_broken_files_are_refused(tmp_path, content, says, pack):
    """Every kind of broken file is refused with a sentence that names the file and the fault."""
    message = refused(tmp_path / "file", pack(content))
    assert says in message or "more than its size" in message


def test_missing_file_and_folder(tmp_path):
    """A path that is missing or a folder is refused by name."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="no file"):
            read_idx(path)


def test_truncated_gzip(tmp_path):
    """A gzip file cut anywhere is refused."""
    whole = gzip.compress(idx_bytes((64,), bytes(range(64))))
    for end in range(1, len(whole)):
        refused(tmp_path / "cut", whole[:end])


def test_corrupt_gzip(tmp_path):
    """A gzip file whose content does not match its checksum is refused."""
    whole = bytearray(gzip.compress(idx_bytes((64,), bytes(range(64))), compresslevel=0))
    whole[-20] ^= 0xFF
    assert "corrupt" in refused(tmp_path / "bad", bytes(whole))


def test_gzip_bomb_is_not_unpacked(tmp_path):
    """A small file that unpacks to far more than its header promises costs no memory."""
    bomb = gzip.compress(idx_bytes((10,), bytes(64 << 20)))
    tracemalloc.start()
    try:
        refused(tmp_path / "bomb", bomb)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20


def test_lying_header_allocates_nothing(tmp_path):
    """A header that promises gigabytes is refused without asking for them, even where gzip could hold them."""
    liars = idx_bytes((1 << 33 - 4, 16), b"\1"), gzip.compress(idx_bytes((50_000,), b"\1") + bytes(20))
    tracemalloc.start()
    try:
        for liar in liars:
            refused(tmp_path / "liar", liar)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 << 20


@given(
    flips=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=6),
    end=st.integers(0, 60),
    packed=st.booleans(),
)
@example(flips=[(0, 0x1F), (1, 0x8B)], end=60, packed=False)
def test_mutated_files_never_crash(tmp_path, flips, end, packed):
    """A file with any bytes changed and any tail cut off is read or refused as bad input, nothing else."""
    content = idx_bytes((2, 3, 4), bytes(range(24)))
    mutated = bytearray(gzip.compress(content, mtime=0) if packed else content)
    for position, value in flips:
        mutated[position % len(mutated)] = value
    path = tmp_path / "mutated"
    path.write_bytes(mutated[:end])
    try:
        array = read_idx(path)
    except BadInput:
        return
    assert array.nbytes <= 1032 * len(mutated)


@pytest.mark.parametrize("array", [np.zeros(3, np.int64), np.zeros((0, 2), np.uint8), np.uint8(1) * np.ones(())])
def test_what_idx_cannot_hold_is_not_written(tmp_path, array):
    """An element type or shape that IDX does not know is refused and leaves no file."""
    with pytest.raises(BadInput, match="cannot write"):
        write_idx(tmp_path / "file", array)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    """If writing fails on the way, the old file stays and no temporary file is left."""
    path = tmp_path / "file"
    write_idx(path, np.arange(3, dtype=np.uint8))

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("capsbench.dataset.atomic.os.fsync", full_disk)
    with pytest.raises(BadInput, match="No space left"):
        write_idx(path, np.arange(9, dtype=np.uint8))
    assert read_idx(path).tolist() == [0, 1, 2]
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
