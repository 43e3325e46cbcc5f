"""The client of the store, against a real Valkey that is flushed, paused, killed, full, or missing.

Tests that are not about deadlines use long deadlines, so that they also pass on a slow machine.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota import store as store_module
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.matched import Denied
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import SINCE, Breaker, Call, Store, StoreAway
from fundledger.ratelimit.stats import Limits
from tests.support.valkey import OwnValkey
from tests.support.waiting import eventually

DAY_US = 86_400_000_000
CANCELLATIONS = 10_000


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store.__init__, "__defaults__", (20.0,))


@asynccontextmanager
async def running(url: str, workers: int = 1) -> AsyncIterator[Store]:
    store = Store(url, f"worker-{random.getrandbits(32)}", Limits(), workers)
    task = asyncio.create_task(store.run())
    try:
        yield store
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(url, decode_responses=True) as redis:
        yield redis


async def emptied(url: str) -> None:
    async with asking(url) as redis:
        await redis.flushall()


async def remembers_from_the_start(url: str) -> None:
    """Wait until the first worker has initialised the store, so that buckets start full."""
    async with asking(url) as redis:

        async def said() -> bool:
            return await redis.get(SINCE) == "0"

        await eventually(said, "the first worker's word")


async def take(store: Store, key: str, burst: int, least: int = 1, most: int = 1) -> tuple[int, int]:
    """Request tokens of a bucket that refills by one token a day. Return `(granted, remaining)`."""
    reply = await store.decide([key], [1, DAY_US // 100, burst, 2 * burst, 0, least, most, 0], lambda _: None)
    return reply[1], reply[2]


async def refused(store: Store) -> None:
    """Send requests until the store counts as unavailable; each of them raises StoreAway."""
    while not store.breaker.open:
        with pytest.raises(StoreAway):
            await take(store, "k", 10)


async def is_back(store: Store) -> None:
    await eventually(lambda: not store.breaker.open, "the store is back")


# --- The breaker ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "opens_at"),
    [
        ("ff", None),
        ("fff", 3),
        ("ffsff", None),
        ("ffsfff", 6),
        ("sssssssffs", None),
        ("sfsfssssss", None),
        ("sfsfsfssss", None),  # a fifth is counted when one fails
        ("sfsfsfssssf", 11),
        ("sssssssfsff", 11),
        ("sfssssfssss", None),
        ("s" * 80 + "fs" * 20, None),
        ("s" * 80 + "fs" * 21 + "f", None),
        ("s" * 20 + "fs" * 9, 33),
        ("sfsfssss|f", None),  # another second begins
        ("sssssss|fsfssssssf", 17),
        ("f|f|f", 3),  # three in a row, however long it takes
    ],
)
def test_the_breaker_opens_after_three_in_a_row_or_a_fifth_of_the_calls_of_a_second(
    calls: str, opens_at: int | None
) -> None:
    breaker = Breaker()
    now, count, opened = 100.0, 0, None
    for call in calls:
        if call == "|":
            now += 1.1
            continue
        # Three consecutive failures take longer than a machine is busy for.
        now += 0.06 if calls[max(0, count - 1) : count + 1].endswith("ff") else 0.0
        count += 1
        (breaker.failed if call == "f" else breaker.succeeded)(now)
        if breaker.open and opened is None:
            opened = count
    assert opened == opens_at


def test_a_breaker_that_closed_has_forgotten_what_opened_it() -> None:
    breaker = Breaker()
    for now in (1.0, 1.05, 1.1):
        breaker.failed(now)
    assert breaker.open
    breaker.close()
    breaker.failed(1.2)
    breaker.failed(1.3)
    assert not breaker.open
    breaker.failed(1.4)
    assert breaker.open


def test_a_machine_that_is_busy_for_some_milliseconds_opens_no_breaker() -> None:
    breaker = Breaker()
    for ms in (0, 30, 60, 90):
        breaker.failed(1.0 + ms / 1000)
    assert not breaker.open
    breaker.succeeded(1.1)
    breaker.failed(1.2)
    assert not breaker.open


# --- While the store is available -----------------------------------------------------------------------------------


async def test_flushing_the_scripts_under_load_costs_no_error_and_no_token(valkey: str, patient: None) -> None:
    await emptied(valkey)
    burst, each = 1_000_000, 400
    async with running(valkey) as store, asking(valkey) as other:
        await remembers_from_the_start(valkey)
        done = asyncio.Event()

        async def flush() -> int:
            for flushed in itertools.count():
                if done.is_set():
                    return flushed
                await other.script_flush()
            raise AssertionError

        async def load() -> None:
            for _ in range(each):
                assert (await take(store, "k", burst))[0] == 1

        flushing = asyncio.create_task(flush())
        await asyncio.gather(*(load() for _ in range(8)))
        done.set()
        assert await flushing > 50
        assert await take(store, "k", burst, 0, 0) == (0, burst - 8 * each)
        assert {key for key in store._counts.store_calls if not key.endswith(" ok")} == set()
        assert store._counts.store_calls["decide ok"] == 8 * each + 1
        assert sum(store._counts.store_s["decide"].counts) == 8 * each + 1


async def test_all_workers_that_live_are_counted(valkey: str, patient: None) -> None:
    await emptied(valkey)
    async with running(valkey, 1) as one:
        await eventually(lambda: "heartbeat ok" in one._counts.store_calls, "a heart beat")
        assert one.workers == 1
        async with running(valkey, 1) as other:
            await eventually(lambda: (one.workers, other.workers) == (2, 2), "two workers")


def test_fewer_workers_are_believed_when_all_living_workers_have_reported_again() -> None:
    store = Store("unix:///nowhere", "w", Limits(), 2)
    store._heard(5)
    assert store.workers == 5
    for _ in range(store_module.WORKER_LIVES_S):
        store._heard(1)
        assert store.workers == 5, "a store that was emptied hears of one after the other"
    store._heard(1)
    assert store.workers == 2, "never fewer than those that it was told of"


async def test_a_clock_of_this_process_that_is_stepped_changes_nothing(
    valkey: str, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await emptied(valkey)
    real, steps = time.time, itertools.cycle((0.0, 3600.0, -3600.0, 1e6))
    async with running(valkey) as store, asking(valkey) as redis:
        await remembers_from_the_start(valkey)
        monkeypatch.setattr(time, "time", lambda: real() + next(steps))
        monkeypatch.setattr(time, "time_ns", lambda: int((real() + next(steps)) * 1e9))
        assert [await take(store, "k", 5) for _ in range(8)] == [(1, 4), (1, 3), (1, 2), (1, 1), (1, 0)] + [(0, 0)] * 3
        assert await redis.get(SINCE) == "0"
        assert not store.breaker.open


async def test_a_worker_that_stops_at_any_moment_of_a_call_ends(valkey: str) -> None:
    """`wait_for` of Python 3.11 swallows a cancellation that arrives when what it awaits has just ended."""
    await emptied(valkey)
    for steps in range(60):
        store = Store(valkey, "w", Limits(), 1, 20.0)
        running = asyncio.create_task(store.run())
        await store.call("heartbeat", [store._workers], ["w", 5])
        call = asyncio.create_task(take(store, "k", 10))
        for _ in range(steps):
            await asyncio.sleep(0)
        running.cancel()
        _, alive = await asyncio.wait([running], timeout=10)
        assert not alive, f"after {steps} steps"
        call.cancel()


# --- Replies and callers --------------------------------------------------------------------------------------------


async def test_ten_thousand_cancellations_mix_up_no_reply_leak_no_connection_and_lose_a_token_each_at_most(
    valkey: str, patient: None
) -> None:
    await emptied(valkey)
    burst, pick = 1_000_000, random.Random(11)
    async with running(valkey) as store, asking(valkey) as redis:
        await remembers_from_the_start(valkey)
        await take(store, "first", 1)
        before = len(await redis.client_list())
        done = False

        async def others() -> int:
            """Request tokens of buckets that each have a different burst, which identifies the reply."""
            asked = 0
            while not done:
                asked += 1
                assert await take(store, f"other:{asked}", asked) == (1, asked - 1)
            return asked

        checks = [asyncio.create_task(others())]
        cancelled = completed = 0
        while cancelled < CANCELLATIONS:
            calls = [asyncio.create_task(take(store, "shared", burst)) for _ in range(100)]
            for _ in range(pick.randrange(8)):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            cancelled += sum(isinstance(end, asyncio.CancelledError) for end in ends)
            assert all(isinstance(end, asyncio.CancelledError) or end[0] == 1 for end in ends)
            completed += sum(not isinstance(end, asyncio.CancelledError) for end in ends)
        done = True
        asked = sum(await asyncio.gather(*checks))
        spent = burst - (await take(store, "shared", burst, 0, 0))[1]
        assert completed <= spent <= completed + cancelled
        assert asked > 10
        assert len(await redis.client_list()) == before
        pool = store._redis.connection_pool
        assert len(pool._in_use_connections) == 0
        assert len(pool._available_connections) == 1
        assert not store._queue
        assert {key for key in store._counts.store_calls if not key.endswith(" ok")} == set()


def wrong_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two replies on a connection be exchanged."""
    real = Store._pipeline

    async def swapped(self: Store, calls: list[Call]) -> list[Any]:
        replies = await real(self, calls)
        mine = [i for i, call in enumerate(calls) if call[0] == "decide"]
        for i, j in zip(mine, mine[1:] + mine[:1], strict=True):
            if j > i:
                replies[i], replies[j] = replies[j], replies[i]
        return replies

    monkeypatch.setattr(Store, "_pipeline", swapped)


async def nobody_gets_the_reply_of_another(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await emptied(url)
    async with running(url) as store:
        await remembers_from_the_start(url)
        for _ in range(3):
            assert await take(store, "warm", 9, 0, 0) == (0, 9)
        with monkeypatch.context() as patched:
            wrong_way_round(patched)
            ends = await asyncio.gather(*(take(store, f"k{n}", n) for n in range(1, 9)), return_exceptions=True)
        for n, end in enumerate(ends, 1):
            assert isinstance(end, StoreAway) or end == (1, n - 1)
        assert any(isinstance(end, StoreAway) for end in ends)
        # That connection is not used any more.
        assert store.breaker.open
        await is_back(store)
        assert await take(store, "fresh", 100, 0, 0) == (0, 100)


async def test_no_caller_gets_the_reply_of_another(valkey: str, patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    await nobody_gets_the_reply_of_another(valkey, monkeypatch)


async def test_without_a_nonce_a_caller_would(valkey: str, patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(itertools, "count", lambda *_: itertools.repeat(7))
    with pytest.raises(AssertionError):
        await nobody_gets_the_reply_of_another(valkey, monkeypatch)


# --- While the store is unavailable ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_short", [False, True])
async def test_a_store_that_is_stopped_is_away_and_marked_when_it_is_back_after_long(
    monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    monkeypatch.setattr(store_module, "SHORT_S", 1000.0 if is_short else 0.0)
    async with OwnValkey() as own, running(own.url, 2) as store, asking(own.url) as redis:
        await remembers_from_the_start(own.url)
        await eventually(lambda: "heartbeat ok" in store._counts.store_calls, "a heart beat")
        own.pause()
        started = time.monotonic()
        await refused(store)
        assert store.away_since is not None
        assert started <= store.away_since <= time.monotonic()
        waiting = len(store._queue)
        for _ in range(100):
            with pytest.raises(StoreAway, match="the breaker is open"):
                await take(store, "k", 10)
        assert len(store._queue) == waiting == 0
        assert (store.outages, store.workers) == (1, 2)
        own.resume()
        await is_back(store)
        assert (store.outages, store.away_since) == (1, None)
        assert (await redis.get(store_module.BACK) is None) is is_short


async def test_it_is_looked_for_however_it_was_found_to_be_away(valkey: str) -> None:
    """The store is also probed while no request arrives, because the task that probes it is woken."""
    await emptied(valkey)
    async with running(valkey) as store:
        await eventually(lambda: "heartbeat ok" in store._counts.store_calls, "it is there")
        await eventually(lambda: not store._wake.is_set(), "nothing is asked")
        store._went_away()
        await is_back(store)


@pytest.mark.parametrize("is_noticed", [False, True])
async def test_a_store_that_was_killed_and_is_empty_gives_no_fresh_burst(
    patient: None, monkeypatch: pytest.MonkeyPatch, is_noticed: bool
) -> None:
    async with OwnValkey() as own, running(own.url) as store:
        await remembers_from_the_start(own.url)
        assert await take(store, "spent", 100, 100, 100) == (100, 0)
        await own.kill()
        if is_noticed:
            await refused(store)
        await own.restart()
        if not is_noticed and store.breaker.open:
            await is_back(store)  # its heart beat has noticed

        async def had(key: str) -> int:
            with contextlib.suppress(StoreAway):
                return (await take(store, key, 100, 0, 1000))[0]
            await is_back(store)
            return (await take(store, key, 100, 0, 1000))[0]

        if is_noticed:
            await is_back(store)
        assert [await had(key) for key in ("spent", "never seen")] == [10, 10]
        assert [await had(key) for key in ("spent", "never seen")] == [0, 0]


async def test_a_store_that_is_away_at_the_start_is_found_later_and_begins_full(patient: None) -> None:
    own = OwnValkey()
    try:
        async with running(own.url, 3) as store:
            await refused(store)
            assert store.workers == 3
            await own.server.start()
            await is_back(store)

            async def had() -> int:
                with contextlib.suppress(StoreAway):
                    return (await take(store, "k", 100, 0, 1000))[0]
                return 0

            assert await eventually(had, "an answer") == 100
    finally:
        await own.__aexit__()


async def test_admissions_from_before_the_store_was_there_are_reported_to_it(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHORT_S", 0.0)
    own = OwnValkey()
    try:
        async with limiting(own.url) as limiter:
            await refused(limiter.store)
            assert await let_in(limiter, 20) == 10
            await own.server.start()
            await is_back(limiter.store)
            # The part of the last token that has come back is not reported.
            assert await let_in(limiter, 20) <= 1
    finally:
        await own.__aexit__()


async def until_probed(redis: Redis, times: int) -> None:
    async def probed() -> bool:
        stats = await redis.info("commandstats")
        refused = int(stats.get("cmdstat_set", {}).get("rejected_calls", 0))
        return refused + int(stats.get("cmdstat_eval", {}).get("calls", 0)) >= times

    await eventually(probed, "it was looked for")


async def test_a_store_that_is_full_is_away_and_hands_out_no_bucket(
    patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHORT_S", 0.0)
    async with OwnValkey() as own, running(own.url) as store, asking(own.url) as redis:
        await remembers_from_the_start(own.url)
        assert await take(store, "spent", 10, 10, 10) == (10, 0)
        await redis.config_set("maxmemory", 1)
        await refused(store)
        # The probe takes memory, too: the store stays unavailable.
        await until_probed(redis, 3)
        assert (store.breaker.open, store.outages) == (True, 1)
        assert store._counts.store_calls["decide error"] >= 1
        assert "decide timeout" not in store._counts.store_calls
        assert await redis.exists("k") == 0
        await redis.config_set("maxmemory", 128 << 20)
        await is_back(store)
        assert await take(store, "spent", 10, 0, 10) == (0, 0)
        # Only a little of the bucket's day has passed: the charge is the admissions by local quota.
        assert await take(store, "fresh", 100, 0, 1000) == (99, 0)


POLICY = 'version = 1\n[[policy]]\nname = "p"\nkey = "caller"\nrate = "1/h"\nburst = 10\nmode = "strict"\n'


@asynccontextmanager
async def limiting(url: str, text: str = POLICY) -> AsyncIterator[Limiter]:
    async with running(url) as store:
        limiter = Limiter(parse(text), store, store._counts)
        running_ = asyncio.create_task(limiter.run())
        try:
            yield limiter
        finally:
            running_.cancel()
            await asyncio.gather(running_, return_exceptions=True)


async def let_in(limiter: Limiter, times: int, api_class: ApiClass = ApiClass.PAYMENT) -> int:
    matched = limiter.match("c", api_class, None, None)
    answers = [await limiter.ask(matched, 1, time.monotonic()) for _ in range(times)]
    assert all(answer is None or isinstance(answer, Denied) for answer in answers)
    return answers.count(None)


async def killed(own: OwnValkey, redis: Redis) -> None:
    await own.kill()


async def paused(own: OwnValkey, redis: Redis) -> None:
    own.pause()


async def full(own: OwnValkey, redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)


@pytest.mark.parametrize("becomes", [killed, paused, full])
async def test_whatever_becomes_of_the_store_a_spent_bucket_stays_spent_and_another_gets_its_share(
    patient: None, becomes: Callable[[OwnValkey, Redis], Any]
) -> None:
    async with OwnValkey() as own, asking(own.url) as redis, limiting(own.url) as limiter:
        await remembers_from_the_start(own.url)
        assert await let_in(limiter, 15) == 10
        limiter.store._deadline_s, limiter.store._round_trip_s = 0.005, 0.05
        await becomes(own, redis)
        assert await let_in(limiter, 30) == 0
        other = limiter.match("another", ApiClass.PAYMENT, None, None)
        answers = [await limiter.ask(other, 1, time.monotonic()) for _ in range(30)]
        assert answers.count(None) == 10
        assert limiter.counted().mode == "fallback"
        decided = limiter.counted().decisions
        assert sum(decided.values()) == 15 + 30 + 30
        assert decided["p payment allow fallback"] == 10


async def test_scripts_and_counts_survive_a_store_that_comes_and_goes() -> None:
    """The store is paused and resumed many times under load. No admission by the store or by local quota is lost."""
    async with OwnValkey() as own, limiting(own.url, POLICY.replace('"1/h"', "1000")) as limiter:
        await remembers_from_the_start(own.url)
        asked = 0
        for _ in range(5):
            own.pause()
            while not limiter.store.breaker.open:
                asked += 1
                await let_in(limiter, 1)
            own.resume()
            while limiter.store.breaker.open:
                asked += 5
                await let_in(limiter, 5)
                await asyncio.sleep(0)
        assert limiter.store.outages >= 5
        assert sum(limiter.counted().decisions.values()) == asked


async def test_a_reply_that_comes_too_late_is_not_lost_and_nothing_is_charged_twice(patient: None) -> None:
    async with OwnValkey() as own, limiting(own.url) as limiter:
        await remembers_from_the_start(own.url)
        assert await let_in(limiter, 2) == 2
        own.pause()
        limiter.store._deadline_s, limiter.store._round_trip_s = 0.005, 20.0
        assert await let_in(limiter, 1) == 1
        own.resume()
        assert limiter.counted().decisions["p payment allow fallback"] == 1
        limiter.store._deadline_s = 20.0
        matched = limiter.match("c", ApiClass.PAYMENT, None, None)

        async def all_is_settled() -> bool:
            bucket = matched.buckets[0]
            return not (bucket.charging or bucket.debt or bucket.tokens or bucket.dirty)

        await eventually(all_is_settled, "what came late is counted, and given back")
        assert [left for left, _ in await limiter.peek(matched)] == [7]
