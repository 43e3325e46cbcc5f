"""The rate limiter with several workers, leases and overdraft tokens, on a clock of the test."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from itertools import accumulate
from typing import Any

import pytest
import redis.asyncio

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.gcra import Ask, Rate, State, decide
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.matched import MatchedPolicies, Pending
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import Breaker, Late, Store, StoreAway
from fundledger.ratelimit.stats import Limits

TRACES = 400
START_S = 1_000.0
LONG_AGO_US = -(1 << 60)


def a_policy(rate: float, burst: int, more: str = "") -> str:
    return f'version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nrate = {rate}\nburst = {burst}\n{more}\n'


class World:
    """The state that all workers share: the time, and the buckets of the store, decided by `gcra.decide`."""

    def __init__(self) -> None:
        self.now = START_S
        self.states: dict[str, State | None] = {}
        self.asked = 0
        self.granted: dict[str, int] = {}

    def decide(self, keys: list[str], numbers: list[int]) -> list[int]:
        asks = []
        for at in range(0, len(numbers), 8):
            tokens, period_us, burst, ceiling, debt, least, most, shadow = numbers[at : at + 8]
            asks.append(Ask(Rate(tokens, period_us, burst, ceiling), debt, least, most, bool(shadow)))
        self.asked += 1
        now_us = int(self.now * 1e6)
        ok, grants, written = decide(asks, [self.states.get(key) for key in keys], LONG_AGO_US, LONG_AGO_US, now_us)
        for key, state in zip(keys, written, strict=True):
            self.states[key] = state or self.states.get(key)
        reply = [int(ok)]
        for key, ask, grant in zip(keys, asks, grants, strict=True):
            self.granted[key] = self.granted.get(key, 0) + grant.granted + ask.debt
            reply += [grant.granted, grant.remaining, grant.retry_us, grant.reset_us]
        return reply


class Near:
    """A store that answers immediately, or is unavailable."""

    def __init__(self, world: World, workers: int) -> None:
        self._world = world
        self.workers = workers
        self.breaker = Breaker()
        self.outages = 0
        self.away_since: float | None = None

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def decide(
        self, keys: list[str], numbers: list[int], late: Late, deadline_s: float | None = None
    ) -> list[int]:
        if self.breaker.open:
            late(None)
            raise StoreAway("away")
        return self._world.decide(keys, numbers)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not wait."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


class Fleet:
    """Several workers. Each settles every 5 ms, and immediately if a lease runs out."""

    def __init__(self, text: str, count: int, kind: type[Limiter] = Limiter) -> None:
        self.world = World()
        policies = parse(text)
        self.policy = policies.all()[0]
        self.workers = [
            kind(policies, Near(self.world, count), Limits(), clock=lambda: self.world.now)  # type: ignore[arg-type]
            for _ in range(count)
        ]
        self._settled = START_S

    def go_to(self, now: float) -> None:
        while self._settled + 0.005 <= now:
            self._settled += 0.005
            self.world.now = max(self.world.now, self._settled)
            for worker in self.workers:
                at_once(worker.settle())
        self.world.now = now

    def asks(self, worker: int, cost: int = 1, caller: str = "c") -> bool:
        limiter = self.workers[worker]
        matched = limiter.match(caller, ApiClass.PAYMENT, None, None)
        verdict = limiter.admit(matched, cost, self.world.now)
        if isinstance(verdict, Pending):
            verdict = at_once(limiter.ask(matched, cost, self.world.now))
        return verdict is None


def worst_excess(fleet: Fleet, let_in: list[float], count: int) -> float:
    """Return the maximum excess of a window W over floor(r W) + b + N B, in tokens. It is at most 0 if the bound holds.

    A window from the i-th to the j-th admission has j - i + 1 admissions, so one pass finds the maximum.
    """
    rate = fleet.policy.rate
    allowed = rate.burst + count * fleet.policy.leased(count)
    worst, lowest = -allowed * rate.period_us, 0
    for i, now in enumerate(let_in):
        at = round((now - START_S) * 1e6) * rate.tokens
        lowest = min(lowest, i * rate.period_us - at) if i else -at
        worst = max(worst, (i + 1 - allowed) * rate.period_us - at - lowest)
    return worst / rate.period_us


def a_run(pick: random.Random, kind: type[Limiter] = Limiter) -> tuple[Fleet, list[float], int]:
    rate, burst = pick.choice(((1000.0, 200), (300.0, 100), (50.0, 400), (2000.0, 20)))
    count = pick.randint(1, 4)
    fleet = Fleet(a_policy(rate, burst), count, kind)
    let_in: list[float] = []
    # Each hundred requests are a flood, traffic at about the rate, or nearly a pause.
    pace = [pick.choice((0.0, 0.2, 0.2, 2.0, 10.0)) / rate for _ in range(8)]
    gaps = (pace[i // 100] * pick.random() for i in range(800))
    for at in accumulate(gaps, initial=START_S):
        now = round(at, 6)
        fleet.go_to(now)
        if fleet.asks(pick.randrange(count)):
            let_in.append(now)
    return fleet, let_in, count


def test_no_window_holds_more_than_rate_burst_and_what_workers_may_hold() -> None:
    pick = random.Random(7)
    saturated = 0
    for i in range(TRACES):
        fleet, let_in, count = a_run(pick)
        worst = worst_excess(fleet, let_in, count)
        assert worst <= 0, i
        saturated += worst > -2 * count * fleet.policy.leased(count)
    assert saturated > TRACES / 4, "the traces never come near the bound"


class Generous(Limiter):
    """A broken twin: takes a lease without a call to the store."""

    async def settle(self) -> None:
        await super().settle()
        for bucket in self._buckets.all():
            bucket.granted(max(0, bucket.hold - bucket.tokens), self._clock())


def test_the_bound_is_seen_to_break_when_leases_are_not_deducted() -> None:
    pick = random.Random(7)
    runs = (a_run(pick, Generous) for _ in range(40))
    assert any(worst_excess(fleet, let_in, count) > 0 for fleet, let_in, count in runs)


@pytest.mark.parametrize(
    ("rate", "burst", "seconds"),
    [
        (0.7, 2, 60),
        (1.5, 2, 60),
        (1.9, 3, 60),
        (10.5, 5, 60),
        (100, 20, 60),
        (1000, 200, 10),
        (8000, 800, 4),
        (50_000, 5000, 1),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_who_offers_a_fifth_more_gets_98_percent_of_the_rate(rate: float, burst: int, seconds: int, count: int) -> None:
    fleet = Fleet(a_policy(rate, burst), count)
    pick = random.Random(3)
    offered = int(rate * 1.2 * seconds)
    let_in = 0
    for i in range(offered):
        fleet.go_to(START_S + i / (rate * 1.2))
        let_in += fleet.asks(pick.randrange(count))
    assert let_in >= 0.98 * rate * seconds
    assert let_in <= rate * seconds + burst + count * fleet.policy.leased(count) + 1


def test_a_flood_asks_the_store_rarely_and_a_refusal_that_is_remembered_never() -> None:
    fleet = Fleet(a_policy(1000, 200), 4)
    let_in = 0
    for i in range(10_000):
        fleet.go_to(START_S + i / 1000)
        let_in += fleet.asks(i % 4)
    assert let_in == 10_000, "what stays at the rate is let in"
    assert fleet.world.asked <= 0.5 * let_in
    strict = Fleet(a_policy(1, 1, 'mode = "strict"'), 1)
    assert strict.asks(0)
    assert not strict.asks(0)
    asked = strict.world.asked
    assert not any(strict.asks(0) for _ in range(1000))
    assert strict.world.asked == asked


def test_tokens_that_are_not_spent_go_back() -> None:
    fleet = Fleet(a_policy(1000, 1000), 2)
    for i in range(2_000):
        fleet.go_to(START_S + i / 4000)
        fleet.asks(0)
    fleet.go_to(fleet.world.now + 3)
    counts = fleet.workers[0].counted()
    assert counts.lease_tokens["p granted"] > 0
    left, reset_us = at_once(fleet.workers[0].peek(fleet.workers[0].match("c", ApiClass.PAYMENT, None, None)))[0]
    assert (left, reset_us) == (1000, 0)


def test_an_idle_worker_does_not_withhold_tokens_from_a_busy_one() -> None:
    fleet = Fleet(a_policy(100, 100), 2)
    assert sum(fleet.asks(1) for _ in range(50)) == 50
    fleet.go_to(START_S + 1)
    got = 0
    for i in range(2_000):
        fleet.go_to(START_S + 1 + i / 200)
        got += fleet.asks(0)
    assert got >= 0.98 * 10 * 100


def test_a_repeat_costs_nothing() -> None:
    for more in ('mode = "strict"', ""):
        fleet = Fleet(a_policy(100, 100, more), 1)
        limiter = fleet.workers[0]
        matched = limiter.match("c", ApiClass.PAYMENT, None, None)
        for i in range(1000):
            fleet.go_to(START_S + i / 1000)
            assert fleet.asks(0)
            limiter.give_back(matched, 1)
        fleet.go_to(fleet.world.now + 0.5)
        left, _ = at_once(limiter.peek(matched))[0]
        assert left == 100


def test_shadow_refuses_no_request_and_counts_exactly_those_that_it_would_have_refused() -> None:
    times = [START_S + at for at in accumulate(random.Random(5).expovariate(300) for _ in range(2_000))]

    def run(more: str) -> tuple[int, Limits]:
        fleet = Fleet(a_policy(100, 10, f'mode = "strict"\n{more}'), 1)
        let_in = 0
        for now in times:
            fleet.go_to(now)
            let_in += fleet.asks(0)
        return let_in, fleet.workers[0].counted()

    enforced, _ = run("")
    shadowed, counts = run("shadow = true")
    assert shadowed == len(times)
    would_refuse = sum(n for key, n in counts.decisions.items() if "shadow_deny" in key)
    assert would_refuse == len(times) - enforced


def test_decisions_are_counted_once_for_each_request() -> None:
    fleet = Fleet(a_policy(100, 50), 3)
    for i in range(3_000):
        fleet.go_to(START_S + i / 500)
        fleet.asks(i % 3)
    total = sum(sum(worker.counted().decisions.values()) for worker in fleet.workers)
    assert total == 3_000


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("more", ['mode = "strict"', "", "shadow = true"])
@pytest.mark.parametrize("offered", [0.5, 20.0])
def test_utilization_is_demand_with_what_was_refused(more: str, offered: float, away: bool) -> None:
    rate = 20.0
    fleet = Fleet(a_policy(rate, 20, more), 1)
    limiter = fleet.workers[0]
    limiter.store.breaker.open = away
    # Only complete windows of 10 s are reported. The first one also has the burst.
    for i in range(int(25 * rate * offered)):
        fleet.go_to(START_S + i / (rate * offered))
        fleet.asks(0)
    (busiest,) = limiter.counted().utilization.values()
    (ratio,) = busiest.values()
    assert set(busiest) == {"c"}
    assert ratio == pytest.approx(offered, rel=0.15)


def test_a_changed_limit_counts_for_what_is_held_already() -> None:
    fleet = Fleet(a_policy(100, 10), 2)
    assert sum(fleet.asks(0) for _ in range(100)) <= 10 + 2 * fleet.policy.leased(2)
    for worker in fleet.workers:
        worker.replace(parse(a_policy(100, 1000)))
    assert sum(fleet.asks(0) for _ in range(500)) == 500


def test_while_the_store_is_away_the_shares_of_all_workers_are_the_limit() -> None:
    count = 4
    fleet = Fleet(a_policy(400, 40), count)
    for worker in fleet.workers:
        worker.store.breaker.open = True
    let_in = 0
    for i in range(8_000):
        fleet.go_to(START_S + i / 800)
        let_in += fleet.asks(i % count)
    assert 0.8 * 400 * 10 <= let_in <= 400 * 10 + 40 + count


def test_many_keys_stay_in_bounded_memory_and_none_that_owes_is_forgotten() -> None:
    fleet = Fleet(a_policy(100, 1000), 1)
    limiter = fleet.workers[0]
    for i in range(200_000):
        if i % 1000 == 0:
            fleet.go_to(START_S + i / 100_000)
        fleet.asks(0, caller=f"c{i}")
    assert len(limiter._buckets) <= 4 * (1 << 15)
    fleet.go_to(fleet.world.now + 0.01)
    charged = sum(1 for state in fleet.world.states.values() if state is not None)
    assert charged == 200_000, "each was charged"


@contextlib.asynccontextmanager
async def a_worker(url: str, text: str, name: str, workers: int) -> AsyncIterator[Limiter]:
    # A long deadline, because this test is not about deadlines.
    store = Store(url, name, Limits(), workers, deadline_s=10.0)
    limiter = Limiter(parse(text), store, Limits())
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(limiter.run())]
    try:
        yield limiter
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_of_2000_concurrent_requests_on_four_workers_exactly_100_pass_a_strict_100(valkey: str) -> None:
    client = redis.asyncio.Redis.from_url(valkey)
    text = a_policy(1 / 3600, 100, 'mode = "strict"').replace("0.0002777777777777778", '"1/h"')
    try:
        for _ in range(5):
            await client.flushall()
            await client.set("{fundledger}:since", 0)
            async with contextlib.AsyncExitStack() as stack:
                workers = [await stack.enter_async_context(a_worker(valkey, text, f"w{i}", 4)) for i in range(4)]
                matches: list[tuple[Limiter, MatchedPolicies]] = [
                    (w, w.match("c", ApiClass.PAYMENT, None, None)) for w in workers
                ]
                asked = [matches[i % 4] for i in range(2_000)]
                verdicts = await asyncio.gather(*(w.ask(c, 1, asyncio.get_running_loop().time()) for w, c in asked))
                assert not any("fallback" in key for w in workers for key in w.counted().decisions)
            assert sum(verdict is None for verdict in verdicts) == 100
    finally:
        await client.aclose()


def accounts_text() -> str:
    return 'version = 1\n[[policy]]\nname = "p"\nkey = "account"\nrate = "1/d"\nburst = 2\nmode = "strict"\n'


def a_batch(fleet: Fleet, count: int) -> tuple[MatchedPolicies, list[tuple[Any, int]]]:
    limiter = fleet.workers[0]
    matches = [limiter.match("c", ApiClass.WITHDRAW, None, f"a{i}") for i in range(count)]
    return matches[0], [(matched.buckets[0], 1) for matched in matches]


def test_a_batch_over_many_accounts_asks_in_parts_and_is_charged_all_or_none() -> None:
    fleet = Fleet(accounts_text(), 1)
    limiter = fleet.workers[0]
    matched, charges = a_batch(fleet, 300)
    asked = fleet.world.asked
    assert at_once(limiter.ask(matched, 300, fleet.world.now, charges)) is None
    assert fleet.world.asked - asked == 5
    # The last account has one token left: the second batch is admitted. The third is rejected and charges no account.
    assert at_once(limiter.ask(matched, 300, fleet.world.now, charges[-1:])) is None
    assert at_once(limiter.ask(matched, 300, fleet.world.now, charges)) is not None
    fleet.go_to(fleet.world.now + 0.1)
    assert [
        at_once(limiter.peek(limiter.match("c", ApiClass.WITHDRAW, None, f"a{i}")))[0][0] for i in (0, 298, 299)
    ] == [
        1,
        1,
        0,
    ]


def test_what_was_spent_on_shares_is_charged_once_when_the_store_is_back() -> None:
    fleet = Fleet(accounts_text().replace("burst = 2", "burst = 10"), 1)
    limiter = fleet.workers[0]
    matched, charges = a_batch(fleet, 1)
    for _ in range(5):
        assert at_once(limiter.ask(matched, 1, fleet.world.now, charges)) is None
    limiter.store.breaker.open = True
    limiter.store.outages += 1
    for _ in range(2):
        assert at_once(limiter.ask(matched, 1, fleet.world.now, charges)) is None
    limiter.store.breaker.open = False
    assert at_once(limiter.ask(matched, 1, fleet.world.now, charges)) is None
    fleet.go_to(fleet.world.now + 0.1)
    assert at_once(limiter.peek(matched))[0][0] == 2
