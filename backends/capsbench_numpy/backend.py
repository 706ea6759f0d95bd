"""The backend `numpy`: the oracle that every other backend is checked against."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capsbench.backend import Probe, Setting
from capsbench.measure.ceilings import Ceilings
from capsbench.network.shapes import BoundNetwork
from capsbench_numpy.ceilings import measure_ceilings
from capsbench_numpy.training import OracleRealization


class NumpyBackend:
    """Float64, plain, slow: the definition of correct."""

    name = "numpy"
    distributions = ("numpy",)
    modes: Mapping[str, str] = MappingProxyType(
        {"float64": "the oracle: forward, loss and exact directional derivatives"}
    )
    compiled_modes: frozenset[str] = frozenset()

    def environment(self, setting: Setting) -> dict[str, str]:  # noqa: ARG002 - the contract passes it
        """Nothing to set."""
        return {}

    def probe(self) -> Probe:
        """NumPy's version; it runs on the CPU only."""
        return Probe({"numpy": np.__version__}, ("cpu",))

    def unsupported(self, bound: BoundNetwork, setting: Setting) -> str | None:  # noqa: ARG002 - as above
        """Every network can be evaluated, none trained, so no case can be run."""
        return "numpy is the oracle that others are checked against; it takes no train steps"

    def ceilings(self, setting: Setting) -> Ceilings:
        """What NumPy reaches on this processor."""
        return measure_ceilings(setting)

    def forecast_peak(self, bound: BoundNetwork, setting: Setting, batch: int) -> None:
        """Return None: without a train step there is no peak."""

    def realize(
        self, bound: BoundNetwork, parameters: Mapping[str, NDArray[Any]], setting: Setting
    ) -> OracleRealization:
        """The network in float64, whatever the setting's precision."""
        del setting
        return OracleRealization(bound, parameters)


BACKEND = NumpyBackend()
