"""Which accounts a worker posts to most, and how long they keep it busy: the top of a stream, in bounded memory.

Space-Saving (Metwally, Agrawal, El Abbadi 2005): of N arrivals, an account with more than N / capacity is in the
summary, and its count is too high by at most N / capacity. Of a large batch a sample is counted, each for several.
"""

import heapq
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from fundledger.ledger.batch import Command
from fundledger.ledger.voucher import Voucher

K = TypeVar("K", int, str)
CAPACITY = 64
SAMPLE = 64
SHOWN = 16


class Warm(msgspec.Struct, array_like=True, frozen=True):
    """One account in one second of one worker: arrivals, the seconds that batches with it took, and how often one slot
    was not enough.
    """

    account_number: int
    arrivals: int
    busy_s: float
    widened: int = 0


class Report(msgspec.Struct, frozen=True):
    """What one worker saw since its last report."""

    seconds: float
    arrivals: int
    hottest: list[Warm]


class SpaceSaving(Generic[K]):
    """The most frequent keys of a stream. `counts[key]` is never too low for a key that is in it."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        # Each key once, with what it had when it came or was last looked at: never more than it has now.
        self._heap: list[tuple[int, K]] = []
        self.counts: dict[K, int] = {}

    def add(self, key: K, weight: int) -> K | None:
        """Count a key; answers the key that had to make room."""
        counts = self.counts
        if key in counts:
            counts[key] += weight
            return None
        if len(counts) < self._capacity:
            counts[key] = weight
            heapq.heappush(self._heap, (weight, key))
            return None
        least, evicted = self._least()
        del counts[evicted]
        counts[key] = least + weight
        heapq.heapreplace(self._heap, (least + weight, key))
        return evicted

    def _least(self) -> tuple[int, K]:
        heap, counts = self._heap, self.counts
        while True:
            count, key = heap[0]
            if counts[key] == count:
                return count, key
            heapq.heapreplace(heap, (counts[key], key))


class Thermometer:
    """What one worker's lanes post to; read and begun anew with each report."""

    def __init__(self) -> None:
        self._top: SpaceSaving[int] = SpaceSaving()
        self._busy: dict[int, float] = {}
        self._arrivals = 0

    def batch(self, commands: Sequence[Command], seconds: float) -> None:
        """A batch of these was posted, and took so long."""
        stride = (len(commands) + SAMPLE - 1) // SAMPLE
        seen: dict[int, int] = {}
        for command in commands[::stride]:
            if type(command) is Voucher:
                for account, amount in command.lines:
                    if not account.type.platform and not (account.buffered and amount > 0):
                        seen[account.number] = seen.get(account.number, 0) + stride
        self._arrivals += len(commands)
        busy = self._busy
        for number, count in seen.items():
            evicted = self._top.add(number, count)
            if evicted is not None:
                busy.pop(evicted, None)
            busy[number] = busy.get(number, 0.0) + seconds

    def report(self, seconds: float, widened: dict[int, int]) -> Report:
        """What was seen in the last `seconds`; `widened`: batches for which one slot of an account was too little."""
        counts = self._top.counts
        shown = sorted(counts, key=lambda number: -self._busy.get(number, 0.0))[:SHOWN]
        shown += [number for number in widened if number not in shown]
        hottest = [
            Warm(number, counts.get(number, 0), round(self._busy.get(number, 0.0), 4), widened.get(number, 0))
            for number in shown
        ]
        report = Report(round(seconds, 3), self._arrivals, hottest)
        self._top = SpaceSaving()
        self._busy = {}
        self._arrivals = 0
        return report
