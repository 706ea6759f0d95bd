"""What mixed precision costs in digits, beside the proof that the formulation is right.

In bfloat16, which keeps 8 bits, even a right formulation is off by more than many a mistake would be. So a case in
mixed precision is held to the limits of parity in the precision that its parameters are kept in, in the same mode; then
its own distance from the oracle, on the same images and along the same directions, is measured and not judged.
"""

import math

from capsbench.backend import Setting
from capsbench.record.measured import exact, once
from capsbench.record.schema import Parity
from capsbench.worker.messages import MetricsPart, NotesPart
from capsbench.worker.prepare import Send, Stopped


def measure(found: Parity, setting: Setting, send: Send) -> None:
    """Send a mixed setting's distance from the oracle as metrics, and a note that says what they are.

    Raises:
        Stopped: as `parity_failed`, where it is not finite.
    """
    errors = {
        "mixed_forward_relative_error": found.forward_max_relative_error,
        "mixed_gradient_relative_error": found.gradient_relative_error,
    }
    if not all(map(math.isfinite, errors.values())):
        said = f"forward error {found.forward_max_relative_error}, gradient error {found.gradient_relative_error}"
        raise Stopped("parity_failed", f"is not finite in {setting.precision}, though right in {setting.kept}: {said}")
    # Kernels of a GPU may add in any order.
    make = exact if setting.device == "cpu" else once
    send(MetricsPart(metrics=dict(make(name, error) for name, error in errors.items())))
    send(NotesPart(notes=(describe(found, setting),)))


def describe(found: Parity, setting: Setting) -> str:
    """What a reader must know of the parity of a case in mixed precision."""
    return (
        f"parity: held to its limits in {setting.kept}, in the same mode; in {setting.precision} it is off by "
        f"{found.forward_max_relative_error:.1g} (forward) and {found.gradient_relative_error:.1g} (gradient), which "
        "is measured and not judged"
    )
