"""A Space-Saving summary: the most frequent keys of a stream, in bounded memory.

Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005. In a
stream of total weight N, each key with a weight of more than N / capacity is in the summary. The count of a key is too
high by at most N / capacity.
"""

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", int, str)


class SpaceSaving(Generic[K]):
    """The most frequent keys of a stream, at most `capacity` of them.

    `counts[key]` is at least the total weight of a key that is in the summary.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # Each key once, with its count when it was inserted or last inspected: a lower bound of its current count.
        self._heap: list[tuple[int, K]] = []
        self.counts: dict[K, int] = {}

    def add(self, key: K, weight: int) -> K | None:
        """Count `key` with `weight`. Return the key that was evicted to make room, if any."""
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
