"""The rate limiter while the store answers too late, and for requests that cost more than a lease."""

import random

import pytest

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import LOCAL_SHOWN_S, Limiter
from fundledger.ratelimit.quota.matched import Denied, Pending
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import Late, StoreAway
from fundledger.ratelimit.stats import Limits
from tests.ratelimit.test_limiter import START_S, Fleet, Near, World, a_policy, at_once

MERCHANTS = 2_000
TICK_S = 0.005
A_TICK = 50
"""Number of payments in one tick, twice the number that the store can answer."""


class Busy(Near):
    """The store of a worker with a busy event loop: after a tick with more than 25 calls, all replies are late."""

    def __init__(self, world: World) -> None:
        super().__init__(world, 2)
        self.asked = 0
        self.stuck = self.busy = True

    async def decide(
        self, keys: list[str], numbers: list[int], late: Late, deadline_s: float | None = None
    ) -> list[int]:
        self.asked += 1
        if self.stuck or self.busy:
            late(None)
            raise StoreAway("no answer in time")
        return await super().decide(keys, numbers, late, deadline_s)


class Loaded:
    """A worker with payments of many merchants, each far below its quota."""

    def __init__(self) -> None:
        self.world = World()
        self.store = Busy(self.world)
        text = 'version = 1\n[[policy]]\nname = "m"\nkey = "merchant"\nrate = 1000\nburst = 1000\n'
        self.limiter = Limiter(parse(text), self.store, Limits(), clock=lambda: self.world.now)  # type: ignore[arg-type]
        self.pick = random.Random(7)

    def ticks(self, seconds: float) -> None:
        until = self.world.now + seconds
        while self.world.now < until:
            self.world.now += TICK_S
            self.store.busy = self.store.asked > 25
            self.store.asked = 0
            for _ in range(A_TICK):
                self.pays(f"m:{self.pick.randrange(MERCHANTS)}")
            at_once(self.limiter.settle())

    def pays(self, merchant: str) -> None:
        matched = self.limiter.match("c", ApiClass.PAYMENT, merchant, None)
        verdict = self.limiter.admit(matched, 1, self.world.now)
        if isinstance(verdict, Pending):
            verdict = at_once(self.limiter.ask(matched, 1, self.world.now))
        assert not isinstance(verdict, Denied), "a merchant far below its quota"

    def local(self) -> int:
        decided = self.limiter.counted().decisions
        return sum(count for key, count in decided.items() if key.endswith("fallback"))

    def after_a_list(self) -> None:
        """Bring all buckets into the state after a large list: local quota, and no overdraft tokens."""
        self.ticks(0.1)
        for number in range(MERCHANTS):
            bucket = self.limiter.match("c", ApiClass.PAYMENT, f"m:{number}", None).buckets[0]
            bucket.on_credit = False


def test_after_a_time_of_late_answers_the_limiter_is_back_within_seconds() -> None:
    load = Loaded()
    load.after_a_list()
    load.store.stuck = False
    load.ticks(3.0)
    before = load.local()
    load.ticks(1.0)
    assert load.local() - before < A_TICK, "decided by local quota still"
    assert load.limiter.counted().mode == "normal"


def test_the_mode_says_that_local_quota_decides() -> None:
    load = Loaded()
    assert load.limiter.counted().mode == "normal"
    load.after_a_list()
    load.ticks(0.1)
    assert load.limiter.counted().mode == "local"
    load.world.now += LOCAL_SHOWN_S + 0.2
    assert load.limiter.counted().mode == "normal"


def test_what_is_strict_or_administration_is_asked_for_whatever_came_too_late() -> None:
    load = Loaded()
    load.after_a_list()
    strict = Limiter(parse(a_policy(1, 2)), Near(load.world, 2), Limits(), clock=lambda: load.world.now)  # type: ignore[arg-type]
    strict._local_until = load.world.now + 1
    matched = strict.match("c", ApiClass.PAYMENT, None, None)
    assert isinstance(strict.admit(matched, 1, load.world.now), Pending)
    leased = Limiter(parse(a_policy(1000, 1000)), Near(load.world, 2), Limits(), clock=lambda: load.world.now)  # type: ignore[arg-type]
    leased._local_until = load.world.now + 1
    matched = leased.match("c", ApiClass.ADMIN, None, None)
    matched.buckets[0].on_credit = False
    assert isinstance(leased.admit(matched, 1, load.world.now), Pending)


def test_a_request_beyond_the_local_quota_waits_for_the_store_while_that_lives() -> None:
    load = Loaded()
    matched = load.limiter.match("c", ApiClass.PAYMENT, "m:1", None)
    bucket = matched.buckets[0]
    bucket.on_credit = False
    assert isinstance(load.limiter.admit(matched, 600, load.world.now), Pending)
    load.store.stuck = True
    assert at_once(load.limiter.ask(matched, 500, load.world.now)) is None, "of the local quota"
    load.store.stuck = load.store.busy = False
    bucket.on_credit = False
    assert at_once(load.limiter.ask(matched, 400, load.world.now)) is None, "of the store"


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("burst", [1_000, 1_500, 2_000, 5_000, 100_000])
@pytest.mark.parametrize("lists_per_s", [33, 90])
def test_lists_below_the_quota_are_never_denied_for_leases_that_other_workers_hold(
    workers: int, burst: int, lists_per_s: int
) -> None:
    fleet = Fleet(a_policy(100_000, burst), workers)
    pick = random.Random(1)
    times = [START_S + n / lists_per_s for n in range(1, 10 * lists_per_s)]
    denied = 0
    for now in times:
        fleet.go_to(now)
        denied += not fleet.asks(pick.randrange(workers), 1_000)
    assert denied == 0


def test_a_bucket_that_is_full_gets_no_more_and_any_other_gets_more_within_a_token() -> None:
    fleet = Fleet(a_policy(0.1, 3), 1)
    limiter = fleet.workers[0]
    matched = limiter.match("c", ApiClass.PAYMENT, None, None)
    headers = [matched.current(fleet.world.now)["RateLimit"]]
    for _ in range(3):
        assert fleet.asks(0)
        headers.append(matched.current(fleet.world.now)["RateLimit"])
    assert headers == [f'"p";r={r};t={t}' for r, t in ((3, 0), (2, 10), (1, 10), (0, 10))]
    refused = matched.refused(fleet.world.now, 12, matched.buckets[0].policy, 1)
    assert refused is not None
    assert refused.headers["RateLimit"] == headers[-1], "one meaning, also of a refusal"
    sooner = matched.refused(fleet.world.now, 4, matched.buckets[0].policy, 1)
    assert sooner is not None
    assert sooner.headers["RateLimit"].endswith(";t=4"), "never later than Retry-After"
