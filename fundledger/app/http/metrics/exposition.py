"""Prometheus text format of the metrics that both HTTP services have, and functions that render metric families.

Only the supervisor renders pages. A process that serves payments renders none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fundledger.app.http.admission.hot_keys import KINDS
from fundledger.app.http.metrics.counters import LAG_S, MODES, REQUEST_S, Answered, Histogram
from fundledger.build import this_build
from fundledger.jobs.watch import Counted as JobsCounted
from fundledger.ratelimit.stats import DECISION_S, Limits, Shed, Times

RANKS: Final = 10
"""Number of hot keys of each kind on the metrics page. The page has the rate and share of a hot key, not its name."""


def replacements(counted: Mapping[str, int]) -> bytes:
    """Return the part of the metrics page with the counts of replaced processes. The supervisor keeps these counts."""
    help_ = "Restarted processes, by the reason why the previous one ended."
    return page([counters("worker_replaced", help_, ("process", "reason"), counted)])


class _Rendered(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def page(families: Iterable[Metric]) -> bytes:
    """Render metric families in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Rendered(families))
    return generate_latest(registry)


def answered(s: Answered, prefix: str = "") -> Iterable[Metric]:
    """Return the metrics that both services have. Names begin with `prefix`, except names of background job metrics."""
    yield from _requests(s, prefix)
    yield from _limits(s.limits, prefix)
    yield from _shedding(s.shed, prefix)
    yield from _hot_keys(s, prefix)
    yield from jobs(s.jobs)
    yield from _workers(s, prefix)


def _requests(s: Answered, prefix: str) -> Iterable[Metric]:
    yield counters(f"{prefix}http_requests", "Requests answered.", ("route", "method", "status", "shed"), s.requests)
    yield histograms(
        f"{prefix}http_request_duration_seconds",
        "Time from the last byte of a request to its answer.",
        ("route", "api_class"),
        s.latencies,
        REQUEST_S,
    )


def _limits(limits: Limits, prefix: str) -> Iterable[Metric]:
    labels = ("policy", "api_class", "decision", "source")
    yield counters(f"{prefix}ratelimit_decisions", "Decisions of the limiter.", labels, limits.decisions)
    help_ = "Duration of decisions of the limiter."
    yield histograms(f"{prefix}ratelimit_decision_duration_seconds", help_, ("source",), limits.decision_s, DECISION_S)
    rates = {policy: rate for policy, (rate, _) in limits.policies.items()}
    bursts = {policy: burst for policy, (_, burst) in limits.policies.items()}
    yield gauges(f"{prefix}ratelimit_limit_per_second", "The rate of a policy.", ("policy",), rates)
    yield gauges(f"{prefix}ratelimit_burst", "The burst of a policy.", ("policy",), bursts)
    help_ = "Demand of the busiest key of a policy over its limit, refused requests included, over 10 s."
    busiest = {policy: max(ratios.values(), default=0.0) for policy, ratios in limits.utilization.items()}
    yield gauges(f"{prefix}ratelimit_top_utilization_ratio", help_, ("policy",), busiest)
    help_ = "Leased tokens, by their state."
    yield counters(f"{prefix}ratelimit_lease_tokens", help_, ("policy", "state"), limits.lease_tokens)
    modes = {mode: int(mode == limits.mode) for mode in MODES}
    yield gauges(f"{prefix}ratelimit_mode", "1 for the current mode of the limiter.", ("mode",), modes)
    yield gauge(f"{prefix}ratelimit_fallback_seconds", "Time that the limiter has been in fallback.", limits.fallback_s)
    yield counters(
        f"{prefix}ratelimit_store_calls", "Calls of the limiter's store.", ("op", "outcome"), limits.store_calls
    )
    help_ = "Duration of calls of the limiter's store."
    yield histograms(f"{prefix}ratelimit_store_duration_seconds", help_, ("op",), limits.store_s, DECISION_S)
    versions = {limits.version: 1} if limits.version else {}
    yield gauges(f"{prefix}ratelimit_config_info", "The policies in force.", ("version",), versions)
    help_ = "Failed loads of the policies file; the previous policies stay in force."
    yield counter(f"{prefix}ratelimit_config_reload_failures", help_, limits.reload_failures)


def _shedding(shed: Shed, prefix: str) -> Iterable[Metric]:
    yield counters(f"{prefix}shed_requests", "Requests that were shed.", ("api_class", "reason"), shed.shed)
    yield gauges(f"{prefix}inflight_requests", "Requests being served.", ("api_class",), shed.in_flight)
    yield gauges(
        f"{prefix}concurrency_limit", "Maximum number of requests served concurrently.", ("api_class",), shed.limit
    )
    yield gauge(f"{prefix}shed_level", "Number of ranks that are rejected early.", shed.level)
    yield counter(f"{prefix}shed_level_changes", "Changes of the load-shed level.", shed.level_changes)


def jobs(counted: JobsCounted) -> Iterable[Metric]:
    """Return the metrics of the background jobs of either service."""
    help_ = "Age of the oldest waiting work of a background job."
    yield gauges("daemon_lag_seconds", help_, ("daemon",), counted.lag_s)
    help_ = "Time of the last success of a background job."
    yield gauges("daemon_last_success_timestamp_seconds", help_, ("daemon",), counted.last_success)
    help_ = "1 if a background job has not succeeded within its bound."
    yield gauges("daemon_overdue", help_, ("daemon",), counted.overdue)
    yield counters("daemon_runs", "Runs of background jobs in these processes.", ("daemon", "outcome"), counted.runs)


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
    yield gauges(
        f"{prefix}hotkey_share_ratio", "Share of the most frequent keys of all requests.", ("kind", "rank"), shares
    )


def _workers(s: Answered, prefix: str) -> Iterable[Metric]:
    yield histogram(f"{prefix}event_loop_lag_seconds", "Delay of timers in workers.", s.loop_lag, LAG_S)
    yield gauge(f"{prefix}event_feed_lag_seconds", "Delay until a committed event can be read.", s.feed_lag_s)
    yield gauge(f"{prefix}resident_memory_bytes", "Resident memory of all workers.", s.rss_bytes)
    yield gauge(f"{prefix}connections", "Client connections of all workers.", s.connections)
    help_ = "Connections closed because of the connection limits."
    yield counters(f"{prefix}connections_closed", help_, ("reason",), s.connections_closed)
    yield gauge(f"{prefix}body_bytes", "Memory of request bodies in progress.", s.body_bytes)
    help_ = "Log lines dropped because standard error did not accept them."
    yield counter(f"{prefix}log_lines_dropped", help_, s.log_lines_dropped)
    yield gauge(f"{prefix}workers", "Workers that answered this scrape.", s.workers)
    build = this_build()
    name = f"{build.version} {build.commit}"
    yield gauges(f"{prefix}build_info", "Version and commit of the running build.", ("version", "commit"), {name: 1})


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
