"""Counters of one worker's rate limiter and load shedder, cheap to update and sent to the supervisor unchanged.

A key of a dict is one label, or several labels joined by blanks. The comment of the field names the labels in order.
"""

from bisect import bisect_left
from typing import Final

import msgspec

DECISION_S: Final = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
)  # fmt: skip
"""Upper bounds (s) of the histograms of decisions and of store calls."""


class Times(msgspec.Struct):
    """Histogram of durations. `counts[i]` is the number of durations in the interval that ends at `DECISION_S[i]`.

    The last count is for longer durations. `total` is the sum of all durations in seconds.
    """

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DECISION_S) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DECISION_S, seconds)] += 1
        self.total += seconds

    def add(self, other: "Times") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Limits(msgspec.Struct):
    """Counters and gauges of the rate limiter. Counters only grow."""

    decisions: dict[str, int] = {}  # policy, api_class, decision (allow, deny, shadow_deny), source
    decision_s: dict[str, Times] = {}  # source: lease, strict, denycache, fallback
    lease_tokens: dict[str, int] = {}  # policy, state: granted, spent, returned, expired
    store_calls: dict[str, int] = {}  # op, outcome: ok, timeout, error
    store_s: dict[str, Times] = {}  # op
    reload_failures: int = 0
    policies: dict[str, tuple[float, int]] = {}  # policy -> rate per second, burst
    utilization: dict[str, dict[str, float]] = {}  # policy -> its busiest key -> demand / limit, over 10 s
    mode: str = "off"  # normal, fallback (the store is unavailable), local (replies of the store are late), shadow, off
    fallback_s: float = 0.0  # seconds since the mode became fallback, 0 in other modes
    version: str = ""  # version of the policies


class Shed(msgspec.Struct):
    """Counters and gauges of the load shedder. `shed` and `level_changes` are counters, which only grow."""

    shed: dict[str, int] = {}  # api_class, reason: concurrency, fleet, worker, deadline
    in_flight: dict[str, int] = {}  # api_class
    limit: dict[str, int] = {}  # api_class
    level: int = 0  # number of lowest ranks that are rejected
    level_changes: int = 0
