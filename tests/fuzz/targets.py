"""Everything that reads what a stranger may have written: the reader, sound inputs to start from, and what it may say.

A reader answers any bytes with a value or with one sentence. Whatever else it raises is a defect, and so is an answer
that takes longer than a second, or more memory than four times the input and 100 MB.
"""

import contextlib
import gzip
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capsbench import plugins
from capsbench.dataset.idx import read_idx
from capsbench.dataset.norb import read_matrix
from capsbench.errors import BadInput
from capsbench.network import zoo
from capsbench.network.shapes import bind
from capsbench.network.text import dump, plain
from capsbench.record.claims import packaged_path, read_ledger
from capsbench.record.codec import decode, encode
from capsbench.store.legacy import import_lines
from capsbench.store.run import RunStore
from capsbench.suite.cases import expand
from capsbench.suite.schema import load_suite
from capsbench.worker.checkpoint import UnfitCheckpoint, read_checkpoint
from capsbench.worker.messages import decode_message

ROOT = Path(__file__).parents[2]
MODES = {"numpy": ("float64",), "torch": ("eager", "compile", "tiled", "fused"), "tensorflow": ("graph", "fused")}
MAX_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Target:
    """A reader under attack.

    Attributes:
        name: how it is called in the campaign.
        read: takes (bytes, a folder of its own) and does all that the reader's callers do at once.
        seeds: sound inputs, from which others are made.
        words: tokens of the format, to be put in anywhere.
    """

    name: str
    read: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    words: tuple[bytes, ...] = ()


def targets():
    """All of them, by name."""
    yaml_words = (
        b": ",
        b"- ",
        b"{",
        b"[",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system ",
        b"1e999",
        b".nan",
        b"~",
    )
    json_words = (b"NaN", b"1e999", b"null", b'"\\ud800"', b"[" * 50, b'{"":', b"-0", b"9" * 400)
    return {
        target.name: target
        for target in (
            Target(
                "suite", _suite, lambda: _texts("suites/*.yaml"), (*yaml_words, b"batch: ", b"networks: ", b"set: ")
            ),
            Target("network", _network, lambda: _texts("capsbench/network/zoo/*.yaml"), (*yaml_words, b"kind: ")),
            Target("claims", _claims, lambda: [packaged_path().read_bytes()[:4096]], yaml_words),
            Target("idx", _idx, _idx_seeds, (struct.pack(">I", 0xFFFFFFFF), b"\x1f\x8b\x08", b"\0\0\x08\x03")),
            Target(
                "matrix", _matrix, _matrix_seeds, (struct.pack("<i", 2**31 - 1), b"\x1f\x8b\x08", b"\x55\x4c\x3d\x1e")
            ),
            Target("record", _record, _record_seeds, json_words),
            Target(
                "header", _header, lambda: [b'{"run": "a", "environment": {"machine": {}}, "ceilings": []}'], json_words
            ),
            Target("database", _database, _database_seeds),
            Target("message", _message, _message_seeds, json_words),
            Target("checkpoint", _checkpoint, _checkpoint_seeds, (*json_words, struct.pack("<Q", 2**63))),
            Target("plugin", _plugin, _plugin_seeds, (b"[capsbench.backends]\n", b"=", b":", b".", b"\0", b"..")),
        )
    }


def _file(data, folder, name):
    path = folder / name
    path.write_bytes(data)
    return path


def _suite(data, folder):
    path = _file(data, folder, "suite.yaml")
    with contextlib.suppress(BadInput):
        suite = load_suite(path)
        dump(suite)
        expand(suite, path, MODES)


def _network(data, folder):
    with contextlib.suppress(BadInput):
        network = zoo.load(str(_file(data, folder, "network.yaml")))
        dump(network)
        bind(network, (28, 28, 1), 10)


def _claims(data, folder):
    with contextlib.suppress(BadInput):
        read_ledger(_file(data, folder, "claims.yaml"))


def _idx(data, folder):
    with contextlib.suppress(BadInput):
        read_idx(_file(data, folder, "images-idx3-ubyte"))


def _matrix(data, folder):
    with contextlib.suppress(BadInput):
        read_matrix(_file(data, folder, "images-dat.mat")).sum(dtype="f8")


def _record(data, folder):
    """Lines of an older run, by all readers."""
    folder = folder / "run"
    folder.mkdir(exist_ok=True)
    _file(data, folder, "records.jsonl")
    store = RunStore(folder)
    with contextlib.suppress(BadInput):
        list(store.records())
        list(map(plain, store.stored_records()))
        store.finished()
        list(store.glimpses("error_rate"))
        store.metric_names()


def _database(data, folder):
    """A run.sqlite that a stranger made."""
    folder = folder / "run"
    folder.mkdir(exist_ok=True)
    _file(data, folder, "run.sqlite")
    store = RunStore(folder)
    with contextlib.suppress(BadInput):
        list(store.records())
    with contextlib.suppress(BadInput):
        store.finished()


def _header(data, folder):
    folder = folder / "run"
    folder.mkdir(exist_ok=True)
    _file(data, folder, "run.json")
    with contextlib.suppress(BadInput):
        RunStore(folder).header()


def _message(data, _folder):
    for line in data.splitlines():
        decode_message(line)


def _checkpoint(data, folder):
    with contextlib.suppress(UnfitCheckpoint):
        read_checkpoint(_file(data, folder, "checkpoint.safetensors"), _IDENTITY, "adam", {}, {})


def _plugin(data, folder):
    """Entry points of a distribution that stands on the path: found or refused, the sound backends always there."""
    home = folder / "hostile-1.0.dist-info"
    home.mkdir(exist_ok=True)
    _file(b"Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n", home, "METADATA")
    _file(data, home, "entry_points.txt")
    sys.path.insert(0, str(folder))
    try:
        found = plugins.discover()
        for name in list(found)[:20]:
            with contextlib.suppress(BadInput):
                plugins.load(name)
    finally:
        sys.path.remove(str(folder))


_IDENTITY = {"format": "1", "case": "a", "fingerprint": "b", "data": "c", "versions": "{}"}


def _texts(pattern):
    return [path.read_bytes() for path in sorted(ROOT.glob(pattern))]


def _idx_seeds():
    labels = struct.pack(">HBBI", 0, 8, 1, 5) + bytes(range(5))
    images = struct.pack(">HBBIII", 0, 0x0D, 3, 2, 3, 4) + bytes(96)
    return [labels, images, gzip.compress(labels), gzip.compress(images, mtime=0)]


def _matrix_seeds():
    labels = struct.pack("<Iiiii", 0x1E3D4C54, 1, 5, 1, 1) + bytes(20)
    pairs = struct.pack("<Iiiiii", 0x1E3D4C55, 4, 2, 2, 3, 3) + bytes(36)
    return [labels, pairs, gzip.compress(labels, mtime=0), gzip.compress(pairs, mtime=0)]


def _record_seeds():
    old = [path.read_bytes() for path in sorted((ROOT / "tests" / "store").glob("records-schema-*.jsonl"))]
    lines = [line + b"\n" for text in old for line in text.splitlines()]
    now = [encode(record) for line in lines if (record := decode(line, "seed")) is not None]
    return [*lines, *now, b"".join(now[:3])]


def _database_seeds():
    with tempfile.TemporaryDirectory() as folder:
        lines, database = ROOT / "tests" / "store" / "records-schema-3.jsonl", Path(folder) / "run.sqlite"
        import_lines(lines, database)
        return [database.read_bytes()]


def _message_seeds():
    progress = b'{"kind":"progress","stage":"time","done":1,"total":2,"detail":"a"}\n'
    return [progress, b'{"kind":"done","status":"ok","reason":""}\n', b'{"kind":"notes","notes":["a"]}\n' + progress]


def _checkpoint_seeds():
    metadata = {**_IDENTITY, "epoch": "1", "step": "1", "resumed": "[]", "history": "[]", "sha256": "0"}
    header = {"__metadata__": metadata, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    text = json.dumps(plain(header)).encode()
    return [struct.pack("<Q", len(text)) + text + bytes(8)]


def _plugin_seeds():
    return [
        b"[capsbench.backends]\nfake = capsbench_fake:BACKEND\n",
        b"[capsbench.backends]\nnumpy = nowhere.at_all:X [a]\n",
    ]
