"""Fairness of webhooks: neither slow merchants nor a shared receiver delay the events of another merchant."""

from uuid import uuid4

import asyncpg
import pytest

from fundledger.outbox import deliveries, places
from fundledger.outbox.deliveries import Deliverer
from fundledger.outbox.places import (
    HOST_MAX,
    HOST_MERCHANT_MAX,
    LATE_MAX,
    MERCHANT_MAX,
    SERVED_MAX,
    SLOW_S,
    Places,
)
from fundledger.outbox.webhooks import Webhooks
from tests.outbox.test_webhooks import added, deliver, deliverer, endpoint, hooks, make_due, nobody_else, pool
from tests.support.endpoint import Endpoint
from tests.support.orders import orders
from tests.support.waiting import eventually

__all__ = ["deliverer", "endpoint", "hooks", "pool"]
Pool = asyncpg.Pool
SLOW_MERCHANTS, EACH = 4, 20


async def slow_merchants(pool: Pool, hooks: Webhooks, *receivers: Endpoint) -> None:
    """Create four merchants with twenty endpoints each, and four events for each of them, older than any other."""
    for number in range(SLOW_MERCHANTS):
        for one in range(EACH):
            await added(hooks, receivers[one % len(receivers)], f"slow-{number}")
    for number in range(SLOW_MERCHANTS):
        await orders(pool, 4, f"slow-{number}")


async def test_an_honest_merchant_is_served_while_endpoints_of_others_are_slow(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    async with Endpoint() as one, Endpoint() as two, Endpoint() as three, Endpoint() as four, Endpoint() as five:
        receivers = (one, two, three, four, five)
        for slow in receivers:
            slow.go_on.clear()
        await slow_merchants(pool, hooks, *receivers)
        await deliverer.deliver(nobody_else)
        await eventually(
            lambda: sum(len(slow.got) for slow in receivers) == SLOW_MERCHANTS * MERCHANT_MAX, "each has its part"
        )
        await added(hooks, endpoint, "honest")
        told = await orders(pool, 3, "honest")
        await deliverer.deliver(nobody_else)
        await eventually(lambda: endpoint.seqs() == told, "no slow one has answered")
        assert sum(len(slow.got) for slow in receivers) == SLOW_MERCHANTS * MERCHANT_MAX


async def test_an_honest_merchant_is_served_at_a_receiver_where_others_are_slow(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer
) -> None:
    async with Endpoint() as shared:
        shared.go_on.clear()
        for _ in range(EACH):
            await added(hooks, shared, "slow")
        await orders(pool, 1, "slow")
        await deliverer.deliver(nobody_else)
        await eventually(lambda: len(shared.got) == HOST_MERCHANT_MAX, "so many of one merchant")
        await added(hooks, shared, "honest")
        (seq,) = await orders(pool, 1, "honest")
        await deliverer.deliver(nobody_else)
        await eventually(lambda: seq in shared.seqs(), "another merchant has places left")


async def test_each_attempt_that_timed_out_was_sent(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time-out of an attempt begins when the attempt is sent, not while it waits for a connection slot."""
    monkeypatch.setattr(deliveries, "TIMEOUT_S", 1.0)
    async with Endpoint() as slow:
        slow.go_on.clear()
        for number in range(EACH):
            await added(hooks, slow, f"slow-{number}")
        for number in range(EACH):
            await orders(pool, 1, f"slow-{number}")
        await deliver(deliverer)
        attempts = await pool.fetchval("SELECT sum(attempts) FROM outbox.deliveries")
        assert attempts == len(slow.got) == HOST_MAX
        slow.go_on.set()
        await deliver(deliverer)
        await make_due(pool)
        await deliver(deliverer)
        assert await pool.fetchval("SELECT count(*) FROM outbox.deliveries WHERE state = 'delivered'") == EACH


async def test_merchants_take_turns(pool: Pool, hooks: Webhooks, deliverer: Deliverer) -> None:
    async with Endpoint() as receiver:
        for merchant, count in (("a", 6), ("b", 2), ("c", 1)):
            for _ in range(count):
                await added(hooks, receiver, merchant)
            await orders(pool, 1, merchant)
        await deliverer._fan_out(nobody_else)
        rows = await pool.fetch(deliveries.SQL["due_webhooks"], [], 100, [], MERCHANT_MAX, [])
        assert "".join(row["merchant"] for row in rows) == "abcab" + "a" * 4
        served = [row["id"] for row in rows if row["merchant"] == "a"][:2]
        rows = await pool.fetch(deliveries.SQL["due_webhooks"], served, 100, [], 4, [])
        assert "".join(row["merchant"] for row in rows) == "bcbaa"
        slow = [row["id"] for row in rows if row["merchant"] == "c"]
        rows = await pool.fetch(deliveries.SQL["due_webhooks"], served, 100, slow, 4, [])
        assert "".join(row["merchant"] for row in rows) == "bbaac"


def test_slow_and_failing_endpoints_take_a_part_of_all_places() -> None:
    taken = Places()
    for number in range(200):
        taken.take(uuid4(), f"m{number}", f"https://h{number}/", late=True)
    assert SERVED_MAX - taken.free() == LATE_MAX
    for number in range(200):
        taken.take(uuid4(), f"m{number}", f"https://h{number}/", late=False)
    assert taken.free() == 0


def test_a_place_that_is_released_is_taken_again() -> None:
    taken, ids = Places(), [uuid4() for _ in range(MERCHANT_MAX + 1)]
    assert [taken.take(id_, "m", f"https://h{i}/", late=False) for i, id_ in enumerate(ids)] == [True] * 8 + [False]
    taken.give_back(ids[0])
    assert taken.take(ids[-1], "m", "https://h/", late=False)


@pytest.mark.parametrize("url", ["https://Hooks.example:443/a", "https://hooks.EXAMPLE:443/b?c"])
def test_a_receiver_is_a_host_and_port(url: str) -> None:
    taken = Places()
    for number in range(HOST_MAX):
        assert taken.take(uuid4(), f"m{number}", "https://hooks.example:443/x", late=False)
    assert not taken.take(uuid4(), "m", url, late=False)
    assert taken.take(uuid4(), "m", "https://hooks.example:8443/x", late=False)


def test_an_endpoint_is_slow_until_it_answers_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SLOW_REMEMBERED", 2)
    taken, (a, b, c) = Places(), (uuid4() for _ in range(3))
    for id_ in (a, b):
        taken.answered(id_, SLOW_S * 2)
    assert taken.slow() == [a, b]
    taken.answered(a, 0.01)
    assert taken.slow() == [b]
    for id_ in (a, c):
        taken.answered(id_, SLOW_S * 2)
    assert taken.slow() == [a, c]
