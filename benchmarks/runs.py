"""Results of the runs of load drivers, and statistics over several runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict


class BenchFault(Exception):
    """Nothing can be measured. The message is the reason, in one line."""


@dataclass(frozen=True)
class Run:
    """One run. `errors` counts responses with a status other than 2xx, and broken connections.

    `in_flight_max` is the number of requests that the service may have accepted although no response was counted.
    """

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
        """Return the acknowledged vouchers per second."""
        return (self.answered - self.errors) * self.vouchers_each / self.seconds


@dataclass(frozen=True)
class OpenRun(Run):
    """A run of the open-loop driver. Latencies count from the time at which a request was due.

    `late_p99_ms` is the p99 of the driver's own delay, `cpu_share` is the share of one processor that the driver used.
    `no_verdict` is the reason why the latencies are not conclusive, None if they are.
    """

    asked_rate: float = 0.0
    arrivals: int = 0
    sent_in_time: int = 0
    unanswered: int = 0
    late_p99_ms: float = 0.0
    cpu_share: float = 0.0
    no_verdict: str | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest of the values that at least `share` (0 to 1) of them do not
    exceed.

    `ordered` is ascending and not empty.
    """
    # Round, because in floating point 0.07 * 100 is a little more than 7.
    rank = math.ceil(round(share * len(ordered), 6))
    return ordered[max(rank, 1) - 1]


class Latencies(TypedDict):
    """Latency fields of a `Run`."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def summary(latencies_ns: Sequence[int]) -> Latencies:
    """Return the percentiles of latencies, all 0 if there are no latencies."""
    ordered = sorted(latencies_ns) or [0]

    def ms(share: float) -> float:
        return round(percentile(ordered, share) / 1e6, 4)

    return {"p50_ms": ms(0.5), "p99_ms": ms(0.99), "p999_ms": ms(0.999), "max_ms": ms(1.0)}


def median_rate(runs: Sequence[Run]) -> float:
    return median(run.rate for run in runs)


def ratios(above: Sequence[Run], below: Sequence[Run]) -> list[float]:
    """Return, for each pair of runs, the rate of the first divided by the rate of the second. The two are adjacent in
    time.
    """
    return [a.rate / b.rate for a, b in zip(above, below, strict=True) if b.rate]
