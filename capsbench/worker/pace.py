"""Not every step is worth a message: each one wakes the parent, who shares the processors with us."""

import time

SECONDS_BETWEEN_MESSAGES = 0.2


class Pace:
    """Says when the next progress message is due."""

    def __init__(self, seconds: float = SECONDS_BETWEEN_MESSAGES) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed; if so, it starts anew."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True
