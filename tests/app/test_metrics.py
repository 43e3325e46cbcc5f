"""Metrics: the counters of a worker, their sums over all workers, also dead ones, and the page for Prometheus."""

import asyncio
import random
import shutil
import subprocess
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace

import asyncpg
import msgspec
import pytest

from fundledger.app.account.exposition import render
from fundledger.app.account.metrics import Metrics, Snapshot
from fundledger.app.account.routes import ROUTES
from fundledger.app.host.processes.scrape import Totals, _Worker, nothing
from fundledger.app.http.admission.hot_keys import KINDS, HotKeys
from fundledger.app.http.metrics.counters import LAG_S, METHODS, MODES, REQUEST_S, Histogram, Pool
from fundledger.app.http.metrics.loop_lag import RECENT, LoopLag
from fundledger.app.http.worker_stats import _pool
from fundledger.build import commit_of, this_build
from fundledger.hotspot.flusher import Flusher
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.stats import Limits
from tests.support.client import Client
from tests.support.ledger import Ledger, transfer
from tests.support.pages import counted, counters, gauges, gone_back, label_values, numbers, series
from tests.support.snapshots import filled
from tests.support.waiting import eventually

SERIES_MAX = 3000
GAUGES = (
    *(f"/{name}" for name in ("waiting", "in_flight", "accounts_remembered", "rss_bytes", "feed_lag_s", "workers")),
    *("/pool/idle", "/pool/busy", "/pool/waiting", "/buffer/rows", "/buffer/lag_s", "/buffer/direct"),
    *("/limits/fallback_s", "/shed/level", "/connections", "/body_bytes"),
)
"""Gauges of a snapshot that always have a number."""


# --- Counting -------------------------------------------------------------------------------------------------------


def test_requests_are_counted_by_what_they_were():
    metrics = Metrics()
    metrics.request("/v1/vouchers", "POST", 201, 0.0007, "payment")
    metrics.request("/v1/vouchers", "POST", 201, 7.0, "payment")
    metrics.request("/v1/vouchers", "POST", 503, 0.0001, "payment", shed=True)
    metrics.request("unmatched", "GET", 404, 0.0001)
    assert metrics.now.requests == {
        "/v1/vouchers POST 201 false": 2,
        "/v1/vouchers POST 503 true": 1,
        "unmatched GET 404 false": 1,
    }
    labels = [("method", "POST"), ("route", "/v1/vouchers"), ("shed", "true"), ("status", "503")]
    assert counters(render(metrics.now))[f"fundledger_http_requests_total{labels}"] == 1
    assert metrics.now.latencies["/v1/vouchers payment"].counts == [1, 1, *[0] * (len(REQUEST_S) - 2), 1]
    assert len(REQUEST_S) == 14
    assert (REQUEST_S[0], REQUEST_S[-1]) == (0.0005, 5)


def test_methods_that_clients_make_up_are_one_series_and_take_no_memory():
    metrics = Metrics()
    for i in range(1000):
        metrics.request("unmatched", f"METHOD{i}", 405, 0.001)
    assert metrics.now.requests == {"unmatched other 405 false": 1000}
    assert metrics._series == {}


async def test_each_way_to_commit_is_timed_separately(client: Client):
    bank = await client.bank()
    merchant = await client.merchant()
    await client.pay(bank, merchant, 5)
    assert (await client.pay(merchant, bank, 6)).status == 422

    async def shown() -> bool:
        page = counters((await client.get("/metrics")).body)
        kinds = ("write", "commit")
        return all(page.get(f"fundledger_commit_wait_seconds_count[('kind', '{kind}')]") for kind in kinds)

    await eventually(shown, "commits are shown")


async def test_a_session_counts_its_commits_and_the_flusher_its_flushes(ledger: Ledger, database: str):
    commits: deque[tuple[str, float]] = deque()
    ledger.session.commits = commits
    bank, merchant = await ledger.account("bank", "bank"), await ledger.account("m")
    await ledger.post(transfer(bank, merchant, 1))
    assert {kind for kind, _ in commits} <= {"write", "commit"}
    assert all(took > 0 for _, took in commits)
    assert commits
    commits.clear()
    flusher = Flusher(database, "flushes", commits)
    await flusher.open()
    assert await flusher.flush()
    await flusher.close()
    assert [kind for kind, _ in commits] == ["flush"]


async def test_reads_that_wait_for_a_connection_are_seen(database: str):
    async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
        service = SimpleNamespace(pool=pool)
        assert _pool(service) == Pool(idle=1, busy=0, waiting=0)
        async with pool.acquire():
            reads = [asyncio.create_task(pool.fetchval("SELECT 1")) for _ in range(3)]
            await eventually(lambda: _pool(service) == Pool(idle=0, busy=1, waiting=3), "three wait")
        assert await asyncio.gather(*reads) == [1, 1, 1]
        assert _pool(service) == Pool(idle=1, busy=0, waiting=0)


async def test_a_loop_that_is_kept_busy_is_seen_to_be_late():
    histogram = Histogram([0] * (len(LAG_S) + 1))
    lag = LoopLag(histogram)
    lag.start()
    try:
        await eventually(lambda: sum(histogram.counts) >= RECENT, "it looks by itself")
    finally:
        lag.stop()
    before = sum(histogram.counts)
    for late in (0.3, *[0.0] * (RECENT - 1)):
        lag.late(late)
        assert lag.recent_s == 0.3
    lag.late(0.001)
    assert lag.recent_s == 0.001
    assert sum(histogram.counts) == before + RECENT + 1


async def test_the_sampler_measures_the_delay_of_its_own_timer(monkeypatch: pytest.MonkeyPatch):
    histogram = Histogram([0] * (len(LAG_S) + 1))
    lag = LoopLag(histogram)
    lag.start()
    monkeypatch.setattr("fundledger.app.http.metrics.loop_lag.time", SimpleNamespace(monotonic=lambda: lag._due + 0.25))
    lag._fired()
    lag.stop()
    assert lag.recent_s == pytest.approx(0.25)
    assert histogram.total == pytest.approx(0.25)


# --- Adding up ------------------------------------------------------------------------------------------------------


def test_every_counter_of_a_snapshot_is_added_up():
    total = Snapshot(workers=0)
    total.add(filled("a", 1))
    total.add(filled("b", 2))
    assert {name: value for name, value in counted(total).items() if value != 3} == dict.fromkeys(GAUGES, 0)


def test_the_state_of_the_limiter_is_that_of_the_worst_worker():
    total = Snapshot(workers=0)
    told = (("normal", "a", 0.5, 0, 0.0), ("fallback", "a", 0.2, 2, 7.0), ("shadow", "b", 0.6, 1, 0.0))
    for mode, key, used, level, fallback_s in told:
        limits = Limits(
            mode=mode, utilization={"p": {key: used}}, policies={"p": (5.0, 9)}, version="v1", fallback_s=fallback_s
        )
        snapshot = Snapshot(limits=limits)
        snapshot.shed.level = level
        snapshot.shed.limit = {"payment": 10}
        total.add(snapshot)
    page = gauges(render(total))
    assert {mode: page[f"fundledger_ratelimit_mode[('mode', '{mode}')]"] for mode in MODES} == {
        "off": 0,
        "normal": 0,
        "shadow": 0,
        "local": 0,
        "fallback": 1,
    }
    assert page["fundledger_ratelimit_top_utilization_ratio[('policy', 'p')]"] == 0.7
    assert page["fundledger_ratelimit_limit_per_second[('policy', 'p')]"] == 5
    assert page["fundledger_ratelimit_burst[('policy', 'p')]"] == 9
    assert page["fundledger_ratelimit_config_info[('version', 'v1')]"] == 1
    assert page["fundledger_ratelimit_fallback_seconds[]"] == 7
    assert page["fundledger_shed_level[]"] == 2
    assert page["fundledger_concurrency_limit[('api_class', 'payment')]"] == 30


def test_a_worker_that_is_gone_leaves_its_counters_and_takes_its_gauges():
    totals = Totals(2, nothing)
    totals.update(0, 0, filled("a", 3))
    totals.update(1, 0, filled("b", 5))
    before = counters(render(totals.sum()))
    totals.ended(0)
    totals.ended(1)
    page = render(totals.sum())
    assert counters(page) == before
    assert gauges(page) == gauges(render(Snapshot(workers=0)))


def test_a_worker_that_does_not_answer_is_shown_with_its_last_snapshot():
    totals = Totals(2, nothing)
    totals.update(0, 0, filled("a", 3))
    totals.update(1, 0, filled("b", 5))
    before = counters(render(totals.sum()))
    totals.update(0, 0, None)
    assert counters(render(totals.sum())) == before
    assert totals.sum().workers == 5
    totals.update(0, 0, filled("a", 4))
    assert totals.sum().workers == 9


def test_another_worker_under_the_same_number_is_distinguished_by_its_identity():
    totals = Totals(1, nothing)
    totals.update(0, 0, filled("a", 3))
    totals.update(0, 0, filled("b", 1))
    assert totals.sum().buffer.drains == 4


def test_a_snapshot_that_arrives_after_the_end_of_a_worker_is_not_counted_twice():
    totals = Totals(1, nothing)
    totals.update(0, 0, filled("a", 3))
    totals.ended(0)
    totals.update(0, 0, filled("a", 3))
    assert totals.sum().buffer.drains == 3
    totals.update(0, totals.life(0), filled("b", 1))
    assert totals.sum().buffer.drains == 4


class Forgetful(Totals):
    """A broken twin: the counters of a dead worker are lost."""

    def _keep(self, worker: _Worker) -> None:
        worker.last = None


class Unordered(Totals):
    """A broken twin: keeps one sum for all dead workers. Floating-point sums depend on the order of addition."""

    def __init__(self, workers: int, nothing: Callable[[], Snapshot]) -> None:
        super().__init__(workers, nothing)
        self.gone = Snapshot(workers=0)

    def _keep(self, worker: _Worker) -> None:
        super()._keep(worker)
        self.gone.add(worker.before)
        worker.before = Snapshot(workers=0)

    def sum(self) -> Snapshot:
        whole = Snapshot(workers=0)
        whole.add(self.gone)
        whole.add(super().sum())
        return whole


def restarts(totals: Totals, count: int) -> tuple[list[str], Snapshot]:
    """Let three workers count and die in turn. Return the counters that decreased, and the true counts."""
    chance = random.Random(7)
    metrics = [Metrics() for _ in range(3)]
    true = Snapshot(workers=0)
    shown: dict[str, float] = {}
    found: list[str] = []

    def look() -> None:
        nonlocal shown
        now = counted(totals.sum())
        found.extend(gone_back(shown, now))
        shown = now

    for i in range(count):
        for ordinal, worker in enumerate(metrics):
            worker.request("/v1/vouchers", "POST", 201, chance.expovariate(300), "payment")
            worker.batch(chance.randrange(1, 99), chance.expovariate(300))
            totals.update(ordinal, totals.life(ordinal), worker.now)
        look()
        ordinal = chance.randrange(3)
        true.add(metrics[ordinal].now)
        totals.ended(ordinal)
        metrics[ordinal] = Metrics()
        metrics[ordinal].now.worker = str(i)
        look()
    for worker in metrics:
        true.add(worker.now)
    return found, true


def test_nothing_goes_back_over_a_thousand_restarts_and_nothing_grows():
    totals = Totals(3, nothing)
    found, _ = restarts(totals, 10)
    size = len(render(totals.sum()).splitlines())
    found, true = restarts(totals := Totals(3, nothing), 1000)
    assert found == []
    total = totals.sum()
    assert total.requests == true.requests == {"/v1/vouchers POST 201 false": 3000}
    assert total.batch_seconds.counts == true.batch_seconds.counts
    assert total.batch_seconds.total == pytest.approx(true.batch_seconds.total)
    assert len(render(total).splitlines()) == size


@pytest.mark.parametrize("twin", [Forgetful, Unordered])
def test_a_sum_that_goes_back_is_noticed(twin: type[Totals]):
    found, _ = restarts(twin(3, nothing), 1000)
    assert found != []


# --- The page -------------------------------------------------------------------------------------------------------


def crowded() -> Metrics:
    """Return metrics in which all routes and policies are used, by very many callers, merchants and accounts."""
    metrics = Metrics()
    keys = HotKeys(clock := Clock())
    for i in range(100_000):
        keys.seen("caller", f"caller-id-{i % 50_000}")
        keys.seen("merchant", f"merchant-id-{i}")
        keys.seen("account", f"account-id-{i}")
    clock.now += 1
    metrics.now.hot_keys = keys.last()
    classes = list(ApiClass)
    for number, route in enumerate(ROUTES):
        own = classes if route.template == "/v1/vouchers" else [classes[number % len(classes)]]
        statuses = (200, 201, 400, 401, 404, 409, 413, 415, 422, 429, 500, 503)
        for api_class in own:
            for status in statuses:
                metrics.request(route.template, route.method, status, 0.001, api_class)
                metrics.request(route.template, route.method, status, 0.001, api_class, shed=status == 503)
    for i in range(1000):
        metrics.request("unmatched", f"X{i}", 404, 0.001)
    limits = metrics.now.limits
    for policy in range(12):
        limits.policies[f"policy{policy}"] = (100.0, 100)
        limits.utilization[f"policy{policy}"] = {"k": 0.5}
        for state in ("granted", "spent", "returned", "expired"):
            limits.lease_tokens[f"policy{policy} {state}"] = 5
        for api_class in classes[policy % 3 :: 3]:
            for decision in ("allow", "deny", "shadow_deny"):
                for source in ("lease", "strict", "denycache", "fallback"):
                    limits.decisions[f"policy{policy} {api_class} {decision} {source}"] = 1
    for api_class in classes:
        for reason in ("concurrency", "fleet", "worker", "deadline"):
            metrics.now.shed.shed[f"{api_class} {reason}"] = 1
    return metrics


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def blamed(page: bytes) -> list[str]:
    """Return the forbidden parts of a page: names, or more series than fit the budget."""
    named = [value for value in label_values(page) if "-id-" in value]
    return named + ([f"{series(page)} series"] if series(page) > SERIES_MAX else [])


def test_the_page_stays_small_and_contains_no_names_however_many_there_are():
    page = render(crowded().now)
    assert blamed(page) == []
    values = label_values(page)
    assert {str(rank) for rank in range(1, 11)} <= values
    assert set(KINDS) <= values
    assert values & METHODS


def test_a_page_that_contains_names_or_is_too_large_is_noticed():
    named, large = crowded(), crowded()
    named.request("/v1/accounts/account-id-7", "GET", 200, 0.001)
    assert blamed(render(named.now)) == ["/v1/accounts/account-id-7"]
    for i in range(SERIES_MAX):
        large.outcome(f"outcome{i}")
    assert len(blamed(render(large.now))) == 1


def test_prometheus_finds_nothing_to_blame_in_the_page():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    full = filled("a", 1)
    for page in (render(Snapshot()), render(crowded().now), render(full)):
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    page = render(full).replace(b"fundledger_vouchers_total", b"fundledger_vouchers")
    assert subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False).returncode


def test_every_number_of_a_snapshot_is_in_the_page():
    plain = render(filled("a", 1))
    unseen = []
    for name in numbers(msgspec.to_builtins(filled("a", 1))):
        tree = msgspec.to_builtins(filled("a", 1))
        *path, last = (int(step) if step.isdigit() else step for step in name.split("/")[1:])
        inner = tree
        for step in path:
            above, inner = inner, inner[step]
        if isinstance(inner, tuple):
            above[path[-1]] = inner = list(inner)
        inner[last] = 77
        if render(msgspec.convert(tree, Snapshot)) == plain:
            unseen.append(name)
    assert unseen == ["/buffer/drained"]  # the count of `buffered_wait_seconds` is the same


def test_the_build_has_its_commit(tmp_path):
    commit = "0123456789abcdef" * 2 + "01234567"
    (tmp_path / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "HEAD").write_text("ref: refs/heads/main\n")
    assert commit_of(tmp_path) is None
    (tmp_path / "packed-refs").write_text(f"# pack-refs\n{commit} refs/heads/main\n")
    assert commit_of(tmp_path) == commit[:12]
    (tmp_path / "refs" / "heads" / "main").write_text(commit[::-1] + "\n")
    assert commit_of(tmp_path) == commit[::-1][:12]
    (tmp_path / "HEAD").write_text(commit + "\n")
    assert commit_of(tmp_path) == commit[:12]
    assert commit_of(tmp_path / "nothing") is None
    assert f'version="{this_build().version}"'.encode() in render(Snapshot())
