"""Counters and histograms of one worker, cheap enough for the hot path, and their sum over all workers.

A snapshot is plain JSON; `render` turns the sum of several into the Prometheus text format with the official client.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fundledger.hotspot.folder import LAGS, Folded
from fundledger.hotspot.keeper import Counted

SECONDS: Final = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Histogram(msgspec.Struct):
    """`counts[i]` observations fell into `(bounds[i-1], bounds[i]]`; the last one is beyond all bounds."""

    counts: list[int]
    total: float = 0.0

    def observe(self, bounds: Sequence[float], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def _histogram(bounds: Sequence[float]) -> Histogram:
    return Histogram([0] * (len(bounds) + 1))


class Snapshot(msgspec.Struct):
    """Everything one worker has counted since it started, and its gauges now."""

    requests: dict[str, int] = {}
    latencies: dict[str, Histogram] = {}
    outcomes: dict[str, int] = {}
    batch_size: Histogram = msgspec.field(default_factory=lambda: _histogram(SIZES))
    batch_seconds: Histogram = msgspec.field(default_factory=lambda: _histogram(SECONDS))
    waiting: int = 0
    in_flight: int = 0
    accounts_remembered: int = 0
    rss_bytes: int = 0
    workers: int = 1
    hot: Counted = msgspec.field(default_factory=Counted)
    buffer: Folded = msgspec.field(default_factory=Folded)

    def add(self, other: "Snapshot") -> None:
        for mine, theirs in ((self.requests, other.requests), (self.outcomes, other.outcomes)):
            for name, count in theirs.items():
                mine[name] = mine.get(name, 0) + count
        for route, histogram in other.latencies.items():
            self.latencies.setdefault(route, _histogram(SECONDS)).add(histogram)
        self.batch_size.add(other.batch_size)
        self.batch_seconds.add(other.batch_seconds)
        self.waiting += other.waiting
        self.in_flight += other.in_flight
        self.accounts_remembered += other.accounts_remembered
        self.rss_bytes += other.rss_bytes
        self.workers += other.workers
        self.hot.splits += other.hot.splits
        self.hot.merges += other.hot.merges
        self.hot.rebalances += other.hot.rebalances
        self.hot.transitions += other.hot.transitions
        self.hot.widened += other.hot.widened
        self.hot.heat = self.hot.heat or other.hot.heat
        self.buffer.add(other.buffer)


class Metrics:
    """The counters of this worker."""

    def __init__(self) -> None:
        self.now = Snapshot()
        self._keys: dict[tuple[str, int], str] = {}

    def request(self, route: str, status: int, seconds: float) -> None:
        key = self._keys.get((route, status))
        if key is None:
            key = self._keys[route, status] = f"{route} {status}"
            self.now.requests[key] = 0
            self.now.latencies.setdefault(route, _histogram(SECONDS))
        self.now.requests[key] += 1
        self.now.latencies[route].observe(SECONDS, seconds)

    def outcome(self, name: str) -> None:
        self.now.outcomes[name] = self.now.outcomes.get(name, 0) + 1

    def batch(self, size: int, seconds: float) -> None:
        self.now.batch_size.observe(SIZES, size)
        self.now.batch_seconds.observe(SECONDS, seconds)


class _Rendered(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        s = self._snapshot
        requests = CounterMetricFamily("fundledger_requests", "Requests answered.", labels=["route", "status"])
        for key, count in s.requests.items():
            route, _, status = key.rpartition(" ")
            requests.add_metric([route, status], count)
        yield requests
        latencies = HistogramMetricFamily(
            "fundledger_request_duration_seconds", "From the last byte of a request to its answer.", labels=["route"]
        )
        for route, histogram in s.latencies.items():
            latencies.add_metric([route], *_buckets(histogram, SECONDS))
        yield latencies
        outcomes = CounterMetricFamily("fundledger_vouchers", "Vouchers by what became of them.", labels=["outcome"])
        for name, count in s.outcomes.items():
            outcomes.add_metric([name], count)
        yield outcomes
        for name, help_, histogram, bounds in (
            ("fundledger_batch_size_commands", "Commands in one transaction.", s.batch_size, SIZES),
            ("fundledger_batch_duration_seconds", "One transaction, lock to commit.", s.batch_seconds, SECONDS),
        ):
            family = HistogramMetricFamily(name, help_)
            family.add_metric([], *_buckets(histogram, bounds))
            yield family
        lag = HistogramMetricFamily(
            "fundledger_buffered_wait_seconds", "How long folded credits had waited, from their acceptance."
        )
        lag.add_metric([], *_buckets(Histogram(s.buffer.waits, s.buffer.waited_s), LAGS))
        yield lag
        yield CounterMetricFamily("fundledger_folds", "Folds of an account's buffer.", value=s.buffer.folds)
        heat = GaugeMetricFamily("fundledger_hot_accounts", "Accounts that are not cold.", labels=["heat"])
        for state in ("warming", "hot", "cooling"):
            heat.add_metric([state], s.hot.heat.get(state, 0))
        yield heat
        changes = CounterMetricFamily("fundledger_splitting", "What was done to hot accounts.", labels=["change"])
        for change in ("splits", "merges", "rebalances", "transitions"):
            changes.add_metric([change], getattr(s.hot, change))
        yield changes
        yield CounterMetricFamily(
            "fundledger_widened_batches", "Batches that one slot of an account was not enough for.", value=s.hot.widened
        )
        for name, help_, value in (
            ("fundledger_lane_waiting_commands", "Commands waiting in lanes.", s.waiting),
            ("fundledger_lane_in_flight_commands", "Commands in the database.", s.in_flight),
            ("fundledger_accounts_remembered", "Accounts in the memory of workers.", s.accounts_remembered),
            ("fundledger_resident_memory_bytes", "Resident memory of all workers.", s.rss_bytes),
            ("fundledger_buffered_credits", "Credits that wait to be folded.", s.buffer.rows),
            ("fundledger_buffered_lag_seconds", "How long the oldest of them has waited.", s.buffer.lag_s),
            ("fundledger_unbuffered_workers", "Workers that post directly what they might buffer.", s.buffer.direct),
            ("fundledger_workers", "Workers that answered this scrape.", s.workers),
        ):
            yield GaugeMetricFamily(name, help_, value)


def _buckets(histogram: Histogram, bounds: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    return buckets, histogram.total


def render(snapshot: Snapshot) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Rendered(snapshot))
    return generate_latest(registry)
