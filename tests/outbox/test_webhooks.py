"""Webhooks: signed, in order, retried up to a limit; isolated from slow endpoints; never sent to internal addresses."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.fund.store.events import fund_feed
from fundledger.outbox import deliveries, places
from fundledger.outbox.deliveries import AFTER_S, KEPT_DAYS, Deliverer
from fundledger.outbox.destination import allows_private, bad_url, may_call
from fundledger.outbox.not_called import NETWORKS, NOT_CALLED
from fundledger.outbox.webhooks import PER_MERCHANT_MAX, Webhook, Webhooks
from tests.support.endpoint import Endpoint, is_signed
from tests.support.fund_ids import MACS
from tests.support.orders import an_order, orders
from tests.support.waiting import eventually

Pool = asyncpg.Pool


@pytest.fixture
async def pool(fund_database: str) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=8) as pool:
        yield pool


@pytest.fixture
async def hooks(pool: Pool) -> Webhooks:
    return Webhooks(pool, MACS)


@pytest.fixture
async def deliverer(fund_database: str, pool: Pool) -> AsyncIterator[Deliverer]:
    feed = fund_feed(fund_database, pool, MACS, "webhooks")
    deliverer = Deliverer(feed, pool, MACS, private=True)
    yield deliverer
    await deliverer.close()
    await feed.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint() as endpoint:
        yield endpoint


async def nobody_else(connection: Any) -> None:
    """Do nothing: no other process takes the lease."""


async def deliver(deliverer: Deliverer) -> None:
    """Deliver all events that are due now."""
    await deliverer.deliver(nobody_else)
    await deliverer.settled()


async def make_due(pool: Pool) -> None:
    await pool.execute("UPDATE outbox.deliveries SET due_at = now() WHERE state = 'waiting'")


async def added(hooks: Webhooks, endpoint: Endpoint, merchant: str = "m1", events: list[str] | None = None):
    found = await hooks.add(merchant, endpoint.url, events, "tests")
    assert found is not None
    return found


async def test_an_event_is_delivered_signed_and_only_to_whom_it_concerns(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    _, secret = await added(hooks, endpoint)
    seq = await an_order(pool, "m1")
    await an_order(pool, "m2")
    await deliver(deliverer)
    assert endpoint.seqs() == [seq]
    ((headers, body),) = endpoint.got
    assert is_signed(headers, body, secret)
    assert headers["webhook-id"] == msgspec.json.decode(body)["id"]
    await deliver(deliverer)
    assert len(endpoint.got) == 1, "once"


async def test_what_came_before_there_was_any_endpoint_is_not_read(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    await an_order(pool, "m1")

    async def unread(*_: object) -> None:
        raise AssertionError("nobody is told, and events were read")

    with monkeypatch.context() as unasked:
        unasked.setattr(deliverer._feed, "read", unread)
        await deliver(deliverer)
    await added(hooks, endpoint)
    seq = await an_order(pool, "m1")
    await deliver(deliverer)
    assert endpoint.seqs() == [seq]


def test_the_signature_is_that_of_the_published_example() -> None:
    """The signature equals the test vector of the Standard Webhooks libraries."""
    from fundledger.outbox.signature import headers

    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_only_the_types_that_were_asked_for_are_sent(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    await added(hooks, endpoint, events=["payment.refused"])
    await an_order(pool)
    refused = await an_order(pool, state="refused")
    await deliver(deliverer)
    assert endpoint.seqs() == [refused]


async def test_the_next_event_waits_until_the_one_before_was_delivered(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    await added(hooks, endpoint)
    told = await orders(pool, 3)
    endpoint.status = 500
    await deliver(deliverer)
    await deliver(deliverer)
    assert endpoint.seqs() == told[:1], "it is not due again yet, and nothing overtakes it"
    row = await pool.fetchrow(
        "SELECT attempts, last_status, due_at - now() AS pause FROM outbox.deliveries ORDER BY seq LIMIT 1"
    )
    assert (row["attempts"], row["last_status"]) == (1, 500)
    assert 3 < row["pause"].total_seconds() <= 6
    endpoint.status = 204
    await make_due(pool)
    await deliver(deliverer)
    assert endpoint.seqs() == [told[0], *told]
    assert endpoint.got[0][0]["webhook-id"] == endpoint.got[1][0]["webhook-id"]


async def test_what_fails_to_the_end_is_dead_until_it_is_asked_for_again(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    webhook, _ = await added(hooks, endpoint)
    first, second = await orders(pool, 2)
    endpoint.status = 503
    await deliverer.deliver(nobody_else)
    await deliverer.settled()
    await pool.execute("UPDATE outbox.deliveries SET attempts = $2 WHERE seq = $1", first, len(AFTER_S))
    await make_due(pool)
    endpoint.got.clear()
    await deliver(deliverer)
    (dead,) = await hooks.dead(webhook.id, 0, 10)
    assert (dead.seq, dead.last_status, dead.attempts) == (first, 503, len(AFTER_S) + 1)
    endpoint.status = 200
    await make_due(pool)
    await deliver(deliverer)
    assert endpoint.seqs()[-1] == second, "the next one is not held up by it"
    assert await hooks.redeliver(webhook.id, None) == 1
    await deliver(deliverer)
    assert endpoint.seqs()[-1] == first
    assert await hooks.dead(webhook.id, 0, 10) == []


async def test_an_event_that_is_asked_for_again_gets_every_attempt_again(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    webhook, _ = await added(hooks, endpoint)
    await an_order(pool)
    endpoint.status = 503
    await deliver(deliverer)
    await pool.execute("UPDATE outbox.deliveries SET attempts = $1", len(AFTER_S))
    await make_due(pool)
    await deliver(deliverer)
    assert len(await hooks.dead(webhook.id, 0, 10)) == 1
    assert await hooks.redeliver(webhook.id, None) == 1
    await deliver(deliverer)
    row = await pool.fetchrow("SELECT state, attempts FROM outbox.deliveries")
    assert tuple(row) == ("waiting", 1), "one failure is not the end"
    endpoint.status = 200
    await make_due(pool)
    await deliver(deliverer)
    assert await pool.fetchval("SELECT state FROM outbox.deliveries") == "delivered"


async def test_only_deliveries_that_arrived_long_ago_are_forgotten(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    await added(hooks, endpoint)
    seqs = await orders(pool, 5)
    endpoint.status = 503
    await deliver(deliverer)
    change = "UPDATE outbox.deliveries SET state = $2, ended_at = now() - make_interval(days => $3) WHERE seq = $1"
    for seq, state, days in zip(
        seqs, ("delivered", "dead", "delivered", "dead"), (KEPT_DAYS + 1, KEPT_DAYS + 1, KEPT_DAYS - 1, 1), strict=False
    ):
        await pool.execute(change, seq, state, days)
    await pool.execute("UPDATE outbox.deliveries SET due_at = now() + interval '1 hour' WHERE state = 'waiting'")
    await deliver(deliverer)
    assert await pool.fetchval("SELECT count(*) FROM outbox.deliveries") == 5, "not with each delivery"
    deliverer._forgot_at = float("-inf")
    await deliver(deliverer)
    left = await pool.fetch("SELECT seq, state FROM outbox.deliveries ORDER BY seq")
    assert [tuple(row) for row in left] == list(zip(seqs[1:], ("dead", "delivered", "dead", "waiting"), strict=True))


async def test_an_endpoint_that_does_not_answer_delays_no_other(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    async with Endpoint() as slow:
        slow.go_on.clear()
        await added(hooks, slow)
        await added(hooks, endpoint)
        told = await orders(pool, 2)
        await deliverer.deliver(nobody_else)
        await eventually(lambda: endpoint.seqs() == told, "its neighbour is told all")
        told += await orders(pool, 2)
        await deliverer.deliver(nobody_else)
        await eventually(lambda: endpoint.seqs() == told, "and goes on")
        assert slow.seqs() == told[:1]


async def test_those_that_failed_before_take_up_only_a_part(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "SERVED_MAX", 3)
    monkeypatch.setattr(places, "LATE_MAX", 1)
    async with Endpoint() as slow:
        slow.go_on.clear()
        for _ in range(3):
            await added(hooks, slow, "old")
        await an_order(pool, "old")
        await deliverer._fan_out(nobody_else)
        await pool.execute("UPDATE outbox.deliveries SET attempts = 1")
        await added(hooks, endpoint)
        told = await orders(pool, 1)
        await deliverer.deliver(nobody_else)
        await eventually(lambda: endpoint.seqs() == told, "there is room for it")
        assert len(slow.got) <= 1


async def test_redirects_are_not_followed_and_gone_is_gone(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    webhook, _ = await added(hooks, endpoint)
    async with Endpoint() as elsewhere:
        endpoint.status, endpoint.headers = 307, {"Location": elsewhere.url}
        await an_order(pool)
        await deliver(deliverer)
        assert (len(endpoint.got), elsewhere.got) == (1, [])
    endpoint.status = 410
    await make_due(pool)
    await deliver(deliverer)
    found = await hooks.get(webhook.id)
    assert found is not None and found.disabled_why == "it answered 410 Gone"
    await an_order(pool)
    await deliver(deliverer)
    assert len(endpoint.got) == 2


async def test_what_was_sent_by_one_whose_lease_is_lost_is_sent_again(
    pool: Pool, hooks: Webhooks, deliverer: Deliverer, endpoint: Endpoint
) -> None:
    """Delivery is at least once: a delivery that cannot be recorded is repeated."""
    await added(hooks, endpoint)
    told = await orders(pool, 1)
    await deliverer._fan_out(nobody_else)

    async def lost(connection: Any) -> None:
        raise RuntimeError("the lease was lost")

    (row,) = await pool.fetch(deliveries.SQL["due_webhooks"], [], 1, [], 8, [])
    deliverer._serve(row["id"], lost)
    await deliverer.settled()
    assert endpoint.seqs() == told
    await deliver(deliverer)
    assert endpoint.seqs() == told * 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "http://example.com/",
        "https://user:secret@example.com/",
        "https:///nowhere",
        "https://example.com/#x",
        "https://example.com:0/",
        "https://example.com:22/",
        "https://example.com:25/",
        "https://example.com:80/",
        "https://[64:ff9b:1::a9fe:a9fe]/",
        "https://[64:ff9b:1:ffff::1]/",
        "https://[::8.8.8.8]/",
        "https://[::127.0.0.1]/",
        "https://[::ffff:0:10.0.0.1]/",
        "https://[::ffff:0:8.8.8.8]/",
        "https://[::ffff:168.63.129.16]/",
        "https://[fec0::1]/",
        "https://[feff::1]/",
        "https://[5f00::1]/",
        "https://[3fff::1]/",
        "https://[3fff:fff::1]/",
        "https://[2001:0:7f00:1::]/",
        "https://[fd00:ec2::254]/",
        "https://[fe80::1%25eth0]/",
        "https://[ff0e::1]/",
        "https://168.63.129.16/",
        "https://2822734096/",
        "https://100.100.100.200/",
        "https://192.0.0.192/",
        "https://192.88.99.1/",
        "https://255.255.255.255/",
        "https://198.18.0.1/",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "x" * 3000,
    ],
)
def test_a_url_that_leads_inside_is_not_taken(url: str) -> None:
    assert bad_url(url, private=False) is not None


def test_a_public_url_is_taken() -> None:
    assert bad_url("https://example.com:8443/hook?x=1", private=False) is None
    assert bad_url("https://example.com:443/hook", private=False) is None
    assert bad_url("http://127.0.0.1:9/hook", private=True) is None
    for host in ("8.8.8.8", "[2606:4700::1111]", "[2001:4860:4860::8888]", "[64:ff9b::808:808]", "[2002:808:808::1]"):
        assert bad_url(f"https://{host}/hook", private=False) is None, host


@pytest.mark.parametrize(
    ("setting", "profile", "allowed"),
    [
        ("auto", "dev", True),
        ("auto", "prod", False),
        ("on", "prod", True),
        ("off", "dev", False),
    ],
)
def test_private_destinations_are_allowed_by_a_setting(setting: str, profile: str, allowed: bool) -> None:
    assert allows_private(setting, profile) is allowed


def test_each_network_that_is_not_called_is_refused_at_both_ends_when_it_is_resolved() -> None:
    for network in NETWORKS:
        assert not may_call(network[0], private=False)
        assert not may_call(network[-1], private=False)
        assert may_call(network[0], private=True)
    assert all(NOT_CALLED.values()), "each has its reason"


async def test_a_name_that_leads_inside_is_not_called(
    fund_database: str, pool: Pool, hooks: Webhooks, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the endpoint was registered, its host name did not resolve to an internal address."""
    port = endpoint.url.rpartition(":")[2].partition("/")[0]
    webhook = await hooks.add("m1", f"https://localhost:{port}/hook", None, "tests")
    assert webhook is not None
    feed = fund_feed(fund_database, pool, MACS, "public")
    deliverer = Deliverer(feed, pool, MACS, private=False)
    await an_order(pool)
    await deliver(deliverer)
    assert endpoint.got == []
    row = await pool.fetchrow("SELECT last_error FROM outbox.deliveries")
    assert "not allowed" in row["last_error"]
    await deliverer.close()
    await feed.close()


async def test_a_merchant_has_only_so_many(hooks: Webhooks) -> None:
    made: list[Webhook] = []
    for _ in range(PER_MERCHANT_MAX):
        found = await hooks.add("m1", "https://example.com/", None, "tests")
        assert found is not None
        made.append(found[0])
    assert await hooks.add("m1", "https://example.com/", None, "tests") is None
    assert [one.id for one in (await hooks.of("m1"))[0]] == [one.id for one in made]
    assert await hooks.disable(made[0].id, "asked") is not None
    assert await hooks.add("m1", "https://example.com/", None, "tests") is not None
