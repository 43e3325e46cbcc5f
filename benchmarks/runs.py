"""Results of load driver runs, and the statistics over runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict


class BenchFault(Exception):
    """Nothing can be measured. The message is the reason, in one line."""


@dataclass(frozen=True)
class Run:
    """One run. `errors` counts responses other than 2xx and broken connections.

    `in_flight_max` is the number of requests that may have been accepted without a counted response.
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
    """A run of the open-loop driver; latencies count from the time a request was due.

    `late_p99_ms` is the p99 of the driver's own delay, `cpu_share` its use of one processor. `no_verdict` is
    the reason if the latencies are not conclusive.
    """

    asked_rate: float = 0.0
    arrivals: int = 0
    sent_in_time: int = 0
    unanswered: int = 0
    late_p99_ms: float = 0.0
    cpu_share: float = 0.0
    no_verdict: str | None = None


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile by nearest rank: the smallest value that at least `share` of the values do not exceed.

    `ordered` is ascending and not empty.
    """
    # Rounded, because 0.07 * 100 is a little more than 7.
    rank = math.ceil(round(share * len(ordered), 6))
    return ordered[max(rank, 1) - 1]


class Latencies(TypedDict):
    """Latency fields of a `Run`."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float


def summary(latencies_ns: Sequence[int]) -> Latencies:
    """Return the latency percentiles, zeros if nothing was measured."""
    ordered = sorted(latencies_ns) or [0]

    def ms(share: float) -> float:
        return round(percentile(ordered, share) / 1e6, 4)

    return {"p50_ms": ms(0.5), "p99_ms": ms(0.99), "p999_ms": ms(0.999), "max_ms": ms(1.0)}


def median_rate(runs: Sequence[Run]) -> float:
    return median(run.rate for run in runs)


def ratios(above: Sequence[Run], below: Sequence[Run]) -> list[float]:
    """Return the ratios of rates, one for each pair of runs. The runs of a pair are adjacent in time."""
    return [a.rate / b.rate for a, b in zip(above, below, strict=True) if b.rate]
