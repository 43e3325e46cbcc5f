"""Metric of an HTTP worker: event-loop lag, measured as the delay with which a repeated timer fires."""

import asyncio
import time
from collections import deque
from typing import Final

from fundledger.app.http.metrics.counters import LAG_S, Histogram

EVERY_S: Final = 0.02
RECENT: Final = 5
"""Number of timers that `recent_s` covers. Together these timers take 100 ms."""


class LoopLag:
    """The lag of one event loop. `recent_s`: the maximum lag of the last 100 ms, in seconds."""

    def __init__(self, histogram: Histogram) -> None:
        self.recent_s = 0.0
        self._histogram = histogram
        self._last: deque[float] = deque(maxlen=RECENT)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Start measuring the running loop, until `stop`."""
        # `loop.time` is not used, because the clock of uvloop does not advance while the loop is busy.
        self._due = time.monotonic() + EVERY_S
        self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._fired)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _fired(self) -> None:
        self.late(max(0.0, time.monotonic() - self._due))
        self.start()

    def late(self, seconds: float) -> None:
        """Record the delay of one timer."""
        self._histogram.observe(LAG_S, seconds)
        self._last.append(seconds)
        self.recent_s = max(self._last)
