"""Concurrent requests, of 64 clients to two workers: no 5xx, nothing is lost or posted twice, the books are exact."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack

import asyncpg
import pytest

from fundledger.security.keys import FileKeys
from tests.support.client import Answer, Client, new_id, voucher
from tests.support.database import prove_books
from tests.support.running import RunningService

CLIENTS = 64


@pytest.fixture(scope="module")
async def clients(service: RunningService) -> AsyncIterator[list[Client]]:
    """Return clients, each with a connection of its own, so that both workers get requests."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Client(service.base_url, service.token, 1)) for _ in range(CLIENTS)]


@pytest.fixture(autouse=True)
async def proved(service: RunningService) -> AsyncIterator[None]:
    """Assert after each test that the database has logged no deadlock and that the books verify."""
    log = service.data_dir / "postgres.log"
    before = len(log.read_bytes())
    yield
    assert b"deadlock" not in log.read_bytes()[before:]
    await prove_books(service.dsn, FileKeys(service.data_dir / "keys"))


async def at_once(*requests: Coroutine[None, None, Answer]) -> list[Answer]:
    answers = await asyncio.gather(*requests)
    assert not [answer for answer in answers if answer.status >= 500]
    return answers


async def test_both_workers_are_asked(service: RunningService, clients: list[Client]) -> None:
    a, b = await clients[0].merchant(CLIENTS), await clients[0].merchant()
    await at_once(*(client.pay(a, b, 1) for client in clients))
    connection = await asyncpg.connect(service.dsn)
    try:
        lanes = await connection.fetch(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE 'fundledger lane%'"
            " AND application_name NOT LIKE '%(%'"
        )
    finally:
        await connection.close()
    assert len(lanes) == 2


async def test_one_id_from_all_clients_concurrently_is_posted_once(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(1000), await clients[0].merchant()
    for round_ in range(1, 11):
        asked = voucher(a, b, 1)
        answers = await at_once(*(client.post("/v1/vouchers", asked) for client in clients))
        assert Counter(answer.status for answer in answers) == {201: 1, 200: CLIENTS - 1}
        assert len({answer.body for answer in answers}) == 1
        assert all(answer.is_replay == (answer.status == 200) for answer in answers)
        assert (await clients[0].balance(b))["posted"] == round_


async def test_one_id_with_two_contents_concurrently_is_posted_once(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(1000), await clients[0].merchant()
    for _ in range(10):
        before = (await clients[0].balance(b))["posted"]
        id_ = new_id()
        answers = await at_once(*(client.pay(a, b, 1 + i % 2, id_) for i, client in enumerate(clients)))
        assert Counter(answer.status for answer in answers) == {201: 1, 200: CLIENTS // 2 - 1, 422: CLIENTS // 2}
        assert {answer.problem for answer in answers if answer.status == 422} == {"voucher-id-reused"}
        posted = next(answer.json["entries"][0]["amount"] for answer in answers if answer.status == 201)
        assert (await clients[0].balance(b))["posted"] == before + posted


async def test_the_same_ids_in_several_batches_in_different_orders_are_posted_once(clients: list[Client]) -> None:
    bank = await clients[0].bank()
    fees = await clients[0].open_account("fees:concurrency", "fee_income", "platform")
    before = (await clients[0].balance(fees))["posted"]
    for seed in range(5):
        asked = [voucher(bank, fees, 1) for _ in range(50)]
        orders = []
        for i in range(8):
            orders.append(asked[:])
            random.Random(seed * 100 + i).shuffle(orders[-1])
        answers = await at_once(
            *(c.post("/v1/vouchers/batch", {"vouchers": order}) for c, order in zip(clients, orders, strict=False))
        )
        for answer, order in zip(answers, orders, strict=True):
            assert [r["id"] for r in answer.json["results"]] == [v["id"] for v in order]
            assert {r["status"] for r in answer.json["results"]} == {"posted"}
    assert (await clients[0].balance(fees))["posted"] == before + 250


async def test_opposite_transfers_between_the_same_accounts(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(10_000), await clients[0].merchant(10_000)

    async def back_and_forth(client: Client, there: bool) -> list[Answer]:
        return [await (client.pay(a, b, 3) if there == bool(i % 2) else client.pay(b, a, 3)) for i in range(20)]

    for answers in await asyncio.gather(*(back_and_forth(c, bool(i % 2)) for i, c in enumerate(clients))):
        assert {answer.status for answer in answers} == {201}
    assert [(await clients[0].balance(x))["posted"] for x in (a, b)] == [10_000, 10_000]


async def test_debits_that_together_exceed_the_balance_succeed_exactly_as_often_as_it_allows(
    clients: list[Client],
) -> None:
    a, b = await clients[0].merchant(100), await clients[0].merchant()
    answers = await at_once(*(client.pay(a, b, 3) for client in clients))
    assert Counter(answer.status for answer in answers) == {201: 33, 422: CLIENTS - 33}
    assert {answer.problem for answer in answers if answer.status == 422} == {"insufficient-funds"}
    assert [(await clients[0].balance(x))["posted"] for x in (a, b)] == [1, 99]


async def test_concurrent_captures_and_releases_end_each_hold_once(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(1000), await clients[0].merchant()
    for i in range(5):
        hold = f"hold:concurrency:{new_id()}"
        await clients[0].post("/v1/holds", {"id": hold, "account": a, "amount": 10})
        answers = await at_once(
            *(
                client.post(f"/v1/holds/{hold}/capture", {"voucher": voucher(a, b, 7)})
                if j % 2
                else client.post(f"/v1/holds/{hold}/release")
                for j, client in enumerate(clients)
            )
        )
        captured = [answer for answer in answers if answer.status == 201]
        released = [answer for answer in answers if answer.status == 200]
        assert (len(captured), bool(released)) in ((1, False), (0, True)), i
    assert (await clients[0].balance(a))["held"] == 0


async def test_holds_placed_concurrently_never_exceed_the_balance(clients: list[Client]) -> None:
    a = await clients[0].merchant(100)
    ids = [f"hold:concurrency:{new_id()}" for _ in clients]
    answers = await at_once(
        *(c.post("/v1/holds", {"id": id_, "account": a, "amount": 7}) for c, id_ in zip(clients, ids, strict=True))
    )
    assert Counter(answer.status for answer in answers) == {201: 14, 422: CLIENTS - 14}
    assert await clients[0].balance(a) == {"posted": 100, "held": 98, "pending": 0, "available": 2}


async def test_a_voucher_with_concurrent_reversals_is_reversed_once(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(1000), await clients[0].merchant()
    for _ in range(5):
        original = new_id()
        await clients[0].pay(a, b, 5, original)
        answers = await at_once(*(c.post(f"/v1/vouchers/{original}/reverse", {"id": new_id()}) for c in clients))
        assert Counter(answer.status for answer in answers) == {201: 1, 422: CLIENTS - 1}
        assert {a.problem for a in answers if a.status == 422} == {"voucher-already-reversed"}
    assert (await clients[0].balance(a))["posted"] == 1000


async def test_an_account_that_is_opened_concurrently_is_opened_once(clients: list[Client]) -> None:
    for _ in range(5):
        asked = {"id": f"m:{new_id()}", "owner": "o:1", "type": "merchant_available", "currency": "CNY"}
        answers = await at_once(*(client.post("/v1/accounts", asked) for client in clients))
        assert Counter(answer.status for answer in answers) == {201: 1, 200: CLIENTS - 1}
        other = {**asked, "owner": "o:2"}
        assert {a.status for a in await at_once(*(client.post("/v1/accounts", other) for client in clients))} == {409}


async def test_a_freeze_in_the_middle_of_payments_lets_none_through_after_it(clients: list[Client]) -> None:
    a, b = await clients[0].merchant(100_000), await clients[0].merchant()
    frozen = asyncio.Event()
    after: list[Answer] = []

    async def paying(client: Client) -> None:
        for _ in range(15):
            was_frozen = frozen.is_set()
            answer = await client.pay(a, b, 1)
            assert answer.status in (201, 422)
            if was_frozen:
                after.append(answer)

    async def freezing() -> None:
        for _ in range(5):
            await clients[0].pay(a, b, 1)
        assert (await clients[0].post(f"/v1/accounts/{a}/freeze", {"reason": "test"})).status == 200
        frozen.set()

    await asyncio.gather(freezing(), *(paying(client) for client in clients[1:]))
    assert after
    assert {answer.problem for answer in after} == {"account-frozen"}


async def test_all_commands_concurrently_among_few_accounts_keep_the_sum(clients: list[Client]) -> None:
    names = [await clients[0].merchant(1000) for _ in range(6)]

    async def trading(client: Client, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(12):
            a, b = rng.sample(names, 2)
            kind = rng.random()
            if kind < 0.6:
                answer = await client.pay(a, b, rng.randint(1, 400))
            elif kind < 0.8:
                asked = [voucher(*rng.sample(names, 2), rng.randint(1, 300)) for _ in range(5)]
                answer = await client.post("/v1/vouchers/batch", {"vouchers": asked, "atomic": rng.random() < 0.5})
            else:
                hold = f"hold:concurrency:{new_id()}"
                answer = await client.post("/v1/holds", {"id": hold, "account": a, "amount": rng.randint(1, 300)})
                if answer.status == 201:
                    asked = {"voucher": voucher(a, b, rng.randint(1, 300))}
                    answer = await client.post(f"/v1/holds/{hold}/capture", asked)
                    if answer.status != 201:
                        answer = await client.post(f"/v1/holds/{hold}/release")
            assert answer.status in (200, 201, 422), answer

    await asyncio.gather(*(trading(client, seed) for seed, client in enumerate(clients)))
    balances = [await clients[0].balance(name) for name in names]
    assert sum(balance["posted"] for balance in balances) == 6000
    assert all(balance["available"] >= 0 and balance["held"] == 0 for balance in balances)
