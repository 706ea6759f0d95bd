"""From a job to its end: whatever happens becomes a status and a reason."""

import traceback

import numpy as np

from capsbench import plugins
from capsbench.backend import unsupported
from capsbench.errors import BadInput
from capsbench.network.network import Network
from capsbench.network.parameters import draw_parameters
from capsbench.network.shapes import bind
from capsbench.worker import parity, rounding
from capsbench.worker.check import check_case
from capsbench.worker.data import describe_data
from capsbench.worker.gate import judge
from capsbench.worker.histograms import measure_histograms
from capsbench.worker.messages import (
    AccuracyJob,
    CeilingsJob,
    CeilingsPart,
    CheckJob,
    DataJob,
    Done,
    Job,
    ParityJob,
    ParityPart,
    ProbeJob,
    ProbePart,
    SizedNetwork,
    TimeJob,
)
from capsbench.worker.prepare import Prepared, Send, Stopped, prepare
from capsbench.worker.timing import time_round
from capsbench.worker.training import train_case


def run(job: Job, send: Send) -> Done:
    """Do a job, sending its parts; never raises what a job can raise."""
    try:
        _perform(job, send)
    except Stopped as end:
        return Done(status=end.status, reason=one_line(str(end)))
    except MemoryError as error:
        traceback.print_exc()
        return Done(status="oom", reason=one_line(str(error)) or "the framework ran out of memory")
    except BadInput as error:
        return Done(status="bad_input", reason=one_line(str(error)))
    except Exception as error:  # noqa: BLE001 - a case may fail in any way, and the next one must run
        traceback.print_exc()
        return Done(status="crash", reason=one_line(f"{type(error).__name__}: {error}"))
    return Done(status="ok")


def one_line(text: str) -> str:
    """The text on one line that fits a table, in characters that any encoding has room for."""
    line = " ".join(text.split()).encode("utf-8", "replace").decode()
    return line if len(line) <= 500 else f"{line[:499]}…"


def _perform(job: Job, send: Send) -> None:
    match job:
        case ProbeJob():
            found = plugins.load(job.backend).probe()
            send(ProbePart(versions=dict(found.versions), devices=tuple(found.devices)))
        case DataJob():
            describe_data(job, send)
        case ParityJob():
            for sized in job.networks:
                send(_parity(job, sized))
        case CheckJob():
            check_case(prepare(job.case, job.place, send), send)
        case TimeJob():
            time_round(prepare(job.case, job.place, send), send)
        case AccuracyJob():
            _train_and_look(prepare(job.case, job.place, send), send)
        case CeilingsJob():
            send(CeilingsPart(ceilings=plugins.load(job.backend).ceilings(job.setting)))


def _train_and_look(prepared: Prepared, send: Send) -> None:
    """Train, where the case asks for its accuracy, then look at the layers, where it asks for histograms."""
    measure = prepared.case.measure
    trained = "accuracy" in measure
    realization = train_case(prepared, send) if trained else prepared.realize()
    if "histograms" in measure:
        measure_histograms(prepared, realization, send, trained=trained)


def _parity(job: ParityJob, sized: SizedNetwork) -> ParityPart:
    """Parity of one network; what goes wrong with it does not keep the others from being checked."""
    network: Network = sized.network
    try:
        backend = plugins.load(job.backend)
        bound = bind(network, sized.image, sized.classes)
        problem = unsupported(backend, bound, job.setting)
        if problem is not None:
            return ParityPart(network=network.name, parity=None, reason=one_line(problem))
        count = parity.batch_size(bound)
        images = np.random.Generator(np.random.PCG64(job.seed)).random((count, *sized.image), dtype=np.float32)
        labels = np.arange(count, dtype=np.int64) % sized.classes
        parameters = draw_parameters(bound, job.seed)
        found = judge(
            backend,
            bound,
            job.setting,
            parameters=parameters,
            images=images,
            labels=labels,
            drawn=True,
            seed=job.seed,
        )
    except Exception as error:  # noqa: BLE001 - see above
        traceback.print_exc()
        return ParityPart(network=network.name, parity=None, reason=one_line(f"{type(error).__name__}: {error}"))
    if found.rounding is not None:
        return ParityPart(network=network.name, parity=found, reason=rounding.describe(found, found.rounding))
    reason = "" if found.passed else parity.describe_failure(found)
    return ParityPart(network=network.name, parity=found, reason=reason)
