"""A snapshot as Prometheus reads it. In the supervisor: nothing is rendered in a process that serves payments."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fundledger.app.build import this_build
from fundledger.app.hotkeys import KINDS
from fundledger.app.metrics import LAG_S, MODES, REQUEST_S, SECONDS, SIZES, Answered, Histogram, Snapshot
from fundledger.daemons.watch import Counted as DaemonsCounted
from fundledger.hotspot.folder import LAGS
from fundledger.ratelimit.counted import DECISION_S, Limits, Shed, Times

RANKS: Final = 10
"""How many of the most frequent keys of a kind have a rate and a share in the page, without their names."""


def render(snapshot: Snapshot) -> bytes:
    """The Prometheus text format."""
    return page([*answered(snapshot), *_posting(snapshot), *_accounts(snapshot)])


def replacements(counted: Mapping[str, int]) -> bytes:
    """What the supervisor counts of its processes, of either service, in the Prometheus text format."""
    help_ = "Processes that were started again, by why the one before ended."
    return page([counters("worker_replaced", help_, ("process", "reason"), counted)])


class _Rendered(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def page(families: Iterable[Metric]) -> bytes:
    """The Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Rendered(families))
    return generate_latest(registry)


def answered(s: Answered, prefix: str = "") -> Iterable[Metric]:
    """What the workers of either service count; `prefix` tells whose, in the names."""
    yield from _requests(s, prefix)
    yield from _limits(s.limits, prefix)
    yield from _shedding(s.shed, prefix)
    yield from _hot_keys(s, prefix)
    yield from daemons(s.daemons)
    yield from _workers(s, prefix)


def _requests(s: Answered, prefix: str) -> Iterable[Metric]:
    yield counters(f"{prefix}http_requests", "Requests answered.", ("route", "method", "status", "shed"), s.requests)
    yield histograms(
        f"{prefix}http_request_duration_seconds",
        "From the last byte of a request to its answer.",
        ("route", "api_class"),
        s.latencies,
        REQUEST_S,
    )


def _posting(s: Snapshot) -> Iterable[Metric]:
    yield counters("vouchers", "Vouchers by what became of them.", ("outcome",), s.outcomes)
    yield histogram("batch_size_commands", "Commands in one transaction.", s.batch_size, SIZES)
    yield histogram("batch_duration_seconds", "One transaction, lock to commit.", s.batch_seconds, SECONDS)
    help_ = "How long commits took: by themselves, with a write, or a flush for several."
    yield histograms("commit_wait_seconds", help_, ("kind",), s.commits, SECONDS)
    yield gauge("lane_waiting_commands", "Commands waiting in lanes.", s.waiting)
    yield gauge("lane_in_flight_commands", "Commands in the database.", s.in_flight)
    states = {"idle": s.pool.idle, "busy": s.pool.busy}
    yield gauges("database_pool_connections", "Connections for reads.", ("state",), states)
    yield gauge("database_pool_waiting", "Reads that wait for a connection.", s.pool.waiting)


def _accounts(s: Snapshot) -> Iterable[Metric]:
    heat = {state: s.hot.heat.get(state, 0) for state in ("warming", "hot", "cooling")}
    yield gauges("hot_accounts", "Accounts that are not cold.", ("heat",), heat)
    changes = {change: getattr(s.hot, change) for change in ("splits", "merges", "rebalances", "transitions")}
    yield counters("splitting", "What was done to hot accounts.", ("change",), changes)
    yield counter("widened_batches", "Batches that one slot of an account was not enough for.", s.hot.widened)
    yield gauge("accounts_remembered", "Accounts in the memory of workers.", s.accounts_remembered)
    yield counter("folds", "Folds of an account's buffer.", s.buffer.folds)
    waits = Histogram(s.buffer.waits, s.buffer.waited_s)
    yield histogram("buffered_wait_seconds", "How long folded credits had waited, from their acceptance.", waits, LAGS)
    yield gauge("buffered_credits", "Credits that wait to be folded.", s.buffer.rows)
    yield gauge("buffered_lag_seconds", "How long the oldest of them has waited.", s.buffer.lag_s)
    yield gauge("unbuffered_workers", "Workers that post directly what they might buffer.", s.buffer.direct)


def _limits(limits: Limits, prefix: str) -> Iterable[Metric]:
    labels = ("policy", "api_class", "decision", "source")
    yield counters(f"{prefix}ratelimit_decisions", "Decisions of the limiter.", labels, limits.decisions)
    help_ = "How long decisions took."
    yield histograms(f"{prefix}ratelimit_decision_duration_seconds", help_, ("source",), limits.decision_s, DECISION_S)
    rates = {policy: rate for policy, (rate, _) in limits.policies.items()}
    bursts = {policy: burst for policy, (_, burst) in limits.policies.items()}
    yield gauges(f"{prefix}ratelimit_limit_per_second", "The rate of a policy.", ("policy",), rates)
    yield gauges(f"{prefix}ratelimit_burst", "The burst of a policy.", ("policy",), bursts)
    help_ = "Demand of the busiest key of a policy over its limit, refused requests included, over 10 s."
    busiest = {policy: max(ratios.values(), default=0.0) for policy, ratios in limits.utilization.items()}
    yield gauges(f"{prefix}ratelimit_top_utilization_ratio", help_, ("policy",), busiest)
    help_ = "Tokens of leases, by what became of them."
    yield counters(f"{prefix}ratelimit_lease_tokens", help_, ("policy", "state"), limits.lease_tokens)
    modes = {mode: int(mode == limits.mode) for mode in MODES}
    yield gauges(f"{prefix}ratelimit_mode", "1 for the mode that the limiter is in.", ("mode",), modes)
    yield gauge(f"{prefix}ratelimit_fallback_seconds", "For how long it has been in fallback.", limits.fallback_s)
    yield counters(
        f"{prefix}ratelimit_store_calls", "Calls of the limiter's store.", ("op", "outcome"), limits.store_calls
    )
    help_ = "How long calls of the limiter's store took."
    yield histograms(f"{prefix}ratelimit_store_duration_seconds", help_, ("op",), limits.store_s, DECISION_S)
    versions = {limits.version: 1} if limits.version else {}
    yield gauges(f"{prefix}ratelimit_config_info", "The policies in force.", ("version",), versions)
    help_ = "Policies that could not be read; those before stay in force."
    yield counter(f"{prefix}ratelimit_config_reload_failures", help_, limits.reload_failures)


def _shedding(shed: Shed, prefix: str) -> Iterable[Metric]:
    yield counters(f"{prefix}shed_requests", "Requests that were shed.", ("api_class", "reason"), shed.shed)
    yield gauges(f"{prefix}inflight_requests", "Requests being served.", ("api_class",), shed.in_flight)
    yield gauges(f"{prefix}concurrency_limit", "How many may be served at once.", ("api_class",), shed.limit)
    yield gauge(f"{prefix}shed_level", "How many ranks are shed at the door.", shed.level)
    yield counter(f"{prefix}shed_level_changes", "Changes of that.", shed.level_changes)


def daemons(counted: DaemonsCounted) -> Iterable[Metric]:
    """Of either service."""
    help_ = "For how long the oldest work of a daemon has waited."
    yield gauges("daemon_lag_seconds", help_, ("daemon",), counted.lag_s)
    help_ = "When a daemon succeeded last."
    yield gauges("daemon_last_success_timestamp_seconds", help_, ("daemon",), counted.last_success)
    help_ = "1: a daemon has not succeeded within its bound."
    yield gauges("daemon_overdue", help_, ("daemon",), counted.overdue)
    yield counters("daemon_runs", "Runs of daemons here.", ("daemon", "outcome"), counted.runs)


def _hot_keys(s: Answered, prefix: str) -> Iterable[Metric]:
    rates: dict[str, float] = {}
    shares: dict[str, float] = {}
    for kind in KINDS:
        window = s.hot_keys.get(kind)
        for rank, (_, rate, share) in enumerate(window.top(RANKS) if window else (), 1):
            rates[f"{kind} {rank}"] = rate
            shares[f"{kind} {rank}"] = share
    help_ = "Requests per second of the most frequent callers, merchants and accounts."
    yield gauges(f"{prefix}hotkey_rate", help_, ("kind", "rank"), rates)
    yield gauges(f"{prefix}hotkey_share_ratio", "Their share of all requests.", ("kind", "rank"), shares)


def _workers(s: Answered, prefix: str) -> Iterable[Metric]:
    yield histogram(f"{prefix}event_loop_lag_seconds", "How late timers fire in workers.", s.loop_lag, LAG_S)
    yield gauge(f"{prefix}event_feed_lag_seconds", "For how long an event cannot be read yet.", s.feed_lag_s)
    yield gauge(f"{prefix}resident_memory_bytes", "Resident memory of all workers.", s.rss_bytes)
    yield gauge(f"{prefix}connections", "Client connections of all workers.", s.connections)
    help_ = "Connections that were closed because there were too many."
    yield counters(f"{prefix}connections_closed", help_, ("reason",), s.connections_closed)
    yield gauge(f"{prefix}body_bytes", "Memory of request bodies under way.", s.body_bytes)
    help_ = "Log lines that were dropped because standard error did not take them."
    yield counter(f"{prefix}log_lines_dropped", help_, s.log_lines_dropped)
    yield gauge(f"{prefix}workers", "Workers that answered this scrape.", s.workers)
    build = this_build()
    name = f"{build.version} {build.commit}"
    yield gauges(f"{prefix}build_info", "The build that runs.", ("version", "commit"), {name: 1})


def _split(key: str, labels: Sequence[str]) -> list[str]:
    return key.rsplit(" ", len(labels) - 1)


def counter(name: str, help_: str, value: float) -> Metric:
    return CounterMetricFamily(f"fundledger_{name}", help_, value=value)


def counters(name: str, help_: str, labels: Sequence[str], values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"fundledger_{name}", help_, labels=labels)
    for key, value in values.items():
        family.add_metric(_split(key, labels), value)
    return family


def gauge(name: str, help_: str, value: float) -> Metric:
    return GaugeMetricFamily(f"fundledger_{name}", help_, value=value)


def gauges(name: str, help_: str, labels: Sequence[str], values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"fundledger_{name}", help_, labels=labels)
    for key, value in values.items():
        family.add_metric(_split(key, labels), value)
    return family


def histogram(name: str, help_: str, histogram: Histogram, bounds: Sequence[float]) -> Metric:
    family = HistogramMetricFamily(f"fundledger_{name}", help_)
    family.add_metric([], *_buckets(histogram, bounds))
    return family


def histograms(
    name: str, help_: str, labels: Sequence[str], values: Mapping[str, Histogram | Times], bounds: Sequence[float]
) -> Metric:
    family = HistogramMetricFamily(f"fundledger_{name}", help_, labels=labels)
    for key, histogram in values.items():
        family.add_metric(_split(key, labels), *_buckets(histogram, bounds))
    return family


def _buckets(histogram: Histogram | Times, bounds: Sequence[float]) -> tuple[list[tuple[str, float]], float]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*bounds, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), total))
    return buckets, histogram.total
