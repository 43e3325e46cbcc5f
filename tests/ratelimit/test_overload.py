"""The load shedder in front of a server with group commit, in virtual time: throughput, classes and merchants.

Each check is also run with broken twins of the shedder. A check that detects none of them would prove nothing.
"""

from collections.abc import Callable

import pytest

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.shedding import concurrency
from fundledger.ratelimit.shedding import level as door
from fundledger.ratelimit.shedding import shedder as shedding
from fundledger.ratelimit.shedding.fairness import Shares
from fundledger.ratelimit.shedding.shedder import LOWEST, Shedder
from fundledger.settings import Settings
from tests.support.load import Account, Server, Source, jain, run

TARGET_S = 0.1
SERVER = Server()
"""A server for about 1000 requests/s. At the target latency 100 are in flight; `concurrency_max` is four times that."""
SETTLED_S = 5.0


def shedder() -> Shedder:
    return Shedder(TARGET_S, concurrency_max=400)


def by_default() -> Shedder:
    fields = Settings.model_fields
    return Shedder(fields["latency_target_ms"].default / 1000, fields["concurrency_max"].default)


def mix(times: float, server: Server = SERVER) -> list[Source]:
    return [Source(api_class, times * server.capacity() / len(RANKS)) for api_class in RANKS]


def p99(accounts: list[Account]) -> float:
    seconds = sorted(s for account in accounts for s in account.seconds)
    return seconds[int(0.99 * len(seconds))]


def success(accounts: list[Account]) -> float:
    return 1 - sum(sum(account.shed.values()) for account in accounts) / sum(account.offered for account in accounts)


def goodput(accounts: list[Account], seconds: float) -> float:
    return sum(len(account.seconds) for account in accounts) / seconds / SERVER.capacity()


# --- Checks -----------------------------------------------------------------------------------------------------------


def twice_the_load_is_borne() -> None:
    sources = mix(2.0)
    accounts = run(shedder(), SERVER, sources, until=30.0)
    critical = [a for a, s in zip(accounts, sources, strict=True) if s.api_class in CRITICAL]
    lowest = [a for a, s in zip(accounts, sources, strict=True) if s.api_class is ApiClass.BATCH]
    assert success(critical) >= 0.999
    assert goodput(accounts, 30.0) >= 0.9
    assert success(lowest) < 0.2
    settled = run(shedder(), SERVER, sources, until=30.0, since=SETTLED_S)
    critical = [a for a, s in zip(settled, sources, strict=True) if s.api_class in CRITICAL]
    assert p99(critical) <= 1.5 * TARGET_S


def five_times_the_load_is_borne() -> None:
    """Send five times the load. A third of it is critical, which alone exceeds the capacity.

    Require a minimum throughput and a maximum latency.
    """
    accounts = run(shedder(), SERVER, mix(5.0), until=20.0, since=SETTLED_S)
    assert goodput(accounts, 20.0 - SETTLED_S) >= 0.8
    assert p99(accounts) <= 1.5 * TARGET_S


def a_flood_of_critical_requests_is_shed_too() -> None:
    accounts = run(shedder(), SERVER, [Source(ApiClass.REFUND, 5 * SERVER.capacity())], until=15.0, since=SETTLED_S)
    assert goodput(accounts, 15.0 - SETTLED_S) >= 0.8
    assert p99(accounts) <= 1.5 * TARGET_S


def one_merchant_takes_nothing_from_the_others(each: float, times: float) -> None:
    sources = [Source(ApiClass.PAYMENT, each * SERVER.capacity(), f"m{n}") for n in range(99)]
    sources.append(Source(ApiClass.PAYMENT, times * each * SERVER.capacity(), "flood"))
    accounts = run(shedder(), SERVER, sources, until=20.0, since=SETTLED_S)
    assert success(accounts[:99]) >= 0.999
    assert jain([len(account.seconds) / account.offered for account in accounts[:99]]) >= 0.95
    assert len(accounts[99].seconds) > len(accounts[0].seconds)  # the unused shares of the others are lent


def equal_merchants_get_the_same() -> None:
    sources = [Source(ApiClass.PAYMENT, 0.02 * SERVER.capacity(), f"m{n}") for n in range(100)]
    accounts = run(shedder(), SERVER, sources, until=20.0, since=SETTLED_S)
    assert jain([len(account.seconds) for account in accounts]) >= 0.95
    assert goodput(accounts, 20.0 - SETTLED_S) >= 0.9


def watched(
    sources: list[Source], until: float, server: Server = SERVER, load: Callable[[float], float] = lambda _: 1.0
) -> list[tuple[float, int, dict[str, int]]]:
    """Return (now, level, limits) once a second. The level changes at most once a second."""
    tried = shedder()
    log: list[tuple[float, int, dict[str, int]]] = []

    def note(now: float) -> None:
        if not log or now - log[-1][0] > 0.95:
            counted = tried.counted()
            log.append((now, counted.level, counted.limit))

    run(tried, server, sources, until, load=load, each_tick=note)
    return log


PART = [Source(ApiClass.PAYMENT, 500), Source(ApiClass.QUERY, 50), Source(ApiClass.REFUND, 50)]


def a_slow_database_is_felt_and_forgotten() -> None:
    """Add 50 ms to each commit, from 10 s to 15 s."""
    log = watched(PART, 25.0, Server(slow=lambda now: 0.05 if 10 <= now < 15 else 0.0))
    before = next(limit["payment"] for now, _, limit in log if now >= 9)
    assert min(limit["payment"] for now, _, limit in log if 10 < now <= 12) <= 0.75 * before
    assert all(limit["payment"] >= 0.9 * before for now, _, limit in log if now >= 23.5)


def a_database_that_stays_slow_is_used_nevertheless() -> None:
    """Add 100 ms to each commit from 5 s on. There is no queue, so a lower limit would not make answers faster."""
    sources = [Source(ApiClass.PAYMENT, 400), Source(ApiClass.REFUND, 50)]
    accounts = run(shedder(), Server(slow=lambda now: 0.1 if now >= 5 else 0.0), sources, until=50.0, since=35.0)
    assert accounts[0].success() >= 0.8


def a_class_that_takes_long_by_nature_is_no_overload(own_s: float) -> None:
    sources = [Source(ApiClass.PAYMENT, 500), Source(ApiClass.LIST, 5, own_s=own_s)]
    accounts = run(shedder(), SERVER, sources, until=60.0, since=40.0)
    assert accounts[0].success() >= 0.999
    assert accounts[1].success() >= 0.9


def the_level_keeps_still(times: float) -> None:
    log = watched(mix(times), 80.0)
    changed = [
        now for (now, level, _), (_, before, _) in zip(log[1:], log, strict=False) if level != before and now > 15
    ]
    assert all(sum(at <= other < at + 60 for other in changed) <= 2 for at in changed)


def the_limit_keeps_still() -> None:
    """Run a sustainable load for an hour."""
    sources = [Source(ApiClass.PAYMENT, 10), Source(ApiClass.REFUND, 2)]
    seen = [limit["payment"] for now, _, limit in watched(sources, 3600.0) if now > 60]
    assert min(seen) >= 0.9 * seen[0]
    assert max(seen) <= 1.1 * seen[0]


def throughput_keeps_still_with_too_much_to_do() -> None:
    """Require the same throughput in each half minute of three minutes."""
    sources = [Source(ApiClass.PAYMENT, 1.2 * SERVER.capacity())]
    halves = [0] * 6
    seen = run(shedder(), SERVER, sources, until=180.0)[0]
    for ended_at in seen.ended_at:
        halves[int(ended_at // 30)] += 1
    assert min(halves) >= 0.9 * max(halves) >= 0.9 * 0.9 * 30 * SERVER.capacity()


def a_fifth_is_left_to_critical_classes() -> None:
    """Require a fifth of the throughput for critical classes, however far other limits have been raised."""
    tried = shedder()
    others = [c for c in ApiClass if c not in CRITICAL]
    for n in range(100):
        for api_class in others:
            let_in = [api_class for _ in range(400) if tried.enter(api_class, None, n / 10) is None]
            for entered in let_in:
                tried.leave(entered, None, 0.001)
        tried.tick(n / 10, 0.0)
    inside = sum(tried.enter(c, None, 10.0) is None for c in others for _ in range(400))
    assert inside == 320
    assert [tried.enter(ApiClass.REFUND, None, 10.0) for _ in range(80)] == [None] * 80
    assert tried.enter(ApiClass.REFUND, None, 10.0) == "fleet"


QUICK = Server(each_s=0.0001)
"""A server for about 7700 requests/s. It completes more within the target than the default limit of a worker."""
READS = [Source(ApiClass.QUERY, 450, own_s=0.02)]
EVEN = [Source(api_class, 500 / len(RANKS)) for api_class in RANKS]


def twice_the_load_is_borne_by_default(server: Server) -> None:
    sources = mix(2.0, server)
    accounts = run(by_default(), server, sources, until=30.0)
    critical = [a for a, s in zip(accounts, sources, strict=True) if s.api_class in CRITICAL]
    assert success(critical) >= 0.999
    assert sum(len(account.seconds) for account in accounts) / 30.0 >= 0.9 * server.capacity()


def a_burst_is_let_in_by_default() -> None:
    """Once a second, send 300 requests concurrently to an idle worker that answers in batches of 100."""
    for api_class in ApiClass:
        tried = by_default()
        for n in range(200):
            if n % 10 == 0:
                assert [tried.enter(api_class, f"m{k % 3}", n / 10) for k in range(300)] == [None] * 300
                for k in range(300):
                    tried.leave(api_class, f"m{k % 3}", (k // 100 + 1) * (QUICK.commit_s + 100 * QUICK.each_s))
            tried.tick(n / 10, 0.0)


def a_pause_of_the_database_is_no_overload_by_default(server: Server, sources: list[Source]) -> None:
    """Pause the database for 800 ms every ten seconds."""
    slow = Server(server.commit_s, server.each_s, slow=lambda now: 0.8 if 5.0 <= now % 10 < 5.05 else 0.0)
    accounts = run(by_default(), slow, sources, until=40.0)
    assert max(max(account.seconds) for account in accounts) > 0.7
    assert success(accounts) == 1.0


def who_hangs_costs_the_others_nothing(api_class: ApiClass, count: int, sources: list[Source]) -> None:
    """Let some requests hang from 1 s to 61 s, because their clients do not send the rest. Other waits stay short."""
    tried = by_default()
    levels = set()
    turns = [1.0, 61.0]

    def note(now: float) -> None:
        if turns and now >= turns[0]:
            if turns.pop(0) == 1.0:
                assert {tried.enter(api_class, None, now) for _ in range(count)} == {None}
            else:
                for _ in range(count):
                    tried.leave(api_class, None, 60.0)
        levels.add(tried.level)

    accounts = run(tried, QUICK, sources, until=70.0, each_tick=note)
    assert success(accounts) >= 0.999
    assert levels == {0}


CHECKS: dict[str, Callable[[], None]] = {
    "twice": twice_the_load_is_borne,
    "five times": five_times_the_load_is_borne,
    "critical flood": a_flood_of_critical_requests_is_shed_too,
    "ten shares": lambda: one_merchant_takes_nothing_from_the_others(0.0085, 10),
    "thirty shares": lambda: one_merchant_takes_nothing_from_the_others(0.0085, 30),
    "equal": equal_merchants_get_the_same,
    "slow for a while": a_slow_database_is_felt_and_forgotten,
    "slow for good": a_database_that_stays_slow_is_used_nevertheless,
    "slow by nature": lambda: a_class_that_takes_long_by_nature_is_no_overload(0.4),
    "slower by nature": lambda: a_class_that_takes_long_by_nature_is_no_overload(2.0),
    "level at twice": lambda: the_level_keeps_still(2.0),
    "level at four times": lambda: the_level_keeps_still(4.0),
    "drift": the_limit_keeps_still,
    "three minutes": throughput_keeps_still_with_too_much_to_do,
    "a fifth": a_fifth_is_left_to_critical_classes,
    "twice by default": lambda: twice_the_load_is_borne_by_default(SERVER),
    "twice by default, quick": lambda: twice_the_load_is_borne_by_default(QUICK),
    "burst": a_burst_is_let_in_by_default,
    "pause": lambda: a_pause_of_the_database_is_no_overload_by_default(QUICK, EVEN),
    "pause, payments": lambda: a_pause_of_the_database_is_no_overload_by_default(
        SERVER, [Source(ApiClass.PAYMENT, 500)]
    ),
    "one hangs": lambda: who_hangs_costs_the_others_nothing(ApiClass.REFUND, 1, [*READS, Source(ApiClass.PAYMENT, 50)]),
    "one hangs, reads": lambda: who_hangs_costs_the_others_nothing(ApiClass.REFUND, 1, READS),
    "many hang": lambda: who_hangs_costs_the_others_nothing(ApiClass.REFUND, 50, READS),
}


@pytest.mark.parametrize("name", CHECKS)
def test_a_worker_with_too_much_to_do(name: str) -> None:
    CHECKS[name]()


# --- Broken twins -----------------------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def one_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    of_all = [0.0]

    class Shared(concurrency.ConcurrencyLimiter):
        __slots__ = ()

        @property
        def _baseline_s(self) -> float:
            return of_all[0]

        @_baseline_s.setter
        def _baseline_s(self, seconds: float) -> None:
            of_all[0] = seconds

    monkeypatch.setattr(shedding, "ConcurrencyLimiter", Shared)


def no_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "learn", lambda self, part: None)


def baseline_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the baseline follow the latency as a long-term average, so that overload becomes normal."""
    close = concurrency.ConcurrencyLimiter.close

    def followed(
        self: concurrency.ConcurrencyLimiter, silent_s: float, elapsed_s: float, lag_s: float, target_s: float
    ) -> None:
        close(self, silent_s, elapsed_s, lag_s, target_s)
        self.learn(1.0)

    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "close", followed)


def nothing_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "ROOM", [1.0] * (LOWEST + 1))


def no_fairness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shares, "is_spent", lambda *_: False)


def nothing_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit every merchant to the minimum share, also if capacity is free."""
    monkeypatch.setattr("fundledger.ratelimit.shedding.fairness.LENT", 0.0)
    monkeypatch.setattr(Shares, "is_spent", lambda self, merchant, _: self._held.get(merchant, 0) >= 1)


def all_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Shedder, hurt: int, payer: int, over: list[concurrency.ConcurrencyLimiter]) -> None:
        for limiter in over:
            limiter.cut(limiter.excess())

    monkeypatch.setattr(Shedder, "_make_room", cut)


def critical_never_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    payer = Shedder._payer
    monkeypatch.setattr(Shedder, "_payer", lambda self, *seen: payer(self, *seen) or LOWEST + 1)


def never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "cut", lambda self, excess: 0.0)


def never_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "grow", lambda self: None)


def restored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat every latency below the target as calm, and reopen a class with its initial limit."""
    monkeypatch.setattr(door, "LOWER_S", 0.5)
    monkeypatch.setattr(door, "RELAPSE_S", 0.0)
    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "reopen", lambda self: self._set(200))
    monkeypatch.setattr(concurrency.ConcurrencyLimiter, "is_calm", lambda self: not self.is_over())


def who_hangs_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the wait of the oldest request as the latency, also if no other requests wait."""

    def window(self: concurrency.Silence, now: float, _: float) -> float:
        if any(limiter.answered() for limiter in self._limiters) or not any(
            limiter.in_flight for limiter in self._limiters
        ):
            self._since = now
        return now - self._since

    monkeypatch.setattr(concurrency.Silence, "window", window)


def paid_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Throttle critical classes while earlier requests still occupy the server."""
    monkeypatch.setattr(shedding, "HELPLESS_LATENCIES", 0)


TWINS: list[tuple[Break, str]] = [
    (one_baseline, "slow by nature"),
    (no_baseline, "slow for good"),
    (baseline_follows, "five times"),
    (nothing_reserved, "a fifth"),
    (nothing_reserved, "twice by default, quick"),
    (who_hangs_is_believed, "many hang"),
    (paid_at_once, "twice by default"),
    (no_fairness, "thirty shares"),
    (nothing_lent, "ten shares"),
    (all_pay, "twice"),
    (critical_never_pay, "critical flood"),
    (never_cut, "twice"),
    (never_grown, "slow for a while"),
    (restored_at_once, "level at four times"),
]


@pytest.mark.parametrize(("twin", "name"), TWINS)
def test_a_broken_twin_is_noticed(twin: Break, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    twin(monkeypatch)
    with pytest.raises(AssertionError):
        CHECKS[name]()
