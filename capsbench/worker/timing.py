"""One timing round: forward passes, then train steps, on one batch that stays where it is."""

from capsbench.measure.clock import Timing, time_calls
from capsbench.measure.memory import peak_resident_bytes
from capsbench.worker.messages import Progress, RoundPart
from capsbench.worker.pace import Pace
from capsbench.worker.prepare import Prepared, Send
from capsbench.worker.turns import wait_for_turn

STAGE = "time"
_FORWARD_SHARE = 0.3


def time_round(prepared: Prepared, send: Send) -> None:
    """Time forward pass and train step in this process, and send the round."""
    realization = prepared.realize()
    placed, step = prepared.training_batch(realization), prepared.standing_step()
    wanted = prepared.case.time

    def forward() -> None:
        realization.forward(placed)

    def train() -> None:
        realization.train_step(placed, step)
        realization.synchronize()

    teller = _Teller(send, wanted.min_samples)
    seconds = wanted.max_seconds
    forwards = time_calls(
        forward,
        min_samples=wanted.min_samples,
        max_seconds=seconds * _FORWARD_SHARE,
        each=lambda taken: teller.tell(taken, 0, "forward pass"),
        turn=wait_for_turn,
    )
    trains = time_calls(
        train,
        min_samples=wanted.min_samples,
        max_seconds=seconds * (1.0 - _FORWARD_SHARE),
        each=lambda taken: teller.tell(taken, wanted.min_samples, "train step"),
        turn=wait_for_turn,
    )
    send(
        RoundPart(
            forward=forwards,
            train_step=trains,
            overhead_share=overhead_share(forwards, trains),
            peak_rss_bytes=peak_resident_bytes(),
            devices=prepared.case.devices,
        )
    )


def overhead_share(*passes: Timing) -> float:
    """Share of the timing passes that was spent outside the realization: the harness's own cost."""
    whole = sum(timing.pass_seconds for timing in passes)
    return max(0.0, 1.0 - sum(timing.called_seconds for timing in passes) / whole) if whole else 0.0


class _Teller:
    """Sends progress, but seldom."""

    def __init__(self, send: Send, samples: int) -> None:
        self._send = send
        self._samples = samples
        self._pace = Pace()

    def tell(self, taken: int, before: int, what: str) -> None:
        if self._pace.due():
            done = before + min(taken, self._samples)
            self._send(Progress(stage=STAGE, done=done, total=2 * self._samples, detail=f"{what} {taken}"))
