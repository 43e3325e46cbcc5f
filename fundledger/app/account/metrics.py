"""Counters and histograms of an account-service worker, and their sum over all workers."""

from collections import deque

import msgspec

from fundledger.app.http.metrics.counters import (
    SECONDS,
    SIZES,
    Answered,
    Histogram,
    Requests,
    add_counts,
    add_histograms,
    histogram,
    this_worker,
)
from fundledger.hotspot.buffer_drainer import Drained
from fundledger.hotspot.rebalancer import Counted
from fundledger.ledger.store.session import Commits


class Snapshot(Answered):
    """All counters and gauges of one worker of the account service. Blanks separate the labels of a key."""

    outcomes: dict[str, int] = msgspec.field(default_factory=dict)
    batch_size: Histogram = msgspec.field(default_factory=lambda: histogram(SIZES))
    batch_seconds: Histogram = msgspec.field(default_factory=lambda: histogram(SECONDS))
    commits: dict[str, Histogram] = msgspec.field(default_factory=dict)  # kind
    waiting: int = 0
    in_flight: int = 0
    accounts_remembered: int = 0
    hot: Counted = msgspec.field(default_factory=Counted)
    buffer: Drained = msgspec.field(default_factory=Drained)

    def add(self, other: "Snapshot") -> None:
        """Add the counters and gauges of another worker."""
        self.add_answered(other)
        add_counts(self.outcomes, other.outcomes)
        add_histograms(self.commits, other.commits, SECONDS)
        self.batch_size.add(other.batch_size)
        self.batch_seconds.add(other.batch_seconds)
        self.waiting += other.waiting
        self.in_flight += other.in_flight
        self.accounts_remembered += other.accounts_remembered
        self.hot.splits += other.hot.splits
        self.hot.merges += other.hot.merges
        self.hot.rebalances += other.hot.rebalances
        self.hot.transitions += other.hot.transitions
        self.hot.widened += other.hot.widened
        self.hot.heat = self.hot.heat or other.hot.heat
        self.buffer.add(other.buffer)

    def forget_gauges(self) -> None:
        super().forget_gauges()
        self.waiting = self.in_flight = self.accounts_remembered = 0
        self.hot.heat = {}
        self.buffer.rows = self.buffer.direct = 0
        self.buffer.lag_s = 0.0


class Metrics(Requests):
    """The counters of this worker. Sessions and the flusher append the duration of each commit to `commits`."""

    def __init__(self) -> None:
        self.now = Snapshot(worker=this_worker())
        super().__init__(self.now)
        self.commits: Commits = deque()

    def outcome(self, name: str) -> None:
        self.now.outcomes[name] = self.now.outcomes.get(name, 0) + 1

    def batch(self, size: int, seconds: float) -> None:
        self.now.batch_size.observe(SIZES, size)
        self.now.batch_seconds.observe(SECONDS, seconds)
        self.take_commits()

    def take_commits(self) -> None:
        """Count the durations in `commits` and empty the queue."""
        while self.commits:
            kind, took = self.commits.popleft()
            self.now.commits.setdefault(kind, histogram(SECONDS)).observe(SECONDS, took)
