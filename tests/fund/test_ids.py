"""Ids of orders depend on a key, so that no caller can compute them. Older orders are found by their former ids."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.client.account_service import AccountService
from fundledger.client.types import Voucher, credit, debit
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.ids import Ids, ids_key
from fundledger.fund.model.order import State, order_id, voucher_id
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.macs import trusted_mac, unswept_mac
from fundledger.fund.store.migrate import migrate
from fundledger.fund.store.open_ids import open_ids
from fundledger.fund.store.queries import SQL
from fundledger.security.mac import MacKey
from tests.support.database import Databases
from tests.support.fund_books import prove_fund
from tests.support.fund_ids import IDS, KEYS
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

GUESSES = 500


class Former(Ids):
    """The former, unkeyed ids, in a database before its migration."""

    def order(self, kind: str, merchant: str, order_no: str) -> uuid.UUID:
        return order_id(kind, merchant, order_no)

    def voucher(self, order: uuid.UUID, step: str = "post", attempt: int = 0) -> uuid.UUID:
        return voucher_id(order, step, attempt)


@pytest.fixture
async def attacker(service: RunningService) -> AsyncIterator[AccountService]:
    """Open a client of another module of the account service."""
    async with AccountService(service.base_url, service.token) as accounts:
        yield accounts


async def blocked(worker: FundWorker, merchant: str, attacker: AccountService) -> int:
    """Let another module use the guessed ids of orders and vouchers first. Return the number of orders not posted."""
    numbers = [f"order-{i}" for i in range(GUESSES)]
    entries = [debit(f"bank:c-{worker.salt}", 1), credit(f"merchant:{merchant}:available", 1)]
    guessed = [order_id("payment", merchant, number) for number in numbers]
    taken = [*guessed, *map(voucher_id, guessed)]
    results = await attacker.post_vouchers([Voucher(id_, "guess", entries) for id_ in taken])
    assert {result.status for result in results} == {"posted"}
    done = await asyncio.gather(*(worker.pay(merchant, number, 3) for number in numbers))
    return sum(order.state is not State.POSTED for order in done)


async def test_of_five_hundred_guessed_ids_none_is_an_orders(worker: FundWorker, attacker: AccountService) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "first", 10)
    assert await blocked(worker, merchant, attacker) == 0
    assert (await worker.of(merchant))[0] == 10 + 3 * GUESSES + 2 * GUESSES


async def test_of_unkeyed_ids_all_are_guessed(fund_database: str, service: RunningService) -> None:
    """The broken twin of the test above: ids do not depend on the key, and the own module uses them first."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        worker.posting.ids = worker.batcher._ids = Former(ids_key(KEYS))
        merchant = await worker.merchant()
        await worker.pay(merchant, "first", 10)
        assert await blocked(worker, merchant, worker.accounts) == GUESSES


async def test_the_voucher_of_an_end_is_not_made_of_what_a_caller_knows(
    worker: FundWorker, attacker: AccountService
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 10)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=5, channel=f"c-{worker.salt}")
    entries = [debit(f"bank:c-{worker.salt}", 1), credit(f"merchant:{merchant}:available", 1)]
    await attacker.post_voucher(Voucher(voucher_id(order.id, "end"), "guess", entries))
    ended = await worker.batcher.end(order.id, "paid", "ref", None, "m")
    assert isinstance(ended, Taken)
    assert ended.order.state is State.PAID


def test_ids_are_uuids_of_version_8_and_depend_on_the_key_and_every_name() -> None:
    other = Ids(MacKey(1, bytes(32)))
    names = [("payment", "m", "1"), ("payment", "m1", ""), ("refund", "m", "1"), ("payment", "m", "2")]
    made = [ids.order(*each) for ids in (IDS, other) for each in names]
    made += [IDS.voucher(made[0], step, n) for step in ("post", "end") for n in (0, 1)]
    assert len(set(made)) == len(made)
    for id_ in made:
        assert uuid.UUID(str(id_)).version == 8
        assert uuid.UUID(str(id_)).variant == uuid.RFC_4122
    # A pinned value, which is the same in every process and every release.
    assert str(IDS.order("payment", "m", "1")) == "6bf53dda-faad-83eb-aa45-33551f9eafe8"


# --- A database from before keyed ids -------------------------------------------------------------------------------


@pytest.fixture
async def former(postgres: Databases, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a fund worker on a migrated database, with orders of every kind from before ids depended on the key."""
    dsn = await postgres.new_fund()
    salt = uuid.uuid4().hex[:8]
    async with FundWorker(dsn, service.base_url, service.fund_token, salt=salt) as old:
        old.posting.ids = old.batcher._ids = Former(ids_key(KEYS))
        merchant = await old.merchant(fee=Fee(basis_points=100))
        await old.pay(merchant, "p", 1000)
        await old.pay(merchant, "q", 500)
        await old.pay(merchant, "more", 5000)
        await old.pay(merchant, "later", 300, settle="later")
        members = {"merchant": merchant, "channel": f"c-{salt}"}
        await old.done("withdrawal", order_no="w", amount=100, **members)
        await old.done("withdrawal", order_no="begun", amount=50, **members)
        await old.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
        # The earlier release stored no voucher id with the end of an order.
        begun = "UPDATE fund.orders SET ending = 'paid', due_at = clock_timestamp() WHERE order_no = 'begun'"
        await old.value(begun)
        await old.value("INSERT INTO fund.former_ids (until_seq) SELECT max(seq) FROM fund.orders")
        await old.value(
            "UPDATE fund.orders SET of_voucher = NULL, end_voucher_id = NULL, mac = NULL, mac_key = NULL, layout = 1"
        )
        last = await old.value("SELECT max(seq) FROM fund.orders")
        await old.pool.execute(SQL["write_trusted"], last, trusted_mac(last, KEYS))
        await old.pool.execute(SQL["write_unswept"], last, unswept_mac(last, KEYS))
    async with FundWorker(dsn, service.base_url, service.fund_token, salt=salt) as worker:
        assert worker.posting.ids.former
        yield worker
    await prove_fund(dsn, service.dsn, salt)
    await postgres.drop(dsn)


async def test_orders_of_before_are_replayed_and_what_is_about_them_finds_them(former: FundWorker) -> None:
    worker, merchant = former, f"m-{former.salt}"
    before = await worker.of(merchant)
    for number, amount in (("p", 1000), ("q", 500)):
        members = {"merchant": merchant, "order_no": number, "currency": "CNY", "channel": f"c-{worker.salt}"}
        again = await worker.ask("payment", amount=amount, **members)
        assert isinstance(again, Taken)
        assert (again.replay, again.order.id) == (True, order_id("payment", merchant, number))
        other = await worker.ask("payment", amount=amount + 1, **members)
        assert isinstance(other, Refusal)
        assert other.code is Code.ORDER_NO_REUSED
    refund = {"merchant": merchant, "payment_order_no": "p"}
    repeated = await worker.ask("refund", order_no="r", amount=100, **refund)
    assert isinstance(repeated, Taken)
    assert repeated.replay
    assert await worker.of(merchant) == before
    too_much = await worker.ask("refund", order_no="r2", amount=901, **refund)
    assert isinstance(too_much, Refusal)
    assert too_much.code is Code.REFUND_EXCEEDS_PAYMENT
    rest = await worker.done("refund", order_no="r3", amount=900, **refund)
    assert (rest.state, rest.of_order) == (State.POSTED, order_id("payment", merchant, "p"))
    reversal = await worker.done(
        "reversal", merchant=merchant, order_no="u", of_kind="payment", of_order_no="q", reason="wrong"
    )
    assert reversal.state is State.POSTED
    charged = await worker.done(
        "chargeback", merchant=merchant, order_no="c", payment_order_no="later", amount=300, channel_ref="x"
    )
    assert charged.state is State.POSTED
    assert charged.id == IDS.order("chargeback", merchant, "c")


async def test_withdrawals_of_before_end_once(former: FundWorker) -> None:
    worker, merchant = former, f"m-{former.salt}"
    ended = await worker.batcher.end(order_id("withdrawal", merchant, "w"), "bounced", None, "closed", "m")
    assert isinstance(ended, Taken)
    assert ended.order.state is State.BOUNCED
    while await worker.value("SELECT count(*) FROM fund.orders WHERE due_at IS NOT NULL"):
        await worker.recoverer.recover_some()
    begun = order_id("withdrawal", merchant, "begun")
    assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", begun) == "paid"
    # The earlier release would have posted the voucher under this id.
    posted = await worker.accounts.voucher(voucher_id(begun, "end"))
    assert posted is not None
    assert posted.type == "withdraw_paid"


async def test_of_many_concurrent_orders_none_takes_the_number_of_an_older_order(former: FundWorker) -> None:
    worker, merchant = former, f"m-{former.salt}"
    before = await worker.of(merchant)
    members = {"merchant": merchant, "currency": "CNY", "channel": f"c-{worker.salt}"}
    asked = [worker.ask("payment", order_no=n, amount=1000, **members) for n in ("p", "new") for _ in range(20)]
    answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Taken) and not answer.replay for answer in answers) == 1
    # The fee is 1 %.
    assert (await worker.of(merchant))[0] == before[0] + 990


async def test_a_database_with_orders_is_marked_when_it_is_migrated_and_an_empty_one_is_not(
    postgres: Databases,
) -> None:
    for count in (0, 1):
        dsn = await postgres.empty()
        connection = await asyncpg.connect(dsn)
        await migrate(connection)
        await connection.execute(
            "DROP TABLE fund.former_ids; DELETE FROM public.fundledger_fund_migrations WHERE number = 9"
        )
        await connection.execute("ALTER TABLE fund.orders DROP COLUMN of_voucher, DROP COLUMN end_voucher_id")
        if count:
            await connection.execute(
                """INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest,
                   voucher_id, created_at, layout) VALUES (gen_random_uuid(), 'payment', 'm', '1', 'posting', 1, 0, 'CNY',
                   't', '', gen_random_uuid(), now(), 1)"""
            )
        await migrate(connection)
        assert (await open_ids(connection, KEYS)).former is bool(count)
        await connection.close()
        await postgres.drop(dsn)
