"""What one run of a driver saw, and the arithmetic over runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict


class BenchFault(Exception):
    """Nothing can be measured, and why, in one line."""


@dataclass(frozen=True)
class Run:
    """One run. `errors` are answers other than 2xx and broken connections. `in_flight_max` is how many requests may
    have been accepted whose answer the driver did not count."""

    driver: str
    seconds: float
    answered: int
    errors: int
    in_flight_max: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    vouchers_each: int = 1
    p999_ms: float | None = None

    @property
    def rate(self) -> float:
        """Vouchers that were answered well, per second."""
        return (self.answered - self.errors) * self.vouchers_each / self.seconds


@dataclass(frozen=True)
class OpenRun(Run):
    """A run of the open-loop driver; latencies count from when a request was meant to be sent.

    `late_p99_ms` is how late the driver itself was; `cpu_share` is how busy it was, of one processor. `no_verdict` says
    why the latencies prove nothing, if they do not.
    """

    asked_rate: float = 0.0
    arrivals: int = 0
    sent_in_time: int = 0
    unanswered: int = 0
    late_p99_ms: float = 0.0
    cpu_share: float = 0.0
    no_verdict: str | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of them do not exceed. `ordered` ascends, not empty."""
    # Rounded, because 0.07 * 100 is a little more than 7.
    rank = math.ceil(round(share * len(ordered), 6))
    return ordered[max(rank, 1) - 1]


class Latencies(TypedDict):
    """Those fields of a `Run`."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def summary(latencies_ns: Sequence[int]) -> Latencies:
    """Zeros when nothing was measured."""
    ordered = sorted(latencies_ns) or [0]

    def ms(share: float) -> float:
        return round(percentile(ordered, share) / 1e6, 4)

    return {"p50_ms": ms(0.5), "p99_ms": ms(0.99), "p999_ms": ms(0.999), "max_ms": ms(1.0)}


def median_rate(runs: Sequence[Run]) -> float:
    return median(run.rate for run in runs)


def ratios(above: Sequence[Run], below: Sequence[Run]) -> list[float]:
    """Of rates, pair by pair; runs of one pair stood side by side in time."""
    return [a.rate / b.rate for a, b in zip(above, below, strict=True) if b.rate]
