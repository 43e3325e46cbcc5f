"""Background jobs of the fund service: pauses before a step that was refused is tried again. Each pause is twice as
long as the one before. The pauses are in memory: another process begins with the first one.
"""

import time
from collections.abc import Callable
from typing import Final

KEYS_MAX: Final = 10_000


class Pacing:
    """The pauses of steps, by key. `first_s`: the first pause, 0 for none. `max_s`: the longest pause."""

    def __init__(self, first_s: float, max_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._clock = clock
        self._paused: dict[object, tuple[float, float]] = {}

    def is_due(self, key: object) -> bool:
        """Return whether a step may be tried now."""
        paused = self._paused.get(key)
        return paused is None or paused[0] <= self._clock()

    def failed(self, key: object) -> None:
        """Begin the next pause of a step."""
        _, last_s = self._paused.get(key, (0.0, 0.0))
        pause_s = min(self._max_s, last_s * 2 or self._first_s)
        if len(self._paused) >= KEYS_MAX:
            self._paused.clear()
        self._paused[key] = self._clock() + pause_s, pause_s

    def succeeded(self, key: object) -> None:
        """Forget the pauses of a step."""
        self._paused.pop(key, None)
