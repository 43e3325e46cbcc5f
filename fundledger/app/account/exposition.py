"""Prometheus text format of a metrics snapshot of the account service."""

from collections.abc import Iterable

from prometheus_client.core import Metric

from fundledger.app.account.metrics import Snapshot
from fundledger.app.http.metrics.counters import SECONDS, SIZES, Histogram
from fundledger.app.http.metrics.exposition import (
    answered,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
    histograms,
    page,
)
from fundledger.hotspot.buffer_drainer import LAGS


def render(snapshot: Snapshot) -> bytes:
    """Render a snapshot of the account service's metrics in the Prometheus text format."""
    return page([*answered(snapshot), *_posting(snapshot), *_accounts(snapshot)])


def _posting(s: Snapshot) -> Iterable[Metric]:
    yield counters("vouchers", "Vouchers by outcome.", ("outcome",), s.outcomes)
    yield histogram("batch_size_commands", "Commands in one transaction.", s.batch_size, SIZES)
    yield histogram(
        "batch_duration_seconds", "Duration of one transaction, from lock to commit.", s.batch_seconds, SECONDS
    )
    help_ = "Commit duration: separate commit, commit with a write, or flush of several."
    yield histograms("commit_wait_seconds", help_, ("kind",), s.commits, SECONDS)
    yield gauge("lane_waiting_commands", "Commands waiting in lanes.", s.waiting)
    yield gauge("lane_in_flight_commands", "Commands in the database.", s.in_flight)
    states = {"idle": s.pool.idle, "busy": s.pool.busy}
    yield gauges("database_pool_connections", "Connections for reads.", ("state",), states)
    yield gauge("database_pool_waiting", "Reads waiting for a connection.", s.pool.waiting)


def _accounts(s: Snapshot) -> Iterable[Metric]:
    heat = {state: s.hot.heat.get(state, 0) for state in ("warming", "hot", "cooling")}
    yield gauges("hot_accounts", "Accounts by heat, except cold ones.", ("heat",), heat)
    changes = {change: getattr(s.hot, change) for change in ("splits", "merges", "rebalances", "transitions")}
    yield counters("splitting", "Changes to hot accounts.", ("change",), changes)
    yield counter("widened_batches", "Batches that needed more than one slot of an account.", s.hot.widened)
    yield gauge("accounts_remembered", "Accounts cached by workers.", s.accounts_remembered)
    yield counter("folds", "Drains of an account's buffer.", s.buffer.drains)
    waits = Histogram(s.buffer.waits, s.buffer.waited_s)
    yield histogram("buffered_wait_seconds", "Time from acceptance of a buffered credit to its posting.", waits, LAGS)
    yield gauge("buffered_credits", "Buffered credits waiting to be drained.", s.buffer.rows)
    yield gauge("buffered_lag_seconds", "Age of the oldest buffered credit.", s.buffer.lag_s)
    yield gauge(
        "unbuffered_workers", "Workers that post credits directly because too many are buffered.", s.buffer.direct
    )
