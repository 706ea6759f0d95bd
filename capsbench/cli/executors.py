"""What carries a run out: processes of this machine one after the other, or Dask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from capsbench.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from capsbench.suite.cases import Case


class Executor(StrEnum):
    """Words for `--executor`."""

    PROCESSES = "processes"
    DASK = "dask"


ExecutorOption = Annotated[Executor, typer.Option(help="Run cases one after the other here, or many at once on Dask.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Of Dask: local (here, the default), local:N workers, tcp://HOST:PORT, MODULE:FACTORY.",
        show_default=False,
    ),
]


def check_executor(executor: Executor, cluster: str | None) -> str | None:
    """Which Dask cluster is meant; None where no Dask is.

    Raises:
        BadInput: it cannot be.
    """
    if executor is not Executor.DASK:
        if cluster is not None:
            raise BadInput("only --executor dask runs cases on a cluster", "--cluster")
        return None
    from capsbench.runner.dask.clusters import LOCAL, check_cluster

    return check_cluster(LOCAL if cluster is None else cluster)


def is_elsewhere(cluster: str | None) -> bool:
    """Whether cases may run on other machines, whose data and devices are not this one's."""
    return cluster is not None and cluster.partition(":")[0] != "local"


@contextmanager
def executing(cluster: str | None, cases: Sequence[Case]) -> Iterator[Callable[..., None]]:
    """What runs cases, with the arguments of `schedule.run_cases`, while the block runs.

    Raises:
        BadInput: the cluster cannot be reached.
        Unavailable: Dask is installed but cannot be imported.
    """
    if cluster is None:
        from capsbench.runner import schedule

        yield schedule.run_cases
        return
    from capsbench.runner.dask.clusters import open_cluster
    from capsbench.runner.dask.dispatch import run_on_dask

    with open_cluster(cluster, cases) as found:
        yield partial(run_on_dask, cluster=found)
