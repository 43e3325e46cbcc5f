"""Metrics of the fund service: counters and histograms of one worker, and their sum over all workers."""

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
from fundledger.fund.stats import Counted


class FundSnapshot(Answered):
    """All counters and gauges of one worker of the fund service. Blanks separate the labels of a key.

    `outstanding`: number of orders of all workers that are inserted as `posting` and have no recorded outcome.
    `outstanding_age_s`: the age of the oldest of these orders, in seconds.
    `stuck`: number of orders that need an operator. `parked`: number of orders that the accounts of their merchants do
    not take; `parked_age_s`: the age of the oldest of them. `own_transfer_age_s`, `dispute_age_s`: the age of the
    oldest own transfer and of the oldest dispute without an end. `calendar_differs`: 1 if the account service has
    another calendar.
    """

    answers: dict[str, int] = msgspec.field(default_factory=dict)  # kind, answer
    calls: dict[str, Histogram] = msgspec.field(default_factory=dict)  # outcome
    call_size: Histogram = msgspec.field(default_factory=lambda: histogram(SIZES))
    posting: Counted = msgspec.field(default_factory=Counted)
    waiting: int = 0
    outstanding: int = 0
    outstanding_age_s: float = 0.0
    stuck: int = 0
    parked: int = 0
    parked_age_s: float = 0.0
    own_transfer_age_s: float = 0.0
    dispute_age_s: float = 0.0
    calendar_differs: int = 0

    def add(self, other: "FundSnapshot") -> None:
        """Add the counters and gauges of another worker."""
        self.add_answered(other)
        add_counts(self.answers, other.answers)
        add_histograms(self.calls, other.calls, SECONDS)
        self.call_size.add(other.call_size)
        self.posting.add(other.posting)
        self.waiting += other.waiting
        # Each worker counts the orders of all workers, so the counts must not be added.
        self.outstanding = max(self.outstanding, other.outstanding)
        self.outstanding_age_s = max(self.outstanding_age_s, other.outstanding_age_s)
        self.stuck = max(self.stuck, other.stuck)
        self.parked = max(self.parked, other.parked)
        self.parked_age_s = max(self.parked_age_s, other.parked_age_s)
        self.own_transfer_age_s = max(self.own_transfer_age_s, other.own_transfer_age_s)
        self.dispute_age_s = max(self.dispute_age_s, other.dispute_age_s)
        self.calendar_differs = max(self.calendar_differs, other.calendar_differs)

    def forget_gauges(self) -> None:
        super().forget_gauges()
        self.waiting = self.outstanding = self.stuck = self.parked = self.calendar_differs = 0
        self.outstanding_age_s = self.parked_age_s = self.own_transfer_age_s = self.dispute_age_s = 0.0


class FundMetrics(Requests):
    """Counters and histograms of this worker."""

    def __init__(self) -> None:
        self.now = FundSnapshot(worker=this_worker())
        super().__init__(self.now)

    def answer(self, kind: str, answer: str) -> None:
        """Count an answered order. `answer`: the state of the order, the code of a refusal, `replayed`, or `fault`."""
        key = f"{kind} {answer}"
        self.now.answers[key] = self.now.answers.get(key, 0) + 1

    def call(self, outcome: str, size: int, seconds: float) -> None:
        """Count a call that posts `size` vouchers. `outcome`: `answered`, `away` (a fault) or `cancelled`."""
        self.now.call_size.observe(SIZES, size)
        self.now.calls.setdefault(outcome, histogram(SECONDS)).observe(SECONDS, seconds)
