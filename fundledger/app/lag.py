"""How late a worker's event loop is: a timer that looks how late it fired."""

import asyncio
import time
from collections import deque
from typing import Final

from fundledger.app.metrics import LAG_S, Histogram

EVERY_S: Final = 0.02
RECENT: Final = 5
"""Timers that `recent_s` looks back on: 100 ms of them."""


class LoopLag:
    """`recent_s` is the worst of the last 100 ms, for whoever decides with every request: an attribute, no call."""

    def __init__(self, histogram: Histogram) -> None:
        self.recent_s = 0.0
        self._histogram = histogram
        self._last: deque[float] = deque(maxlen=RECENT)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """From the loop that is to be watched; until `stop`."""
        # Not the loop's own time: uvloop's stands still while the loop is busy, which is what is asked here.
        self._due = time.monotonic() + EVERY_S
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._fired)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fired(self) -> None:
        self.late(max(0.0, time.monotonic() - self._due))
        self.start()

    def late(self, seconds: float) -> None:
        """One timer fired so late."""
        self._histogram.observe(LAG_S, seconds)
        self._last.append(seconds)
        self.recent_s = max(self._last)
