"""A backend for tests: softmax regression in NumPy, done right, with modes that fail in every way a framework can.

Put this folder on PYTHONPATH and the backend `fake` is registered, here and in worker processes.
"""

# ruff: noqa: D102, ARG002, T201 - the contract documents the methods and their arguments; printing is the point
import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from capsbench.backend import LayerState, MemoryUse, Output, PeakForecast, Probe
from capsbench.measure.ceilings import Ceilings
from capsbench.measure.steptrace import HeapEvent, Span, StepTrace
from capsbench.network.layers import Dense
from capsbench.network.objective import CrossEntropy
from capsbench.network.shards import shards

LATE_STEP = 3  # which no check takes


class FakeBackend:
    """Softmax regression; `FAKE_DEVICES` (a comma between names) says which devices it has."""

    name = "fake"
    distributions = ("numpy",)
    modes = {  # noqa: RUF012 - a plain class is what strangers write
        "fast": "as quick as NumPy is",
        "slow": "5 ms a forward pass and a train step",
        "steady": "20 ms a forward pass and a train step",
        "nan": "the loss is NaN from train step 3",
        "gated": "from train step 3 on, each waits until there is a file $FAKE_GATE",
        "oom": "MemoryError in a train step",
        "hog": "holds 400 MB in a train step, and stays",
        "crash": "abort() in a train step",
        "killed": "SIGKILL in a train step",
        "exit": "sys.exit(3) in a train step",
        "raise": "RuntimeError in a train step",
        "telling": "RuntimeError in a train step, with everything that it knows of its process",
        "hang": "a train step never ends, nor does the process that it starts (its id goes to $FAKE_PID_FILE)",
        "native-hang": "a train step never returns from native code, and holds the interpreter",
        "garbage": "bytes that are no message on the message pipe, in a train step",
        "endless": "a message that never ends, in a train step",
        "wrong": "scores that are off by a thousandth",
        "wrong-gradient": "a bias gradient that is off by a hundredth",
        "unsupported": "cannot realize anything",
        "narrow-nan": "scores are NaN in mixed precision",
        "noisy": "prints on stdout, from Python and from native code",
        "compiled": "says that it compiles",
        "unweighted": "takes the plain mean over several devices, whatever share of the batch each has",
        "half-dead": "on several devices, SIGKILL in a train step",
    }
    compiled_modes = frozenset({"compiled"})
    precisions = ("float32", "float64", "mixed_bfloat16")
    parallel_modes = frozenset({"fast", "steady", "unweighted", "half-dead"})

    def environment(self, setting):
        return {"FAKE_MODE": setting.mode, "FAKE_THREADS": str(setting.threads)}

    def probe(self):
        if os.environ.get("FAKE_MODE") == "noisy":
            print("fake: imported")
        if os.environ.get("FAKE_BROKEN"):
            raise ImportError("libfake.so: cannot open shared object file")
        return Probe({"fake": "1.0"}, tuple(os.environ.get("FAKE_DEVICES", "cpu").split(",")))

    def unsupported(self, bound, setting):
        if setting.mode == "unsupported":
            return "this mode cannot realize anything"
        layers = bound.network.layers
        if (
            len(layers) != 1
            or not isinstance(layers[0], Dense)
            or not isinstance(bound.network.objective.loss, CrossEntropy)
        ):
            return "only softmax regression is realized"
        return None

    def ceilings(self, setting):
        return Ceilings(2e11, 1e10)

    def forecast_peak(self, bound, setting, batch):
        peak = _bytes_of_step(bound, setting, batch)
        return PeakForecast(peak, peak + (peak // 2 if setting.mode == "slow" else 0))

    def realize(self, bound, parameters, setting):
        return FakeRealization(bound, parameters, setting)


class FakeRealization:
    """Softmax regression."""

    def __init__(self, bound, parameters, setting):
        self._bound, self._setting = bound, setting
        self._name = bound.network.layers[0].name
        self._parameters = {name: value.astype(setting.kept) for name, value in parameters.items()}
        self._steps = 0

    def place(self, images, labels, masks):
        return images.reshape(len(images), -1).astype(self._setting.kept), labels

    def forward(self, placed):
        self._sleep()
        scores = self._scores(placed[0])
        if self._setting.mode == "wrong":
            scores = scores * 1.001
        return Output(scores, _softmax(scores), None)

    def loss_and_gradients(self, placed, step):
        if self._setting.devices == 1:
            return self._loss_and_gradients(*placed)
        cuts = shards(len(placed[1]), self._setting.devices)
        parts = [self._loss_and_gradients(*(each[cut.images] for each in placed)) for cut in cuts]
        plain = self._setting.mode == "unweighted"
        weights = [1.0 / len(cuts) if plain else cut.weight for cut in cuts]
        return _mean([loss for loss, _ in parts], weights), {
            name: _mean([gradients[name] for _, gradients in parts], weights) for name in parts[0][1]
        }

    def _loss_and_gradients(self, flat, labels):
        activations = _softmax(self._scores(flat))
        truth = np.eye(self._bound.classes, dtype=flat.dtype)[labels]
        loss = float(-np.log((activations * truth).sum(1)).mean())
        wrong = (activations - truth) / len(flat)
        biases = wrong.sum(0) * (1.01 if self._setting.mode == "wrong-gradient" else 1.0)
        return loss, {f"{self._name}.weights": flat.T @ wrong, f"{self._name}.biases": biases}

    def train_step(self, placed, step):
        self._sleep()
        _misbehave("killed" if self._setting.mode == "half-dead" and self._setting.devices > 1 else self._setting.mode)
        loss, gradients = self.loss_and_gradients(placed, step)
        for name, gradient in gradients.items():
            self._parameters[name] = self._parameters[name] - self._setting_type(step.learning_rate) * gradient
        self._steps += 1
        is_late = step.number >= LATE_STEP
        while self._setting.mode == "gated" and is_late and not Path(os.environ["FAKE_GATE"]).exists():
            time.sleep(0.01)
        return float("nan") if self._setting.mode == "nan" and is_late else loss

    def synchronize(self):
        pass

    def parameters(self):
        return dict(self._parameters)

    def memory(self, placed, step):
        self.train_step(placed, step)
        peak = _bytes_of_step(self._bound, self._setting, len(placed[0]))
        return MemoryUse(peak, peak + 32)

    def profile(self, placed, step):
        if step is None:
            self.forward(placed)
        else:
            self.train_step(placed, step)
        scores = len(placed[0]) * self._bound.classes * 4
        forward = [
            self._span(0, "MatMul", "fake.matmul", "forward", 1e-3),
            self._span(1, "Softmax", "fake.softmax", "forward", 1e-4),
        ]
        heap = [HeapEvent(0.0, 1, scores, 0), HeapEvent(1e-3, 2, scores, 1), HeapEvent(1.1e-3, 3, 32)]
        if step is None:
            return StepTrace(tuple(forward), tuple(heap), 1.5e-3, {"parameters": 64})
        backward = [
            self._span(2, "MatMul", "fake.matmul", "backward", 1e-3),
            self._span(3, "Sub", "fake.update", "optimizer", 1e-4),
        ]
        size = self._bound.image.values * len(placed[0])
        heap += [HeapEvent(2e-3, 1, None), HeapEvent(2e-3, 4, size, 2), HeapEvent(3e-3, 5, 64, 3)]
        return StepTrace((*forward, *backward), tuple(heap), 3e-3, {"parameters": 64})

    def inspect(self, placed, *, votes=False):
        return {self._name: LayerState(self._scores(placed[0]))}

    def _span(self, number, op, native, phase, seconds):
        layer = None if phase == "optimizer" else self._name
        start = number * 1e-3
        return Span(
            op=op,
            native=native,
            layer=layer,
            phase=phase,
            routing_iteration=None,
            start_seconds=start,
            seconds=seconds,
            self_seconds=seconds,
        )

    def _scores(self, flat):
        weights, biases = self._parameters[f"{self._name}.weights"], self._parameters[f"{self._name}.biases"]
        if not self._setting.mixed:
            return flat @ weights + biases
        scores = _rounded(_rounded(flat) @ _rounded(weights)) + biases
        return scores * np.float32(np.nan) if self._setting.mode == "narrow-nan" else scores

    def _sleep(self):
        began = time.monotonic()
        time.sleep({"slow": 0.005, "steady": 0.02}.get(self._setting.mode, 0.0) / self._setting.devices)
        if "FAKE_LOG" in os.environ:
            with Path(os.environ["FAKE_LOG"]).open("a", encoding="ascii") as log:
                log.write(f"{os.getpid()} {began} {time.monotonic()}\n")

    @property
    def _setting_type(self):
        return np.dtype(self._setting.kept).type


def _mean(values, weights):
    return sum(weight * value for value, weight in zip(values, weights, strict=True))


def _rounded(values):
    """Float32 to the next bfloat16 towards zero, kept in float32."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _softmax(scores):
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def _bytes_of_step(bound, setting, batch):
    item = np.dtype(setting.kept).itemsize
    return item * (2 * bound.image.values * bound.classes + batch * bound.image.values)


def _misbehave(mode):
    if mode in _MISBEHAVIOUR:
        _MISBEHAVIOUR[mode]()


def _out_of_memory():
    raise MemoryError("fake: cannot allocate 12 GiB")


def _tell():
    print(dict(os.environ), flush=True)
    host, user, token = map(os.environ.get, ("HOSTNAME", "USER", "HF_TOKEN"))
    raise RuntimeError(f"no kernel in {Path.home() / 'kernels'} on {host} for {user}, {token}")


def _raise():
    raise RuntimeError("fake: no such\nkernel")


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _hog():
    hoard = np.ones(50_000_000)
    time.sleep(3600.0)
    del hoard


def _hang():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    _tell_pids(os.getpid(), child.pid)
    time.sleep(3600.0)


def _hang_in_native_code():
    _tell_pids(os.getpid())
    ctypes.PyDLL(None).sleep(3600)


def _print_noise():
    print("fake: a step", flush=True)
    os.write(1, b'{"kind":"done","status":"ok"}\n')


def _send_garbage():
    almost = b'{"kind":"metrics","metrics":7}\n[]\n{"kind":"done"\n\n\xff\x00'
    os.write(_message_pipe(), almost + bytes(range(256)) + b"\n")


def _send_without_end():
    while True:
        os.write(_message_pipe(), b"x" * 65536)


def _tell_pids(*pids):
    if "FAKE_PID_FILE" in os.environ:
        path = Path(os.environ["FAKE_PID_FILE"])
        path.with_suffix(".part").write_text(" ".join(map(str, pids)), encoding="ascii")
        path.with_suffix(".part").rename(path)  # whoever sees it sees all of it


def _message_pipe():
    """The descriptor on which the worker sends: the only pipe above the standard ones that can be written."""
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            writable = fcntl.fcntl(int(path.name), fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
            if int(path.name) > 2 and writable and str(path.readlink()).startswith("pipe:"):
                return int(path.name)
    raise LookupError("no message pipe")


_MISBEHAVIOUR = {
    "oom": _out_of_memory,
    "raise": _raise,
    "telling": _tell,
    "crash": os.abort,
    "killed": _kill,
    "exit": lambda: sys.exit(3),
    "hog": _hog,
    "hang": _hang,
    "native-hang": _hang_in_native_code,
    "garbage": _send_garbage,
    "endless": _send_without_end,
    "noisy": _print_noise,
}

BACKEND = FakeBackend()
