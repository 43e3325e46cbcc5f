"""Admission of HTTP requests: hot keys, the most frequent callers, merchants and accounts of each second.

There is one Space-Saving summary (`fundledger/heavy_hitters.py`) for each kind of key, so the memory is
fixed. The counts of the last whole second are reported. All workers of a machine share the monotonic clock, so the
counts of one second can be added up over workers. The keys are sent to the supervisor and returned by
`GET /debug/hotkeys`. Labels of metrics contain the rank of a key, not the key.
"""

import heapq
import time
from collections.abc import Callable
from typing import Final

import msgspec

from fundledger.heavy_hitters import SpaceSaving

KINDS: Final = ("caller", "merchant", "account")
CAPACITY: Final = 128
WINDOW_S: Final = 1.0
SHOWN: Final = 20
"""Maximum number of keys of a kind that `GET /debug/hotkeys` names."""

Hot = tuple[str, float, float]
"""A key, its rate per second, and its share (0 to 1) of the weight of all keys of its kind."""


class Window(msgspec.Struct):
    """Counts of one kind of key in one second: total weight of all keys, and weights of the most frequent keys."""

    total: int = 0
    counts: dict[str, int] = {}

    def add(self, other: "Window") -> None:
        self.total += other.total
        for key, count in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + count

    def top(self, n: int) -> list[Hot]:
        """Return at most `n` keys, the most frequent first. Keys with equal rates are in alphabetical order."""
        most = heapq.nsmallest(n, self.counts.items(), key=lambda item: (-item[1], item[0]))
        return [(key, count / WINDOW_S, count / self.total) for key, count in most]


class HotKeys:
    """The hot keys of one worker. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends = 0.0
        self._last: dict[str, Window] = {}
        self._begin()

    def payment(self, merchant: str, account: str, caller: str) -> None:
        """Count the three keys of a request that moves money of one account. Faster than three calls of `seen`."""
        now = self._clock()
        if now >= self._ends:
            self._turn(now)
        totals, tops = self._totals, self._tops
        for kind, key in (("merchant", merchant), ("account", account), ("caller", caller)):
            totals[kind] += 1
            counts = tops[kind].counts
            if key in counts:
                counts[key] += 1
            else:
                tops[kind].add(key, 1)

    def seen(self, kind: str, key: str, weight: int = 1) -> None:
        """Count a key. `kind` is one of KINDS. The cost does not depend on the number of keys."""
        now = self._clock()
        if now >= self._ends:
            self._turn(now)
        self._totals[kind] += weight
        top = self._tops[kind]
        counts = top.counts
        if key in counts:
            counts[key] += weight
        else:
            top.add(key, weight)

    def top(self, kind: str, n: int) -> list[Hot]:
        """Return the `n` most frequent keys of a kind in the last whole second.

        A rate may be too high, by at most 1/128 of the rate of all keys of the kind.
        """
        return self.last()[kind].top(n)

    def last(self) -> dict[str, Window]:
        """Return the counts of the last whole second, by kind."""
        now = self._clock()
        if now >= self._ends:
            self._turn(now)
        return self._last

    def _turn(self, now: float) -> None:
        is_last = now < self._ends + WINDOW_S
        self._last = {kind: Window(self._totals[kind], top.counts) for kind, top in self._tops.items()}
        if not is_last:
            self._last = {kind: Window() for kind in KINDS}
        self._ends = (now // WINDOW_S + 1) * WINDOW_S
        self._begin()

    def _begin(self) -> None:
        self._tops: dict[str, SpaceSaving[str]] = {kind: SpaceSaving(CAPACITY) for kind in KINDS}
        self._totals = dict.fromkeys(KINDS, 0)
