"""A rank above 0: does what rank 0 tells it through a pipe, and ends when the pipe does."""

import os
import queue
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, Final

import torch
from torch import distributed

from capsbench_torch.profiling import memory_errors
from capsbench_torch.shard import Shard
from capsbench_torch.training import Placed

Command = tuple[Any, ...]
"""What is to be done, and its arguments; see `_Replica`."""
READY: Final = "ready"
VALUE: Final = "value"


def serve(connection: Connection, environment: Mapping[str, str], device: str, seconds: float) -> None:
    """Be a rank until the pipe ends.

    Args:
        connection: commands in; `READY` and `VALUE` out, and before it ends by itself `memory` or `failed` with why.
        environment: as `torchrun` makes it.
        device: of this rank.
        seconds: for any collective.
    """
    os.environ.update(environment)
    connection.send((READY, None))
    commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, commands), daemon=True).start()
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        join(_store(), rank, count, device, seconds)
        replica = _Replica(connection)
        while True:
            name, *arguments = commands.get()
            with memory_errors():
                getattr(replica, name)(*arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, rank 0 must hear of it
        traceback.print_exc()
        kind = "memory" if isinstance(error, MemoryError) else "failed"
        connection.send((kind, f"{type(error).__name__}: {error}"))
    os._exit(1)


def join(store: distributed.Store, rank: int, count: int, device: str, seconds: float) -> None:
    """Enter the process group: NCCL between GPUs, gloo on the CPU."""
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))
    distributed.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        store=store,
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=seconds),
    )


def _store() -> distributed.Store:
    return distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _receive(connection: Connection, commands: "queue.SimpleQueue[Command]") -> None:
    """Take commands as they come, so that rank 0 never waits; at the end of the pipe, end."""
    try:
        while True:
            commands.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


@dataclass(slots=True)
class _Replica:
    """What this rank holds: networks, and batches on the device with their weights; and the commands, by their names.

    Each is known by the number that rank 0 has given it.
    """

    connection: Connection
    networks: dict[int, Shard] = field(default_factory=dict)
    batches: dict[int, tuple[Placed, float, int]] = field(default_factory=dict)

    def realize(self, network: int, *arguments: Any) -> None:  # noqa: ANN401 - those of `Shard`
        self.networks[network] = Shard(*arguments)

    def place(self, network: int, batch: int, arrays: Any, weight: float, counted: int) -> None:  # noqa: ANN401
        self.batches[batch] = self.networks[network].place(*arrays), weight, counted

    def drop(self, kind: str, number: int) -> None:
        getattr(self, kind).pop(number, None)

    def step(self, network: int, batch: int, step: Any) -> None:  # noqa: ANN401 - of the contract
        self._weighted(network, batch).step(self.batches[batch][0], step)

    def gradients(self, network: int, batch: int, step: Any) -> None:  # noqa: ANN401 - see above
        self._weighted(network, batch).gradients(self.batches[batch][0], step)

    def forward(self, network: int, batch: int) -> None:
        placed, _, counted = self.batches[batch]
        self.connection.send((VALUE, self.networks[network].forward(placed) if counted else None))

    def restore(self, network: int, *arguments: Any) -> None:  # noqa: ANN401 - of the contract
        self.networks[network].restore(*arguments)

    def _weighted(self, network: int, batch: int) -> Shard:
        shard = self.networks[network]
        shard.weight = self.batches[batch][1]
        return shard
