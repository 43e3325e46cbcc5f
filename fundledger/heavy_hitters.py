"""Heavy hitters, for all packages of fundledger: the most frequent keys of a stream, counted in bounded memory.

Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005. The
algorithm is called Space-Saving. In a stream of total weight N, each key with a weight of more than N / capacity has a
count. The count is too high by at most N / capacity.
"""

import heapq
from typing import Generic, TypeVar

K = TypeVar("K", int, str)


class SpaceSaving(Generic[K]):
    """The most frequent keys of a stream, at most `capacity` of them.

    `counts[key]` is at least the total weight that was added for the key since the key was last inserted.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        # One pair for each key. The count in the pair was read when the key was inserted or last inspected. It is a
        # lower bound of the key's current count.
        self._heap: list[tuple[int, K]] = []
        self.counts: dict[K, int] = {}

    def add(self, key: K, weight: int) -> K | None:
        """Add `weight` to the count of `key`. Return the key that was evicted to make room, or None."""
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
