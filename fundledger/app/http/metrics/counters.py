"""Counters and histograms of an HTTP worker of either service, and their sum over workers.

The counters are cheap enough to be updated for each request.

Each service adds its own counters (`app/account/metrics.py`, `app/fund/metrics.py`). A snapshot of the counters is
JSON. The supervisor fetches a snapshot from each worker (`app/host/processes/scrape.py`), and renders the sum of all
snapshots for Prometheus (`exposition.py`).
"""

import os
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from fundledger.app.http.admission.hot_keys import Window
from fundledger.jobs.watch import Counted as JobsCounted
from fundledger.ratelimit.stats import Limits, Shed, Times

SECONDS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_S: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LAG_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
METHODS: Final = frozenset({"GET", "HEAD", "PATCH", "POST"})
OTHER: Final = "other"
MODES: Final = ("off", "normal", "shadow", "local", "fallback")
"""Modes of the limiter. If the modes of the workers differ, their sum has the mode that comes last in this tuple."""


class Histogram(msgspec.Struct):
    """A histogram. `counts[i]` is the number of observations in `(bounds[i-1], bounds[i]]`. The last count is the
    number of observations above all bounds.
    """

    counts: list[int]
    total: float = 0.0

    def observe(self, bounds: Sequence[float], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def histogram(bounds: Sequence[float]) -> Histogram:
    return Histogram([0] * (len(bounds) + 1))


class Pool(msgspec.Struct):
    """Gauges of the connection pool for reads: connections by state, and reads that wait for a connection."""

    idle: int = 0
    busy: int = 0
    waiting: int = 0

    def add(self, other: "Pool") -> None:
        self.idle += other.idle
        self.busy += other.busy
        self.waiting += other.waiting


class Answered(msgspec.Struct):
    """Counters of a worker of either service since the start of the worker, and current values of its gauges.

    `worker` identifies the process and is never reused. If a key consists of several labels, blanks separate the
    labels. The comment of the field gives the order of the labels.
    """

    worker: str = ""
    requests: dict[str, int] = {}  # route, method, status, shed
    latencies: dict[str, Histogram] = {}  # route, api_class
    loop_lag: Histogram = msgspec.field(default_factory=lambda: histogram(LAG_S))
    rss_bytes: int = 0
    feed_lag_s: float = 0.0
    workers: int = 1
    pool: Pool = msgspec.field(default_factory=Pool)
    hot_keys: dict[str, Window] = {}  # kind
    limits: Limits = msgspec.field(default_factory=Limits)
    shed: Shed = msgspec.field(default_factory=Shed)
    jobs: JobsCounted = msgspec.field(default_factory=JobsCounted)
    connections: int = 0
    connections_closed: dict[str, int] = {}  # reason
    body_bytes: int = 0
    log_lines_dropped: int = 0

    def add_answered(self, other: "Answered") -> None:
        """Add the counters and gauges of another worker."""
        add_counts(self.requests, other.requests)
        add_histograms(self.latencies, other.latencies, REQUEST_S)
        self.loop_lag.add(other.loop_lag)
        self.rss_bytes += other.rss_bytes
        self.feed_lag_s = max(self.feed_lag_s, other.feed_lag_s)
        self.workers += other.workers
        self.pool.add(other.pool)
        for kind, window in other.hot_keys.items():
            self.hot_keys.setdefault(kind, Window()).add(window)
        _add_limits(self.limits, other.limits)
        _add_shed(self.shed, other.shed)
        self.jobs.add(other.jobs)
        self.connections += other.connections
        add_counts(self.connections_closed, other.connections_closed)
        self.body_bytes += other.body_bytes
        self.log_lines_dropped += other.log_lines_dropped

    def forget_gauges(self) -> None:
        """Reset the gauges and keep the counters. Called when the worker has ended or does not answer."""
        self.rss_bytes = self.workers = self.connections = self.body_bytes = 0
        self.feed_lag_s = 0.0
        self.pool = Pool()
        self.hot_keys = {}
        limits, shed = self.limits, self.shed
        limits.policies, limits.utilization, limits.mode, limits.fallback_s, limits.version = {}, {}, MODES[0], 0.0, ""
        shed.in_flight, shed.limit, shed.level = {}, {}, 0
        self.jobs.forget_gauges()


def add_counts(mine: dict[str, int], theirs: Mapping[str, int]) -> None:
    for name, count in theirs.items():
        mine[name] = mine.get(name, 0) + count


def add_histograms(mine: dict[str, Histogram], theirs: Mapping[str, Histogram], bounds: Sequence[float]) -> None:
    for name, counted in theirs.items():
        mine.setdefault(name, histogram(bounds)).add(counted)


def _add_times(mine: dict[str, Times], theirs: Mapping[str, Times]) -> None:
    for name, times in theirs.items():
        mine.setdefault(name, Times()).add(times)


def _add_limits(mine: Limits, theirs: Limits) -> None:
    add_counts(mine.decisions, theirs.decisions)
    add_counts(mine.lease_tokens, theirs.lease_tokens)
    add_counts(mine.store_calls, theirs.store_calls)
    _add_times(mine.decision_s, theirs.decision_s)
    _add_times(mine.store_s, theirs.store_s)
    mine.reload_failures += theirs.reload_failures
    # All workers read one policies file. While workers reload the file, either of two versions is correct.
    mine.policies = theirs.policies or mine.policies
    mine.version = theirs.version or mine.version
    for policy, busiest in theirs.utilization.items():
        ours = mine.utilization.setdefault(policy, {})
        for key, ratio in busiest.items():
            ours[key] = ours.get(key, 0.0) + ratio
    mine.mode = max(mine.mode, theirs.mode, key=MODES.index)
    mine.fallback_s = max(mine.fallback_s, theirs.fallback_s)


def _add_shed(mine: Shed, theirs: Shed) -> None:
    add_counts(mine.shed, theirs.shed)
    add_counts(mine.in_flight, theirs.in_flight)
    add_counts(mine.limit, theirs.limit)
    mine.level = max(mine.level, theirs.level)
    mine.level_changes += theirs.level_changes


def this_worker() -> str:
    """Return the identity of this process, which is never reused."""
    return f"{os.getpid()}:{time.time_ns()}"


class Requests:
    """Counter of the requests of this worker. The counts are in `counted`."""

    def __init__(self, counted: Answered) -> None:
        self.counted = counted
        self._series: dict[tuple[str, str, int, str, bool], tuple[str, Histogram]] = {}

    def request(
        self, route: str, method: str, status: int, seconds: float, api_class: str = "", shed: bool = False
    ) -> None:
        """Count an answered request. `route` is a template. Methods not in METHODS are counted as `other`."""
        series = self._series.get((route, method, status, api_class, shed))
        if series is None:
            series = self._begin(route, method, status, api_class, shed)
        key, took = series
        self.counted.requests[key] += 1
        took.counts[bisect_left(REQUEST_S, seconds)] += 1
        took.total += seconds

    def _begin(self, route: str, method: str, status: int, api_class: str, shed: bool) -> tuple[str, Histogram]:
        method = method if method in METHODS else OTHER
        key = f"{route} {method} {status} {'true' if shed else 'false'}"
        self.counted.requests.setdefault(key, 0)
        took = self.counted.latencies.setdefault(f"{route} {api_class}", histogram(REQUEST_S))
        if method != OTHER:
            self._series[route, method, status, api_class, shed] = key, took
        return key, took
