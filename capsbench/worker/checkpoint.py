"""The whole state of a training in one file, so that a case that was killed goes on where it was.

A safetensors file: every parameter and moving statistic under its name, the optimizer's tensors under `optimizer/`
and the optimizer's name, and in the metadata what the state belongs to, how far it is, and the history until then.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import TypeAdapter

from capsbench.backend import Floats
from capsbench.dataset.atomic import whole_file
from capsbench.dataset.loading import Split, split_sha256
from capsbench.network.hashing import content_hash
from capsbench.network.text import plain
from capsbench.worker.epochs import Epoch
from capsbench.worker.prepare import Prepared

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "1"

Identity = Mapping[str, str]


class UnfitCheckpoint(Exception):  # noqa: N818 - not an error but a reason to begin at the first epoch
    """A file that nothing can go on from; the text says why, after "checkpoint.safetensors"."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a training stood after an epoch.

    Attributes:
        parameters: as `Realization.parameters` gave them.
        optimizer_state: as `Realization.optimizer_state` gave it.
        history: of the epochs so far.
        resumed: epochs after which the training had been resumed, from other checkpoints.
    """

    parameters: Mapping[str, Floats]
    optimizer_state: Mapping[str, Floats]
    history: tuple[Epoch, ...]
    resumed: tuple[int, ...] = ()


def identity(prepared: Prepared, train: Split, test: Split) -> Identity:
    """Everything that decides what a training computes: only a checkpoint of the same may be gone on from."""
    case = prepared.case
    setting = plain(case.setting, defaults=True)
    if case.devices == 1:
        del setting["devices"]  # of which older checkpoints do not know
    decides = (case.network, case.dataset, case.train, setting, case.batch, case.seed, case.backend)
    return {
        "format": _FORMAT,
        "case": case.id,
        "fingerprint": content_hash([plain(each, defaults=True) for each in decides]),
        "data": content_hash([split_sha256(train), split_sha256(test)]),
        "versions": json.dumps(dict(prepared.versions), sort_keys=True),
    }


def write_checkpoint(path: Path, of: Identity, optimizer: str, checkpoint: Checkpoint) -> None:
    """Put a checkpoint in the place of the one before it.

    Args:
        path: of the file.
        of: what the state belongs to.
        optimizer: its name.
        checkpoint: the state.

    Raises:
        OSError: it could not be written; the one before is still there.
    """
    state = {_state_name(optimizer, name): array for name, array in checkpoint.optimizer_state.items()}
    arrays = {name: np.asarray(array, order="C") for name, array in {**checkpoint.parameters, **state}.items()}
    metadata = {
        **of,
        "epoch": str(len(checkpoint.history)),
        "step": str(sum(len(epoch.losses) for epoch in checkpoint.history)),
        "resumed": json.dumps(checkpoint.resumed),
        "history": json.dumps(plain(checkpoint.history, defaults=True)),
    }
    with whole_file(path) as file:
        file.write(safetensors.numpy.save(arrays, {**metadata, "sha256": _digest(metadata, arrays)}))


def read_checkpoint(
    path: Path, of: Identity, optimizer: str, parameters: Mapping[str, Floats], optimizer_state: Mapping[str, Floats]
) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is no file.

    Args:
        path: of the file.
        of: what the state must belong to.
        optimizer: its name.
        parameters: of a fresh realization: names, shapes and dtypes that the file must have.
        optimizer_state: likewise.

    Raises:
        UnfitCheckpoint: it is torn, or belongs to something else.
    """
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UnfitCheckpoint(f"cannot be read: {error}") from None
    _check_identity(metadata, of)
    if metadata.pop("sha256", None) != _digest(metadata, arrays):
        raise UnfitCheckpoint("is damaged: it is not what was written")
    state = {name: _state_name(optimizer, name) for name in optimizer_state}
    expected = {**parameters, **{state[name]: array for name, array in optimizer_state.items()}}
    if _looks(arrays) != _looks(expected):
        raise UnfitCheckpoint("holds other tensors than the network and its optimizer have")
    return Checkpoint(
        {name: arrays[name] for name in parameters},
        {name: arrays[stored] for name, stored in state.items()},
        _epochs().validate_json(metadata["history"]),
        tuple(json.loads(metadata["resumed"])),
    )


def _check_identity(metadata: Mapping[str, str], of: Identity) -> None:
    if "format" not in metadata:
        raise UnfitCheckpoint("is no checkpoint of a training")
    told = {
        "format": "is of a format that this capsbench does not know",
        "case": "is that of another case",
        "fingerprint": "is that of a case with other settings",
        "data": "is of a training on other images",
        "versions": f"is of {metadata.get('versions')}, here is {of['versions']}",
    }
    for key, reason in told.items():
        if metadata.get(key) != of[key]:
            raise UnfitCheckpoint(reason)


def _state_name(optimizer: str, name: str) -> str:
    return f"optimizer/{optimizer}/{name}"


def _looks(arrays: Mapping[str, Floats]) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in arrays.items()}


def _digest(metadata: Mapping[str, str], arrays: Mapping[str, Floats]) -> str:
    digest = sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


@cache
def _epochs() -> TypeAdapter[tuple[Epoch, ...]]:
    return TypeAdapter(tuple[Epoch, ...])


def describe_resumed(resumed: Sequence[int]) -> str:
    """The note of a training that was resumed after these epochs, the last one now."""
    epochs = ", ".join(map(str, resumed))
    processes = len(resumed) + 1
    return (
        f"training resumed after epoch {epochs}: its times are of {processes} processes, each with a first step of its "
        "own, without what was lost in between"
    )
