"""What the limiter and the shedder of one worker have counted: plain, cheap to change, sent to the supervisor as is.

Keys of several labels are the labels joined by a blank, in the order that each field's comment names.
"""

from bisect import bisect_left
from typing import Final

import msgspec

DECISION_S: Final = (
    0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
)  # fmt: skip
"""Bounds (s) of how long decisions and calls of the store take."""


class Times(msgspec.Struct):
    """`counts[i]` took up to `DECISION_S[i]`, the last ones longer; `total` seconds all together."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DECISION_S) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(DECISION_S, seconds)] += 1
        self.total += seconds

    def add(self, other: "Times") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Limits(msgspec.Struct):
    """Of the limiter. Counters only grow; the others are as they are now."""

    decisions: dict[str, int] = {}  # policy, api_class, decision (allow, deny, shadow_deny), source
    decision_s: dict[str, Times] = {}  # source: lease, strict, denycache, fallback
    lease_tokens: dict[str, int] = {}  # policy, state: granted, spent, returned, expired
    store_calls: dict[str, int] = {}  # op, outcome: ok, timeout, error
    store_s: dict[str, Times] = {}  # op
    reload_failures: int = 0
    policies: dict[str, tuple[float, int]] = {}  # policy -> rate per second, burst
    utilization: dict[str, dict[str, float]] = {}  # policy -> its busiest key -> demand / limit, over 10 s
    mode: str = "off"  # normal, fallback (the store is away), local (its answers come too late), shadow, off
    fallback_s: float = 0.0  # how long it has been in fallback, 0 when it is not
    version: str = ""  # of the policies


class Shed(msgspec.Struct):
    """Of the shedder. `shed` only grows; the others are as they are now."""

    shed: dict[str, int] = {}  # api_class, reason: concurrency, fleet, worker, deadline
    in_flight: dict[str, int] = {}  # api_class
    limit: dict[str, int] = {}  # api_class
    level: int = 0  # 0: nothing is shed at the door; n: the n lowest ranks are
    level_changes: int = 0
