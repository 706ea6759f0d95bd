"""Waiting for an event; the seconds are a last resort, which only a program that hangs comes to."""

import time

PATIENCE_SECONDS = 300.0


def wait_until(true):
    """Wait until `true()` is; whether it was before patience ran out."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not (found := true()) and time.monotonic() < until:
        time.sleep(0.01)
    return bool(found)
