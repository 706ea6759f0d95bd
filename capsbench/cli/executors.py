"""The options `--executor` and `--cluster`: run cases one at a time on this machine, or in parallel on Dask."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from capsbench.errors import BadInput
from capsbench.runner import schedule
from capsbench.suite.cases import Case


class Executor(StrEnum):
    """Values of `--executor`."""

    PROCESSES = "processes"
    DASK = "dask"


ExecutorOption = Annotated[
    Executor, typer.Option(help="Run cases one at a time in local processes, or in parallel on Dask.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Dask cluster: local (the default), local:N workers, tcp://HOST:PORT, tls://HOST:PORT, MODULE:FACTORY.",
        show_default=False,
    ),
]


def check_executor(executor: Executor, cluster: str | None) -> str | None:
    """Return the Dask cluster to use; None where cases do not run on Dask.

    Raises:
        BadInput: the options contradict each other, `cluster` has no legal form, or Dask is not installed.
    """
    if executor is not Executor.DASK:
        if cluster is not None:
            raise BadInput("only --executor dask runs cases on a cluster", "--cluster")
        return None
    from capsbench.runner.dask.clusters import LOCAL, check_cluster

    return check_cluster(LOCAL if cluster is None else cluster)


def is_elsewhere(cluster: str | None) -> bool:
    """Return whether cases may run on other machines, with data sets and devices of their own."""
    return cluster is not None and cluster.partition(":")[0] != "local"


@contextmanager
def executing(cluster: str | None, cases: Sequence[Case]) -> Iterator[Callable[..., None]]:
    """Provide the function that runs cases, with the arguments of `schedule.run_cases`, for the duration of the block.

    Raises:
        BadInput: the cluster cannot be reached.
        Unavailable: Dask is installed but cannot be imported.
    """
    if cluster is None:
        yield schedule.run_cases
        return
    from capsbench.runner.dask.clusters import open_cluster
    from capsbench.runner.dask.dispatch import run_on_dask

    with open_cluster(cluster, cases) as found:
        yield partial(run_on_dask, cluster=found)
